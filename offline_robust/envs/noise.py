"""Noise on what the policy sees and does, outside the simulation: sensors and actuators that are not perfect."""

from __future__ import annotations

from collections import deque

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from offline_robust.envs.perturbations import ANY, FloatArray, Mode, ParameterSpec, Target
from offline_robust.envs.stages import Rows, Site, Stage, register_stage
from offline_robust.envs.systems import System
from offline_robust.errors import EvaluationError

_EXACT = {"Reacher": (0, 1, 2, 3), "LunarLander": (6, 7)}
"""Observed dimensions that nobody measures, by the beginning of the environment id, as in DR-SAC (arXiv 2506.12622):
the cosines and sines of Reacher's angles, and LunarLander's leg contacts. They may come late, but carry no noise."""

_UNBOUNDED = float(np.finfo(np.float32).max)
"""Bounds this large are a way of writing that there are none."""


class Noise(Stage):
    """A stage on one side of the policy, that of its parameter; what it does to the numbers there is `_through`.

    Values only scale the random draws, or are compared with them. Numbers that are known exactly, and where a part of
    the observation is named the others, pass untouched.
    """

    late = False
    """Whether the numbers stay what they are and only come late, which those that are known exactly may."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._observes = site.spec.target == "observation"
        kept = set(known_exactly(site.system)) if self._observes and not self.late else set()
        if site.spec.part is not None:
            kept |= {*range(site.spec.part[0]), *range(site.spec.part[1], site.width)}
        self._kept = sorted(kept)

    def observe(self, true: Rows, seen: Rows) -> Rows:
        """See `Stage`."""
        return self._changed(seen) if self._observes else seen

    def act(self, true: Rows, actions: Rows) -> Rows:
        """See `Stage`."""
        return actions if self._observes else self._changed(actions)

    def _through(self, x: Rows, value: FloatArray) -> Rows:
        """What it lets through.

        Args:
            x: (N, D), or (N,) of discrete actions.
            value: of its parameter, (N,).
        """
        raise NotImplementedError

    def _changed(self, x: Rows) -> Rows:
        after = self._through(x, self.next_values()).astype(x.dtype, copy=False)
        if self._kept:
            after[:, self._kept] = x[:, self._kept]
        return after


class Gaussian(Noise):
    """Adds Gaussian noise; the value is its standard deviation."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._stream = site.stream(site.width, "normal")

    def _through(self, x: Rows, value: FloatArray) -> Rows:
        return x + value[:, None] * self._stream.next()


class _Drawing(Noise):
    """Draws one uniform number for each number that passes."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._stream = site.stream(site.width, "uniform")


class Uniform(_Drawing):
    """Adds uniform noise; the value is its half-width."""

    def _through(self, x: Rows, value: FloatArray) -> Rows:
        return x + value[:, None] * (2.0 * self._stream.next() - 1.0)


class Cauchy(_Drawing):
    """Adds Cauchy noise; the value is its scale, the half-width of the half of the draws in the middle."""

    def _through(self, x: Rows, value: FloatArray) -> Rows:
        return x + value[:, None] * np.tan(np.pi * (self._stream.next() - 0.5))


class Bias(Noise):
    """Adds the value."""

    def _through(self, x: Rows, value: FloatArray) -> Rows:
        return x + value[:, None]


class Gain(Noise):
    """Multiplies by the value."""

    def _through(self, x: Rows, value: FloatArray) -> Rows:
        return x * value[:, None]


class Dropout(_Drawing):
    """Each number reads 0 with the value as probability."""

    def _through(self, x: Rows, value: FloatArray) -> Rows:
        return np.where(self._stream.next() < value[:, None], 0, x)


class SaltAndPepper(_Drawing):
    """Each number reads its lowest or its highest value, with half the parameter's value as probability for each.

    Those are the space's bounds, or, where it has none, the extremes that the episode has shown so far.
    """

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        assert isinstance(site.space, gym.spaces.Box)
        low, high = site.space.low.astype(np.float64), site.space.high.astype(np.float64)
        self._low, self._high = (np.where(np.abs(b) < _UNBOUNDED, b, np.nan) for b in (low, high))
        self._least = np.full((len(site.episodes), site.width), np.inf)
        self._most = -self._least

    def _through(self, x: Rows, value: FloatArray) -> Rows:
        self._least, self._most = np.minimum(self._least, x), np.maximum(self._most, x)
        low = np.where(np.isnan(self._low), self._least, self._low)
        high = np.where(np.isnan(self._high), self._most, self._high)
        draws, half = self._stream.next(), value[:, None] / 2
        return np.where(draws < half, low, np.where(draws >= 1.0 - half, high, x))


class Delay(Noise):
    """Lets through what came in so many steps ago; the value is that number of whole steps, which may change.

    Until the first input arrives an observation is the first one. An action rests in the middle of its range, or at 0
    where a side of that is open; discrete ones have no middle, so the first one is held.
    """

    late = True
    discrete = True

    def __init__(self, site: Site) -> None:
        p = site.perturbation
        ends = [p.level, p.level if p.start is None else p.start]
        self._check(site, ends)
        super().__init__(site)
        self._full = 1 + int(max(site.spec.nominal, *self.values(np.array(ends))))
        self._past: deque[Rows] = deque(maxlen=self._full)

    def _check(self, site: Site, ends: list[float]) -> None:
        """Refuses levels that are no delays; the perturbation moves between these two."""
        for level in ends:
            if level != round(level):
                raise EvaluationError(f"{site.perturbation.parameter} = {level:g}: a delay is a whole number of steps")

    def values(self, levels: FloatArray) -> FloatArray:
        """See `Stage`; in steps. Moving levels pass through what lies between whole ones."""
        return np.rint(super().values(levels))

    def _through(self, x: Rows, value: FloatArray) -> Rows:
        if not self._past:
            # A line of the longest delay that already holds what comes out first.
            self._past.extend([np.broadcast_to(self._first(x), x.shape).copy()] * self._full)
        self._past.append(x.copy())
        out = np.empty_like(x)
        for steps in np.unique(value):
            chosen = value == steps
            out[chosen] = self._past[-1 - int(steps)][chosen]
        return out

    def _first(self, x: Rows) -> Rows:
        space = self.site.space
        if self._observes or isinstance(space, gym.spaces.Discrete):
            return x
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        bounded = (np.abs(low) < _UNBOUNDED) & (np.abs(high) < _UNBOUNDED)
        middle = np.where(bounded, (np.where(bounded, low, 0) + np.where(bounded, high, 0)) / 2, 0.0)
        return middle.astype(x.dtype)


class Latency(Delay):
    """A delay in milliseconds, rounded up to whole steps of the environment."""

    def _check(self, site: Site, ends: list[float]) -> None:
        """Refuses an environment that does not tell how long a step takes."""
        if site.system.step_seconds is None:
            name = site.perturbation.parameter
            steps = name.replace("latency", "delay")
            raise EvaluationError(
                f"{site.system.env_id} does not tell how long a step takes: use {steps} instead of {name}"
            )

    def values(self, levels: FloatArray) -> FloatArray:
        """See `Stage`; in steps."""
        seconds = self.site.system.step_seconds
        assert seconds is not None
        # What is not there when a step begins is used at the next; 40 ms are two steps of 0.02 s, not three.
        return np.ceil(Stage.values(self, levels) / 1000.0 / seconds - 1e-9)


class Repeat(Noise):
    """What was let through one step before is let through again, with the value as probability."""

    discrete = True

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._stream = site.stream(1, "uniform")
        self._last: Rows | None = None

    def _through(self, x: Rows, value: FloatArray) -> Rows:
        again = self._stream.next()[:, 0] < value
        self._last = x.copy() if self._last is None else np.where(_across(again, x), self._last, x)
        return self._last


class Stick(Noise):
    """An input is held for an exponential time, its mean (steps) the value; then the next one is taken and held."""

    discrete = True

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._stream = site.stream(1, "uniform")
        self._left = np.zeros(len(site.episodes))
        self._last: Rows | None = None

    def _through(self, x: Rows, value: FloatArray) -> Rows:
        times = -np.log1p(-self._stream.next()[:, 0])
        free = self._left <= 0
        self._last = x.copy() if self._last is None else np.where(_across(free, x), x, self._last)
        # Inputs are taken at whole steps only, and each stays for one step at least.
        self._left = np.where(free, np.ceil(value * times), self._left) - 1
        return self._last


class Replace(Noise):
    """A uniformly random action in place of the input, with the value as probability."""

    discrete = True
    bounded = True

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        # The first number is the coin, the others are the action's place in its range.
        self._stream = site.stream(1 + site.width, "uniform")

    def _through(self, x: Rows, value: FloatArray) -> Rows:
        draws = self._stream.next()
        return np.where(_across(draws[:, 0] < value, x), _random_actions(self.site.space, draws[:, 1:]), x)


class Blend(_Drawing):
    """The mean of the input and a uniformly random action, in which that one has the value as its weight."""

    bounded = True

    def _through(self, x: Rows, value: FloatArray) -> Rows:
        drawn = _random_actions(self.site.space, self._stream.next())
        return (1.0 - value[:, None]) * x + value[:, None] * drawn


def known_exactly(system: System) -> list[int]:
    """The dimensions of the observation that no sensor measures, so that none is wrong about them."""
    width = int(np.prod(system.observation_space.shape or ()))
    return [d for prefix, dims in _EXACT.items() if system.env_id.startswith(prefix) for d in dims if d < width]


def _random_actions(space: gym.spaces.Box | gym.spaces.Discrete, unit: FloatArray) -> Rows:
    if isinstance(space, gym.spaces.Discrete):
        return (space.start + np.floor(unit[:, 0] * space.n)).astype(np.int64)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    return (low + unit * (high - low)).astype(space.dtype)


def _across(rows: NDArray[np.bool_], x: Rows) -> NDArray[np.bool_]:
    """A flag per row in a shape that goes with ``x``."""
    return rows.reshape(-1, *[1] * (x.ndim - 1))


def _register(
    name: str,
    unit: str,
    low: float,
    high: float,
    meaning: str,
    stage: type[Noise],
    nominal: float = 0.0,
    mode: Mode = "absolute",
) -> None:
    target: Target = "observation" if name.startswith("observation") else "action"
    register_stage(ParameterSpec(name, unit, low, high, mode, meaning, target, nominal=nominal, env=ANY), stage)


_OBSERVED, _DONE, _MOST = "units of the observation", "units of the action", 1e9
_LEAVES = "; Reacher's cos/sin and LunarLander's leg contacts are known exactly and left alone"

_register("observation_noise", _OBSERVED, 0, _MOST, "standard deviation of Gaussian noise on observations, but for "
          "Reacher's angles and LunarLander's contacts", Gaussian)  # fmt: skip
_register("action_noise", _DONE, 0, _MOST, "standard deviation of Gaussian noise added to the action, then clipped to "
          "the action space", Gaussian)  # fmt: skip
_register("random_action", "-", 0, 1, "probability, at each step, that a uniformly random action replaces the "
          "policy's", Replace)  # fmt: skip
_register("observation_uniform", _OBSERVED, 0, _MOST, "half-width of uniform noise added to each observed number"
          + _LEAVES, Uniform)  # fmt: skip
_register("observation_cauchy", _OBSERVED, 0, _MOST, "scale of Cauchy noise added to each observed number" + _LEAVES,
          Cauchy)  # fmt: skip
_register("observation_bias", _OBSERVED, -_MOST, _MOST, "constant added to each observed number" + _LEAVES, Bias)
_register("observation_scale", "-", -1e3, 1e3, "gain by which each observed number is multiplied" + _LEAVES,
          Gain, nominal=1.0, mode="scale")  # fmt: skip
_register("observation_saltpepper", "-", 0, 1, "probability, for each observed number and step, that it reads its "
          "lowest or its highest value: the space's bound, or the extreme of the episode so far where there is none"
          + _LEAVES, SaltAndPepper)  # fmt: skip
_register("observation_dropout", "-", 0, 1, "probability, for each observed number and step, that it reads 0" + _LEAVES,
          Dropout)  # fmt: skip
_register("observation_delay", "steps", 0, 10_000, "whole steps by which the policy sees everything late; the first "
          "observation is held until then", Delay)  # fmt: skip
_register("observation_latency", "ms", 0, 60_000, "time by which the policy sees everything late, rounded up to whole "
          "steps; the first observation is held until then", Latency)  # fmt: skip
_register("action_uniform", _DONE, 0, _MOST, "half-width of uniform noise added to the action, then clipped to the "
          "action space", Uniform)  # fmt: skip
_register("action_cauchy", _DONE, 0, _MOST, "scale of Cauchy noise added to the action, then clipped to the action "
          "space", Cauchy)  # fmt: skip
_register("action_bias", _DONE, -_MOST, _MOST, "constant added to the action, then clipped to the action space", Bias)
_register("action_scale", "-", -1e3, 1e3, "gain by which the action is multiplied, then clipped to the action space",
          Gain, nominal=1.0, mode="scale")  # fmt: skip
_register("action_drop", "-", 0, 1, "probability, at each step, that the action is lost and the previous one is "
          "repeated", Repeat)  # fmt: skip
_register("action_delay", "steps", 0, 10_000, "whole steps by which the action is executed late; until then the middle "
          "of its range (0 where it has none), or the first one where actions are discrete", Delay)  # fmt: skip
_register("action_latency", "ms", 0, 60_000, "time by which the action is executed late, rounded up to whole steps; "
          "until then as with action_delay", Latency)  # fmt: skip
_register("action_stuck", "steps", 0, _MOST, "mean of the exponential time for which the actuator holds an action "
          "before it takes the next (DR-SAC's level is its inverse)", Stick)  # fmt: skip
_register("action_blend", "-", 0, 1, "weight of a uniformly random action that is averaged with the policy's",
          Blend)  # fmt: skip
