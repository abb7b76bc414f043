"""Which perturbations change nothing: a number can be set and still never reach the motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
_TRIALS = 64
"""Pairs that are simulated together: two times four episodes each."""


def without_effect(system: System, conditions: Sequence[Condition]) -> list[tuple[Condition, Perturbation]]:
    """The perturbations that change nothing where they stand: the physics move exactly as they do without.

    Floor friction below the feet's own, wind without a density, a control range beyond what the policy may ask for: the
    number is set and nothing follows. So that no such thing is taken for robustness, each is tried: a few episodes with
    the same random actions, until the motion differs in any bit. A perturbation that acts alone counts as one that
    acts; another is tried again beside the others of its condition. One that moves is tried at both ends.

    Args:
        system: the environment.
        conditions: as `Suite.for_system` gives them; perturbations of nominal level are passed over.

    Returns:
        Each condition with the first of its perturbations that is without effect.
    """
    own = [(condition, system.physics(condition.perturbations)) for condition in conditions]
    every = list(dict.fromkeys(p for _, acting in own for p in acting))
    trials = [((), (p,), p) for p in every if not system.check((p,))]
    silent = {p for (_, _, p), nothing in zip(trials, _silent(system, trials), strict=True) if nothing}
    beside = list(
        dict.fromkeys(
            (tuple(q for q in acting if q is not p), acting, p)
            for _, acting in own
            for p in acting
            if p in silent and len(acting) > 1
        )
    )
    inert = {trial[1:] for trial, nothing in zip(beside, _silent(system, beside), strict=True) if nothing}
    found = []
    for condition, acting in own:
        nothing = [p for p in acting if p in silent and (len(acting) == 1 or (acting, p) in inert)]
        if nothing:
            found.append((condition, nothing[0]))
    return found


_Trial = tuple[tuple[Perturbation, ...], tuple[Perturbation, ...], Perturbation]
"""What acts without the perturbation, what acts with it, and the perturbation."""


def _silent(system: System, trials: Sequence[_Trial]) -> list[bool]:
    """For each trial whether its perturbation changes nothing, at neither of its ends."""
    sides = [
        (k, _still(without), _still(acting, p, end))
        for k, (without, acting, p) in enumerate(trials)
        for end in dict.fromkeys((p.level, p.level if p.start is None else p.start))
    ]
    result = [True] * len(trials)
    for first in range(0, len(sides), _TRIALS):
        part = sides[first : first + _TRIALS]
        alike = _same_motion(system, [side for _, *both in part for side in both])
        for (k, _, _), same in zip(part, alike.tolist(), strict=True):
            result[k] &= same
    return result


def _still(
    acting: Sequence[Perturbation], one: Perturbation | None = None, end: float = 0.0
) -> tuple[Perturbation, ...]:
    """The perturbations where their schedules end, one of them at a level of its own."""
    return tuple(
        replace(p, level=end if p is one else p.level, schedule="constant", start=None, period=None) for p in acting
    )


def _same_motion(system: System, acting: Sequence[tuple[Perturbation, ...]]) -> NDArray[np.bool_]:
    """For each pair of neighbours whether random actions move both alike, bit for bit."""
    batch = make_batch(system, [own for own in acting for _ in range(_STARTS)])
    try:
        same = np.ones(len(acting) // 2, bool)
        observations = batch.reset(list(range(_STARTS)) * len(acting))
        rng = np.random.default_rng(0)
        for _ in range(_STEPS):
            same &= _alike(observations, len(acting))
            if not same.any() or not batch.live.any():
                break
            observations, rewards, *_ = batch.step(np.concatenate([_random_actions(system, rng)] * len(acting)))
            same &= _alike(rewards, len(acting))
    finally:
        batch.close()
    return same


def _alike(values: NDArray[Any], count: int) -> NDArray[np.bool_]:
    blocks = values.reshape(count, -1)
    same: NDArray[np.bool_] = (blocks[::2] == blocks[1::2]).all(1)
    return same


def _random_actions(system: System, rng: np.random.Generator) -> NDArray[Any]:
    space = system.action_space
    if isinstance(space, gym.spaces.Discrete):
        return int(space.start) + rng.integers(int(space.n), size=_STARTS)
    assert isinstance(space, gym.spaces.Box)
    low, high = np.maximum(space.low, -1e3), np.minimum(space.high, 1e3)
    return rng.uniform(low, high, (_STARTS, *space.shape)).astype(space.dtype)
