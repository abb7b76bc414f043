"""What each kind of noise does to one step of a batch; `offline_robust.envs.noise` names and registers them.

A stage takes what reaches it, (N, D) or (N,) of discrete actions, and the value of its parameter for each episode,
(N,), and returns what it lets through. It draws the same random numbers whatever the values are: values only scale
them, or are compared with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from offline_robust.envs.noise_streams import Law, Stream
from offline_robust.envs.perturbations import FloatArray

Rows = NDArray[Any]
Stage = Callable[[Rows, FloatArray], Rows]

_UNBOUNDED = float(np.finfo(np.float32).max)
"""Bounds this large are a way of writing that there are none."""


@dataclass(frozen=True)
class Site:
    """Where a stage acts.

    Attributes:
        space: what it takes: a flat Box, or Discrete.
        rows: how many episodes.
        stream: makes a random stream of so many numbers per row and step.
        longest: the longest delay it will be asked for, in steps.
    """

    space: gym.spaces.Box | gym.spaces.Discrete
    rows: int
    stream: Callable[[int, Law], Stream]
    longest: int = 0

    @property
    def width(self) -> int:
        """Numbers per row: the dimensions of the Box, or 1."""
        return 1 if isinstance(self.space, gym.spaces.Discrete) else int(np.prod(self.space.shape))


StageMaker = Callable[[Site], Stage]


def gaussian(site: Site) -> Stage:
    """Adds Gaussian noise; the value is its standard deviation."""
    stream = site.stream(site.width, "normal")
    return lambda x, value: x + value[:, None] * stream.next()


def uniform(site: Site) -> Stage:
    """Adds uniform noise; the value is its half-width."""
    stream = site.stream(site.width, "uniform")
    return lambda x, value: x + value[:, None] * (2.0 * stream.next() - 1.0)


def cauchy(site: Site) -> Stage:
    """Adds Cauchy noise; the value is its scale, the half-width of the half of the draws in the middle."""
    stream = site.stream(site.width, "uniform")
    return lambda x, value: x + value[:, None] * np.tan(np.pi * (stream.next() - 0.5))


def bias(site: Site) -> Stage:
    """Adds the value."""
    return lambda x, value: x + value[:, None]


def gain(site: Site) -> Stage:
    """Multiplies by the value."""
    return lambda x, value: x * value[:, None]


def dropout(site: Site) -> Stage:
    """Each number reads 0 with the value as probability."""
    stream = site.stream(site.width, "uniform")
    return lambda x, value: np.where(stream.next() < value[:, None], 0, x)


class SaltAndPepper:
    """Each number reads its lowest or its highest value, with half the parameter's value as probability for each.

    Those are the space's bounds, or, where it has none, the extremes that the episode has shown so far.
    """

    def __init__(self, site: Site) -> None:
        assert isinstance(site.space, gym.spaces.Box)
        self._stream = site.stream(site.width, "uniform")
        low, high = site.space.low.astype(np.float64), site.space.high.astype(np.float64)
        self._low, self._high = (np.where(np.abs(b) < _UNBOUNDED, b, np.nan) for b in (low, high))
        self._least = np.full((site.rows, site.width), np.inf)
        self._most = -self._least

    def __call__(self, x: Rows, value: FloatArray) -> Rows:
        """See the module."""
        self._least, self._most = np.minimum(self._least, x), np.maximum(self._most, x)
        low = np.where(np.isnan(self._low), self._least, self._low)
        high = np.where(np.isnan(self._high), self._most, self._high)
        draws, half = self._stream.next(), value[:, None] / 2
        return np.where(draws < half, low, np.where(draws >= 1.0 - half, high, x))


class DelayLine:
    """Lets through what came in so many steps ago; the value is that number of steps, which may change.

    Args:
        site: where it acts.
        before: what comes out until the first input arrives; None: the first input itself.
    """

    def __init__(self, site: Site, before: Rows | None = None) -> None:
        self._before = before
        self._past: deque[Rows] = deque(maxlen=site.longest + 1)
        self._full = site.longest + 1

    def __call__(self, x: Rows, value: FloatArray) -> Rows:
        """See the module."""
        if not self._past:
            start = x if self._before is None else self._before.astype(x.dtype)
            # A line of the longest delay that already holds what comes out first.
            self._past.extend([np.broadcast_to(start, x.shape).copy()] * self._full)
        self._past.append(x.copy())
        out = np.empty_like(x)
        for steps in np.unique(value):
            chosen = value == steps
            out[chosen] = self._past[-1 - int(steps)][chosen]
        return out


def seen_late(site: Site) -> Stage:
    """A delay of observations: the first one is held until the next arrives."""
    return DelayLine(site)


def done_late(site: Site) -> Stage:
    """A delay of actions: the actuator rests in the middle of its range until the first one arrives.

    Where a side of the range is open, it rests at 0; discrete actions have no middle, so the first one is held.
    """
    if isinstance(site.space, gym.spaces.Discrete):
        return DelayLine(site)
    low, high = site.space.low.astype(np.float64), site.space.high.astype(np.float64)
    bounded = (np.abs(low) < _UNBOUNDED) & (np.abs(high) < _UNBOUNDED)
    return DelayLine(site, np.where(bounded, (np.where(bounded, low, 0) + np.where(bounded, high, 0)) / 2, 0.0))


class Repeat:
    """What was let through one step before is let through again, with the value as probability."""

    def __init__(self, site: Site) -> None:
        self._stream = site.stream(1, "uniform")
        self._last: Rows | None = None

    def __call__(self, x: Rows, value: FloatArray) -> Rows:
        """See the module."""
        again = self._stream.next()[:, 0] < value
        self._last = x.copy() if self._last is None else np.where(_across(again, x), self._last, x)
        return self._last


class Stick:
    """An input is held for an exponential time, its mean (steps) the value; then the next one is taken and held."""

    def __init__(self, site: Site) -> None:
        self._stream = site.stream(1, "uniform")
        self._left = np.zeros(site.rows)
        self._last: Rows | None = None

    def __call__(self, x: Rows, value: FloatArray) -> Rows:
        """See the module."""
        times = -np.log1p(-self._stream.next()[:, 0])
        free = self._left <= 0
        self._last = x.copy() if self._last is None else np.where(_across(free, x), x, self._last)
        # Inputs are taken at whole steps only, and each stays for one step at least.
        self._left = np.where(free, np.ceil(value * times), self._left) - 1
        return self._last


def replaced(site: Site) -> Stage:
    """A uniformly random action in place of the input, with the value as probability."""
    # The first number is the coin, the others are the action's place in its range.
    stream = site.stream(1 + site.width, "uniform")

    def stage(x: Rows, value: FloatArray) -> Rows:
        draws = stream.next()
        return np.where(_across(draws[:, 0] < value, x), _random_actions(site.space, draws[:, 1:]), x)

    return stage


def blended(site: Site) -> Stage:
    """The mean of the input and a uniformly random action, in which that one has the value as its weight."""
    stream = site.stream(site.width, "uniform")

    def stage(x: Rows, value: FloatArray) -> Rows:
        return (1.0 - value[:, None]) * x + value[:, None] * _random_actions(site.space, stream.next())

    return stage


def _random_actions(space: gym.Space[Any], unit: FloatArray) -> Rows:
    if isinstance(space, gym.spaces.Discrete):
        return (space.start + np.floor(unit[:, 0] * space.n)).astype(np.int64)
    assert isinstance(space, gym.spaces.Box)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    return (low + unit * (high - low)).astype(space.dtype)


def _across(rows: NDArray[np.bool_], x: Rows) -> NDArray[np.bool_]:
    """A flag per row in a shape that goes with ``x``."""
    return rows.reshape(-1, *[1] * (x.ndim - 1))
