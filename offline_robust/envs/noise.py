"""Noise on what the policy sees and does, outside the simulation: sensors and actuators that are not perfect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from offline_robust.envs import noise_stages as stages
from offline_robust.envs.noise_streams import Stream
from offline_robust.envs.perturbations import (
    ANY,
    FloatArray,
    Mode,
    ParameterSpec,
    Perturbation,
    Target,
    register_parameter,
)
from offline_robust.envs.systems import System
from offline_robust.errors import EvaluationError

Delay = Literal["", "steps", "ms"]
"""Whether the value is a delay, and in what."""

_EXACT = {"Reacher": (0, 1, 2, 3), "LunarLander": (6, 7)}
"""Observed dimensions that nobody measures, by the beginning of the environment id, as in DR-SAC (arXiv 2506.12622):
the cosines and sines of Reacher's angles, and LunarLander's leg contacts. They may come late, but carry no noise."""


@dataclass(frozen=True)
class Kind:
    """How one kind of noise acts.

    Attributes:
        make: builds its stage.
        discrete: whether it fits discrete actions.
        bounded: whether it needs a bounded action space.
        delay: whether its value is a delay.
    """

    make: stages.StageMaker
    discrete: bool = False
    bounded: bool = False
    delay: Delay = ""


_KINDS: dict[str, Kind] = {}


class NoiseLayer:
    """The sensors and actuators between a batch of episodes and the policy.

    Observation perturbations act in the order stated, then the policy, then action perturbations in the order stated.
    Actions that end outside a Box are clipped to it, once, after the last of them. Random draws depend on the seed,
    the episode and the kind of noise only: levels scale the same draws or are compared with them, and another level,
    kind, episode or policy changes none of them. Latencies count in steps of the unperturbed environment.

    Args:
        system: the environment.
        perturbations: of observations and actions (`System.noise`), with modes filled in.
        seed: the evaluation's seed.
        episodes: the episode indices, one per row.

    Raises:
        EvaluationError: a perturbation does not fit the environment, or a delay is not a whole number of steps.
    """

    def __init__(
        self, system: System, perturbations: Sequence[Perturbation], seed: int, episodes: Sequence[int]
    ) -> None:
        before: Counter[str] = Counter()
        self._observing: list[_Acting] = []
        self._acting: list[_Acting] = []
        for column, perturbation in enumerate(perturbations):
            name = perturbation.parameter
            acting = _Acting(system, perturbation, column, seed, episodes, before[name])
            before[name] += 1
            if not acting.idle:
                (self._observing if system.spec(name).target == "observation" else self._acting).append(acting)
        space = system.action_space
        self._bounds = (space.low, space.high) if isinstance(space, gym.spaces.Box) else None

    def observe(self, observations: NDArray[Any], levels: FloatArray | None = None) -> NDArray[Any]:
        """What the policy sees of the true observations; once per step, the first time right after the reset.

        Args:
            observations: (N, O).
            levels: the current level of each perturbation for each episode, (N, P); None: their own.

        Returns:
            (N, O), in the dtype of the observations.
        """
        for acting in self._observing:
            observations = acting(observations, levels)
        return observations

    def act(self, actions: NDArray[Any], levels: FloatArray | None = None) -> NDArray[Any]:
        """What is executed of the policy's actions; once per step, after `observe`.

        Args:
            actions: (N, A), or (N,) where they are discrete.
            levels: as in `observe`.

        Returns:
            Actions of the same shape and dtype.
        """
        for acting in self._acting:
            actions = acting(actions, levels)
        return np.clip(actions, *self._bounds) if self._acting and self._bounds else actions


class _Acting:
    """One perturbation at work: its stage, and its values from levels."""

    def __init__(
        self,
        system: System,
        perturbation: Perturbation,
        column: int,
        seed: int,
        episodes: Sequence[int],
        occurrence: int,
    ) -> None:
        name = perturbation.parameter
        spec, self._kind = system.spec(name), _kind(name.partition(".")[0])
        self._perturbation, self._column, self._nominal = perturbation, column, spec.nominal
        self._seconds = system.step_seconds
        _check(system, perturbation, spec, self._kind)
        ends = [perturbation.level, perturbation.level if perturbation.start is None else perturbation.start]
        self._own = self._values(np.full(len(episodes), float(perturbation.level)))
        self.idle = not perturbation.moves and bool(self._values(np.array(ends[:1]))[0] == spec.nominal)
        space = system.observation_space if spec.target == "observation" else system.action_space
        # Exact numbers may come late, but are not touched.
        exact = spec.target == "observation" and not self._kind.delay
        self._exact = _exact(system) if exact else []
        if spec.part is not None:  # the other parts of the observation are not touched
            width = int(np.prod(space.shape or ()))
            self._exact = sorted({*self._exact, *range(spec.part[0]), *range(spec.part[1], width)})
        longest = max(spec.nominal, *self._values(np.array(ends))) if self._kind.delay else 0
        self._stage = self._kind.make(
            stages.Site(
                space,  # type: ignore[arg-type]
                len(episodes),
                lambda width, law: Stream(seed, episodes, name, width, law, occurrence),
                int(longest),
            )
        )

    def __call__(self, x: NDArray[Any], levels: FloatArray | None) -> NDArray[Any]:
        after = self._stage(x, self._own if levels is None else self._values(levels[:, self._column]))
        after = after.astype(x.dtype, copy=False)
        if self._exact:
            after[:, self._exact] = x[:, self._exact]
        return after

    def _values(self, levels: FloatArray) -> FloatArray:
        """The parameter's values at these levels; delays in steps."""
        mode = self._perturbation.mode
        values = levels * self._nominal if mode == "scale" else levels + (self._nominal if mode == "add" else 0.0)
        if self._kind.delay == "ms":
            assert self._seconds is not None
            # What is not there when a step begins is used at the next; 40 ms are two steps of 0.02 s, not three.
            return np.ceil(values / 1000.0 / self._seconds - 1e-9)
        # Moving levels pass through what lies between whole steps.
        return np.rint(values) if self._kind.delay else values


def register_noise(spec: ParameterSpec, kind: Kind) -> None:
    """Adds a parameter that acts on observations or actions, for this process.

    Raises:
        EvaluationError: there is a parameter of that name already.
    """
    register_parameter(spec)
    _KINDS[spec.name] = kind


def _kind(name: str) -> Kind:
    if name not in _KINDS:
        raise EvaluationError(f"{name}: register it with register_noise, which says how it acts")
    return _KINDS[name]


def _exact(system: System) -> list[int]:
    width = int(np.prod(system.observation_space.shape or ()))
    return [d for prefix, dims in _EXACT.items() if system.env_id.startswith(prefix) for d in dims if d < width]


def _check(system: System, perturbation: Perturbation, spec: ParameterSpec, kind: Kind) -> None:
    """Refuses what does not fit; see `NoiseLayer`."""
    name, space = perturbation.parameter, system.action_space
    if spec.target == "action" and isinstance(space, gym.spaces.Discrete) and not kind.discrete:
        fitting = ", ".join(n for n, k in _KINDS.items() if k.discrete and system.spec(n).target == "action")
        raise EvaluationError(f"{name} needs continuous actions; with discrete ones use {fitting}")
    if kind.bounded and isinstance(space, gym.spaces.Box) and not np.isfinite([space.low, space.high]).all():
        raise EvaluationError(f"{name} needs a bounded action space")
    if kind.delay == "steps":
        for level in (perturbation.level, perturbation.start or 0.0):
            if level != round(level):
                raise EvaluationError(f"{name} = {level:g}: a delay is a whole number of steps")
    if kind.delay == "ms" and system.step_seconds is None:
        steps = name.replace("latency", "delay")
        raise EvaluationError(f"{system.env_id} does not tell how long a step takes: use {steps} instead of {name}")


_LEAVES = "; Reacher's cos/sin and LunarLander's leg contacts are known exactly and left alone"


def _register(
    name: str,
    unit: str,
    low: float,
    high: float,
    meaning: str,
    kind: Kind,
    nominal: float = 0.0,
    mode: Mode = "absolute",
) -> None:
    target: Target = "observation" if name.startswith("observation") else "action"
    if target == "observation" and not kind.delay:
        meaning += _LEAVES
    register_noise(ParameterSpec(name, unit, low, high, mode, meaning, target, nominal=nominal, env=ANY), kind)


_OBSERVED, _DONE, _MOST = "units of the observation", "units of the action", 1e9

# These three are registered beside the registry.
_KINDS["observation_noise"] = Kind(stages.gaussian)
_KINDS["action_noise"] = Kind(stages.gaussian)
_KINDS["random_action"] = Kind(stages.replaced, discrete=True, bounded=True)
_register("observation_uniform", _OBSERVED, 0, _MOST, "half-width of uniform noise added to each observed number",
          Kind(stages.uniform))  # fmt: skip
_register("observation_cauchy", _OBSERVED, 0, _MOST, "scale of Cauchy noise added to each observed number",
          Kind(stages.cauchy))  # fmt: skip
_register("observation_bias", _OBSERVED, -_MOST, _MOST, "constant added to each observed number", Kind(stages.bias))
_register("observation_scale", "-", -1e3, 1e3, "gain by which each observed number is multiplied",
          Kind(stages.gain), nominal=1.0, mode="scale")  # fmt: skip
_register("observation_saltpepper", "-", 0, 1, "probability, for each observed number and step, that it reads its "
          "lowest or its highest value: the space's bound, or the extreme of the episode so far where there is none",
          Kind(stages.SaltAndPepper))  # fmt: skip
_register("observation_dropout", "-", 0, 1, "probability, for each observed number and step, that it reads 0",
          Kind(stages.dropout))  # fmt: skip
_register("observation_delay", "steps", 0, 10_000, "whole steps by which the policy sees everything late; the first "
          "observation is held until then", Kind(stages.seen_late, delay="steps"))  # fmt: skip
_register("observation_latency", "ms", 0, 60_000, "time by which the policy sees everything late, rounded up to whole "
          "steps; the first observation is held until then", Kind(stages.seen_late, delay="ms"))  # fmt: skip
_register("action_uniform", _DONE, 0, _MOST, "half-width of uniform noise added to the action, then clipped to the "
          "action space", Kind(stages.uniform))  # fmt: skip
_register("action_cauchy", _DONE, 0, _MOST, "scale of Cauchy noise added to the action, then clipped to the action "
          "space", Kind(stages.cauchy))  # fmt: skip
_register("action_bias", _DONE, -_MOST, _MOST, "constant added to the action, then clipped to the action space",
          Kind(stages.bias))  # fmt: skip
_register("action_scale", "-", -1e3, 1e3, "gain by which the action is multiplied, then clipped to the action space",
          Kind(stages.gain), nominal=1.0, mode="scale")  # fmt: skip
_register("action_drop", "-", 0, 1, "probability, at each step, that the action is lost and the previous one is "
          "repeated", Kind(stages.Repeat, discrete=True))  # fmt: skip
_register("action_delay", "steps", 0, 10_000, "whole steps by which the action is executed late; until then the middle "
          "of its range (0 where it has none), or the first one where actions are discrete",
          Kind(stages.done_late, discrete=True, delay="steps"))  # fmt: skip
_register("action_latency", "ms", 0, 60_000, "time by which the action is executed late, rounded up to whole steps; "
          "until then as with action_delay", Kind(stages.done_late, discrete=True, delay="ms"))  # fmt: skip
_register("action_stuck", "steps", 0, _MOST, "mean of the exponential time for which the actuator holds an action "
          "before it takes the next (DR-SAC's level is its inverse)", Kind(stages.Stick, discrete=True))  # fmt: skip
_register("action_blend", "-", 0, 1, "weight of a uniformly random action that is averaged with the policy's",
          Kind(stages.blended, bounded=True))  # fmt: skip
