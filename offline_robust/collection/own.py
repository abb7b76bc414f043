"""Recipes for policies of one's own, from the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from offline_robust.collection.collect import one_level
from offline_robust.collection.recipes import Recipe, parse_recipe
from offline_robust.datasets.sources import policy_path
from offline_robust.errors import ConfigError
from offline_robust.networks import load_policy


def own_recipe(
    out: Path,
    policy: str,
    env_id: str | None = None,
    transitions: int = 100_000,
    epsilon: float = 0.0,
    stochastic: bool = False,
    perturb: Sequence[str] = (),
    seed: int = 0,
) -> Recipe:
    """The recipe of one behaviour, seen from the working folder.

    Args:
        out: the dataset's folder, after which it is called.
        policy: a policy file, a run's folder, a bundled policy's name, or ``random``. A path wins over a name.
        env_id: the environment; the policy's own when None.
        transitions: rows.
        epsilon: probability of a uniform action, step by step.
        stochastic: whether the policy's action is drawn from its distribution.
        perturb: texts such as ``ctrlrange=0.85``.
        seed: of start states and exploration.

    Raises:
        ConfigError: a value is out of range, or nothing names the environment.
        CheckpointError: the policy is missing or damaged.
        EvaluationError: a perturbation cannot be read.
    """
    chosen = policy
    if Path(policy).exists():
        chosen = str(Path(policy).resolve())
    elif policy == "random":
        chosen = ""
    env_id = env_id or (load_policy(policy_path(chosen, Path())).spec.env_id if chosen else None)
    if env_id is None:
        raise ConfigError("data collect: give --env, nothing else names the environment")
    changes = [one_level(text) for text in perturb]
    behaviour = "a policy of one's own" if chosen else "uniformly random actions"
    content: dict[str, Any] = {
        "name": re.sub(r"[^-a-z0-9_]", "-", out.resolve().name.lower()).lstrip("-_")[:100] or "own",
        "env_id": env_id,
        "policy": chosen or None,
        "epsilon": epsilon,
        "stochastic": stochastic,
        "perturb": [{"parameter": c.parameter, "level": c.level, "mode": c.mode} for c in changes],
        "transitions": transitions,
        "seed": seed,
        "description": f"{transitions:,} transitions of {env_id}, collected with {behaviour}.",
    }
    return parse_recipe({key: value for key, value in content.items() if value not in (None, [])}, "data collect")
