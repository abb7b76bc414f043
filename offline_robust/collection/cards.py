"""Cards: what a dataset or a behaviour policy is, in words and measured figures, as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_robust.collection.recipes import Recipe
from offline_robust.datasets import TransitionDataset, describe
from offline_robust.envs import Perturbation
from offline_robust.networks import Policy
from offline_robust.networks.kinds import KINDS

_BUNDLED_POLICY = re.compile(r"[-\w]+")


def dataset_card(recipe: Recipe, dataset: TransitionDataset, collection: Mapping[str, Any]) -> str:
    """The card of a dataset made from a recipe: every figure in it is measured on these data.

    Args:
        recipe: what it was made from.
        dataset: the data.
        collection: what the provenance says: seed, parts with the policies' checksums, versions.

    Returns:
        Markdown.
    """
    facts = describe(dataset)
    own = any(part.policy and not _BUNDLED_POLICY.fullmatch(part.policy) for part in recipe.mixture)
    made_from = "FOLDER/recipe.yaml" if own else recipe.name
    versions = ", ".join(f"{name} {version}" for name, version in collection["versions"].items())
    sums = [f"- `{part['policy']}`: {part['policy_sha256']}" for part in collection["parts"] if part["policy"]]
    blocks = [
        f"# {recipe.name}",
        recipe.description,
        "## How it was made",
        f"    offline-robust data collect {made_from} --out OTHER_FOLDER",
        f"From `recipe.yaml`, environment `{recipe.environment}`, seed {recipe.seed}. Start states and "
        "exploration of each episode come from random streams of their own. The last episode of each part is cut "
        "where its rows are complete. It repeats bit for bit on the same versions and kind of processor: "
        f"{versions}.",
        _table(_PART_COLUMNS, _part_rows(collection["parts"], dataset)),
        *(["SHA-256 of the behaviour policies:", "\n".join(dict.fromkeys(sums))] if sums else []),
        "## What is in it",
        f"{facts['transitions']:,} transitions in {facts['episodes']:,} episodes; "
        f"{facts['episodes_terminated']:.1%} of the episodes end in a terminal state, "
        f"{facts['episodes_truncated']:.1%} are cut. Returns are undiscounted and raw.",
        _table(
            ("", "mean", "std", "min", "median", "max"),
            [[key.replace("_", " "), *_spread(facts[key])] for key in ("returns", "episode_lengths", "rewards")],
        ),
        *_dimension_tables(facts),
        f"Fingerprint: `{facts['fingerprint']}`.",
        *(["## Notes", recipe.notes.strip()] if recipe.notes.strip() else []),
    ]
    return "\n\n".join(blocks) + "\n"


def policy_card(
    name: str,
    command: str,
    policy: Policy,
    curve: Sequence[Mapping[str, float]],
    returns: Sequence[float] | NDArray[np.float64],
) -> str:
    """The card of a behaviour policy.

    Args:
        name: of the bundled model.
        command: what makes it.
        policy: the policy itself.
        curve: its learning curve: ``step``, ``return_mean`` and ``return_std`` of each evaluation.
        returns: undiscounted returns of the shipped policy, measured anew.

    Returns:
        Markdown.
    """
    spec = policy.spec
    measured = np.asarray(returns, np.float64)
    blocks = [
        f"# {name}",
        f"A behaviour policy for `{spec.env_id}`: it makes data, and is no baseline, for it learned online.",
        "## What it does",
        f"{len(measured):,} episodes of the mean (or greedy) action on the nominal system: return "
        f"{measured.mean():,.1f}, standard deviation over episodes {measured.std():,.1f}, from {measured.min():,.1f} "
        f"to {measured.max():,.1f} (undiscounted, raw).",
        "## How it was made",
        f"    {command}",
        "Evaluations on the way, ten episodes of the deterministic action each; the weights are those of the best one, "
        "so the returns above were measured again, on start states of their own:",
        _table(
            ("steps", "mean return", "std over episodes"),
            [[f"{row['step']:,.0f}", f"{row['return_mean']:,.1f}", f"{row['return_std']:,.1f}"] for row in curve],
        ),
        "## Format",
        f"`policy.safetensors`: {spec.observation_dim} observations, hidden layers {list(spec.hidden)} with ReLU, "
        f"{KINDS[spec.kind].words}, {spec.action_text}. Read it with `load_policy`; nothing "
        "is unpickled.",
    ]
    return "\n\n".join(blocks) + "\n"


def read_curve(path: Path) -> list[dict[str, float]]:
    """A learning curve as `policy_card` takes it, from learning_curve.json."""
    curve: list[dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
    return curve


_PART_COLUMNS = ("behaviour", "action", "uniform instead", "physics", "rows", "episodes", "mean return", "std")


def _part_rows(parts: Sequence[Mapping[str, Any]], dataset: TransitionDataset) -> list[list[str]]:
    """The parts as the provenance tells them, and what they gave."""
    returns = dataset.episode_returns().cpu().numpy()
    rows, first = [], 0
    for part in parts:
        episodes = dataset.episode[first : first + part["transitions"]]
        own = returns[int(episodes[0]) : int(episodes[-1]) + 1]
        figures = [f"{len(episodes):,}", f"{len(own):,}", f"{own.mean():,.1f}", f"{own.std():,.1f}"]
        rows.append([*_words(part), *figures])
        first += len(episodes)
    return rows


def _words(part: Mapping[str, Any]) -> list[str]:
    behaviour = f"`{part['policy']}`" if part["policy"] else "uniformly random"
    action = "drawn from the policy" if part["stochastic"] else "mean or greedy" if part["policy"] else "uniform"
    changed = ", ".join(Perturbation(**change).label for change in part["perturb"])
    return [behaviour, action, f"probability {part['epsilon']:g}", changed or "nominal"]


def _dimension_tables(facts: Mapping[str, Any]) -> list[str]:
    change = facts["one_step_change_std"] or [float("nan")] * facts["observation_dim"]
    observed = [
        [str(index), *_statistics(row), f"{own:.4g}"]
        for index, (row, own) in enumerate(zip(facts["observations"], change, strict=True))
    ]
    tables = [_table(("observation", *_COLUMNS, "one-step change (std)"), observed)]
    if facts["discrete"]:
        counted = [[str(k), f"{row['count']:,}", f"{row['share']:.1%}"] for k, row in enumerate(facts["actions"])]
        return [*tables, _table(("action", "count", "share"), counted)]
    acted = [
        [str(index), *_statistics(row), f"{covered['entropy']:.3f}"]
        for index, (row, covered) in enumerate(zip(facts["actions"], facts["coverage"], strict=True))
    ]
    return [*tables, _table(("action", *_COLUMNS, "entropy of its histogram (uniform: 1)"), acted)]


_COLUMNS = ("mean", "std", "min", "max")


def _statistics(row: Mapping[str, float]) -> list[str]:
    return [f"{row[key]:.4g}" for key in _COLUMNS]


def _spread(spread: Mapping[str, float]) -> list[str]:
    return [f"{spread[key]:,.2f}" for key in ("mean", "std", "q00", "q50", "q100")]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
