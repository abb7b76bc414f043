"""Levels that move inside an episode, or differ from episode to episode."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from offline_robust.envs.perturbations import FloatArray, Perturbation
from offline_robust.envs.systems import System

_PERIOD = 1000
"""Steps of a schedule where neither it nor the environment's time limit says."""

_Place = Callable[[int], FloatArray]
"""For a step, how far each episode's level is from the start (0) to the far end (1), (N,) or (1,)."""


class Levels:
    """Levels of a condition's perturbations, step by step, for each episode.

    The random ones depend on the seed, the episode and the parameter only: what else is perturbed, the other episodes
    and the policy change none of them, and other ends of the range scale the same path.

    Args:
        system: the environment.
        perturbations: with modes filled in.
        seed: the evaluation's seed.
        episodes: the episode indices, one per row.
        before: how many perturbations of a parameter act before these: each moves along a path of its own.

    Attributes:
        moving: whether any level changes inside an episode.
        varied: whether any level moves or differs between episodes.
    """

    moving: bool
    varied: bool

    def __init__(
        self,
        system: System,
        perturbations: Sequence[Perturbation],
        seed: int,
        episodes: Sequence[int],
        before: Mapping[str, int] | None = None,
    ) -> None:
        self.moving = any(p.schedule not in ("constant", "uniform") for p in perturbations)
        self.varied = any(p.moves for p in perturbations)
        self._levels = np.tile([float(p.level) for p in perturbations], (len(episodes), 1))
        self._paths: list[tuple[int, float, float, _Place]] = []
        count = Counter(before)
        for column, p in enumerate(perturbations):
            if p.moves:
                start = p.neutral(_nominal(system, p.parameter)) if p.start is None else float(p.start)
                draws = _Draws(p.parameter, seed, episodes, count[p.parameter])
                self._paths.append((column, start, float(p.level), _place(p, system.time_limit, draws)))
            count[p.parameter] += 1

    def at(self, step: int) -> FloatArray:
        """The levels before one control step.

        Args:
            step: 0 for the first; never less than in the call before.

        Returns:
            (N, P), the caller's own.
        """
        for column, start, level, place in self._paths:
            along = place(step)
            # Both ends are met exactly, whatever the rounding in between.
            self._levels[:, column] = (1.0 - along) * start + along * level
        return self._levels.copy()


class _Draws:
    """One random number per episode at a time, and the sum of them so far."""

    def __init__(self, parameter: str, seed: int, episodes: Sequence[int], occurrence: int) -> None:
        key = [zlib.crc32(f"{parameter}schedule".encode()), *[occurrence] * (occurrence > 0)]
        self._generators = [np.random.default_rng([seed, episode, *key]) for episode in episodes]
        self._count = 0
        self._now = np.zeros(len(self._generators))

    def uniform(self, number: int) -> FloatArray:
        """The draw of this number, 1 for the first, uniform on [0, 1), (N,)."""
        while self._count < number:
            self._now = np.array([generator.random() for generator in self._generators])
            self._count += 1
        return self._now

    def normal_sum(self, number: int) -> FloatArray:
        """The sum of so many standard normal draws, (N,)."""
        while self._count < number:
            self._now = self._now + np.array([generator.standard_normal() for generator in self._generators])
            self._count += 1
        return self._now


def _place(p: Perturbation, time_limit: int | None, draws: _Draws) -> _Place:
    """Where a schedule is at a step; see `offline_robust.envs.perturbations.Schedule`."""
    period = p.period or (1 if p.schedule == "redraw" else time_limit or _PERIOD)
    if p.schedule == "ramp":
        return lambda step: np.array([min(step / period, 1.0)])
    if p.schedule == "cycle":
        return lambda step: np.array([0.5 - 0.5 * math.cos(2.0 * math.pi * (step % period) / period)])
    if p.schedule == "walk":
        # Steps that add up to one range in a period; reflected, the level is then anywhere in it, all but evenly.
        return lambda step: _folded(draws.normal_sum(step) / math.sqrt(period))
    if p.schedule == "uniform":
        return lambda step: draws.uniform(1)
    return lambda step: draws.uniform(1 + step // period)


def _folded(path: FloatArray) -> FloatArray:
    """A path on the whole line as one between mirrors at 0 and 1."""
    folded: FloatArray = 1.0 - np.abs(1.0 - np.mod(path, 2.0))
    return folded


def _nominal(system: System, parameter: str) -> FloatArray:
    if parameter in system.nominal:
        return system.nominal[parameter]
    return np.array([system.parameters[parameter].nominal])
