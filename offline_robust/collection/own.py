"""Recipes for policies of one's own, from the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from offline_robust.collection.collect import one_level
from offline_robust.collection.recipes import Recipe, parse_recipe
from offline_robust.datasets.sources import policy_path
from offline_robust.environment import EnvironmentSpec, as_spec
from offline_robust.errors import ConfigError
from offline_robust.networks import load_policy


def own_recipe(
    out: Path,
    policy: str,
    env: str | EnvironmentSpec | None = None,
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
        env: the environment; the policy's own when None, and when its id is all that is said.
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
    own = load_policy(policy_path(chosen, Path())).spec.environment if chosen else None
    spec = own if env is None else as_spec(env, "--env")
    if own is not None and spec is not None and spec.plain and spec.id == own.id:
        spec = own
    if spec is None:
        raise ConfigError("data collect: give --env, nothing else names the environment")
    changes = [one_level(text) for text in perturb]
    behaviour = "a policy of one's own" if chosen else "uniformly random actions"
    content: dict[str, Any] = {
        "name": re.sub(r"[^-a-z0-9_]", "-", out.resolve().name.lower()).lstrip("-_")[:100] or "own",
        "env_id": spec.id,
        "env_kwargs": dict(spec.kwargs) or None,
        "step_limit": spec.step_limit,
        "wrappers": [wrapper.to_dict() for wrapper in spec.wrappers],
        "policy": chosen or None,
        "epsilon": epsilon,
        "stochastic": stochastic,
        "perturb": [{"parameter": c.parameter, "level": c.level, "mode": c.mode} for c in changes],
        "transitions": transitions,
        "seed": seed,
        "description": f"{transitions:,} transitions of {spec.id}, collected with {behaviour}.",
    }
    return parse_recipe({key: value for key, value in content.items() if value not in (None, [])}, "data collect")
