"""Which conditions change nothing: a perturbation can be set and still never reach the motion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from offline_robust.envs.batched import make_batch
from offline_robust.envs.perturbations import Perturbation
from offline_robust.envs.suites import Condition
from offline_robust.envs.systems import System

_STARTS = 4
_STEPS = 100


def without_effect(system: System, conditions: Sequence[Condition]) -> list[Condition]:
    """The conditions under which the physics move exactly as they do nominally.

    Floor friction below the feet's own, wind without a density, a control range beyond what the policy may ask for: the
    number is set and nothing follows. So that no such condition is taken for robustness, each is tried: a few episodes
    with the same random actions, until its motion differs from the nominal one in any bit.

    Args:
        system: the environment.
        conditions: as `Suite.for_system` gives them; those that leave the physics nominal are passed over.
    """
    tried = [c for c in conditions if not system.check(system.physics(c.perturbations))]
    if not tried:
        return []
    batch = make_batch(system, [acting for c in (None, *tried) for acting in [_acting(system, c)] * _STARTS])
    try:
        silent = np.ones(len(tried), bool)
        observations = batch.reset(list(range(_STARTS)) * (1 + len(tried)))
        rng = np.random.default_rng(0)
        for _ in range(_STEPS):
            silent &= _alike(observations, len(tried))
            if not silent.any() or not batch.live.any():
                break
            actions = _random_actions(system, rng)
            observations, rewards, *_ = batch.step(np.concatenate([actions] * (1 + len(tried))))
            silent &= _alike(rewards, len(tried))
    finally:
        batch.close()
    return [condition for condition, nothing in zip(tried, silent, strict=True) if nothing]


def _acting(system: System, condition: Condition | None) -> tuple[Perturbation, ...]:
    return () if condition is None else system.physics(condition.perturbations)


def _alike(values: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """For each condition whether its rows equal the nominal ones, which come first."""
    blocks = values.reshape(1 + count, -1)
    same: NDArray[np.bool_] = (blocks[1:] == blocks[:1]).all(1)
    return same


def _random_actions(system: System, rng: np.random.Generator) -> NDArray[Any]:
    space = system.action_space
    if isinstance(space, gym.spaces.Discrete):
        return int(space.start) + rng.integers(int(space.n), size=_STARTS)
    assert isinstance(space, gym.spaces.Box)
    low, high = np.maximum(space.low, -1e3), np.minimum(space.high, 1e3)
    return rng.uniform(low, high, (_STARTS, *space.shape)).astype(space.dtype)
