"""Stages between a system and a policy: what changes that which is seen of the system, or done of the actions.

Sensor noise, latency, attacks on observations and disturbances of actions are all stages. A `Perturbation` states one
as data; `register_stage` says which class acts for its parameter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from offline_robust.envs.batched import BatchedEnv
from offline_robust.envs.identity import code_digest
from offline_robust.envs.perturbations import FloatArray, ParameterSpec, Perturbation, register_parameter
from offline_robust.envs.schedules import Levels
from offline_robust.envs.streams import Law, Stream
from offline_robust.envs.systems import System
from offline_robust.errors import EvaluationError

Rows = NDArray[Any]
"""Observations (N, O), or actions: (N, A), or (N,) where they are discrete."""


@dataclass(frozen=True)
class Site:
    """Where a stage acts.

    Attributes:
        system: the environment.
        perturbation: what is asked of the stage, its mode filled in.
        seed: the evaluation's seed.
        episodes: the episode indices, one for each of N rows; none where it is only checked whether the stage fits.
        victim: the policy that is evaluated: a `Policy`, or what else `evaluate` takes.
        occurrence: how many of the same parameter act before it under its condition.
    """

    system: System
    perturbation: Perturbation
    seed: int
    episodes: Sequence[int]
    victim: Any = None
    occurrence: int = 0

    @property
    def spec(self) -> ParameterSpec:
        """The parameter that it moves."""
        return self.system.spec(self.perturbation.parameter)

    @property
    def space(self) -> gym.spaces.Box | gym.spaces.Discrete:
        """What the stage changes: the space of observations or of actions, a flat Box or Discrete."""
        of = self.system
        return of.observation_space if self.spec.target == "observation" else of.action_space  # type: ignore[return-value]

    @property
    def width(self) -> int:
        """Numbers per row: the dimensions of the Box, or 1."""
        return 1 if isinstance(self.space, gym.spaces.Discrete) else int(np.prod(self.space.shape))

    def stream(self, width: int, law: Law) -> Stream:
        """A random stream of so many numbers per row and step, that nothing beside the stage can shift."""
        name = self.perturbation.parameter
        return Stream(self.seed, self.episodes, name, width, law, self.occurrence)


class Stage:
    """One perturbation at work between a system and a policy, for N episodes that advance together.

    A subclass overrides `observe`, `act` or both. It must draw the same random numbers whatever its level is, and what
    happens in one row must not reach another: rows of ended episodes go on with what they saw last.

    Args:
        site: where it acts.

    Attributes:
        site: the same.
        idle: whether the parameter keeps its nominal value, so that the stage need not act.
    """

    discrete = False
    """Whether it fits discrete actions, where it acts on actions."""
    bounded = False
    """Whether it needs a bounded action space."""

    def __init__(self, site: Site) -> None:
        self.site = site
        p, nominal = site.perturbation, site.spec.nominal
        self._levels = Levels(site.system, [p], site.seed, site.episodes, {p.parameter: site.occurrence})
        self._step = 0
        self._still = self.values(np.full(len(site.episodes), float(p.level)))
        self.idle = not p.moves and bool(self.values(np.array([float(p.level)]))[0] == nominal)

    def start(self, batch: BatchedEnv, rows: slice) -> None:
        """Called before the episodes begin, for a stage that acts inside the simulation too.

        Args:
            batch: what is simulated; ``batch.live[rows]`` tells which of its episodes still run.
            rows: where its episodes are.
        """

    def observe(self, true: Rows, seen: Rows) -> Rows:
        """What the policy, or the stage behind this one, sees; once per step, the first time right after the reset.

        Args:
            true: the system's observations (N, O), never to be changed.
            seen: what the stages before this one make of them.

        Returns:
            (N, O) in the dtype of ``seen``.
        """
        return seen

    def act(self, true: Rows, actions: Rows) -> Rows:
        """What is executed, or handed to the stage behind this one; once per step, after `observe`.

        Args:
            true: the system's observations (N, O) that the policy acted on.
            actions: the policy's actions, after the stages before this one.

        Returns:
            Actions of the same shape and dtype; beyond a Box they are clipped to it once, after the last stage.
        """
        return actions

    def fingerprint(self) -> str:
        """Text that differs wherever this stage could give other numbers; it enters the key of results.

        It holds the perturbation, what the parameter is, the class, and its source where that is not this library's. A
        stage that depends on more, such as the weights of an attacker, adds it.
        """
        spec, kind = self.site.spec, cast("Any", type(self))
        facts = {"target": spec.target, "nominal": spec.nominal, "part": spec.part}
        content = asdict(self.site.perturbation) | facts | {"code": code_digest(kind)}
        return json.dumps(content, sort_keys=True)

    def values(self, levels: FloatArray) -> FloatArray:
        """The parameter's values at these levels."""
        mode, nominal = self.site.perturbation.mode, self.site.spec.nominal
        return levels * nominal if mode == "scale" else levels + (nominal if mode == "add" else 0.0)

    def next_values(self) -> FloatArray:
        """The parameter's value in each episode at this step, (N,); to be asked once a step."""
        step, self._step = self._step, self._step + 1
        return self.values(self._levels.at(step)[:, 0]) if self._levels.varied else self._still


_STAGES: dict[str, type[Stage]] = {}


def register_stage(spec: ParameterSpec, stage: type[Stage]) -> None:
    """Adds a parameter that acts on observations or actions, and the class that does it, for this process.

    From then on it is a perturbation like any other: in suites, ``--perturb`` and `evaluate`, alone or beside others.

    Args:
        spec: the parameter; its ``target`` is "observation" or "action", its ``env`` an id or `perturbations.ANY`.
        stage: a subclass of `Stage`.

    Raises:
        EvaluationError: there is a parameter of that name already, or it acts on the physics.
    """
    if spec.target == "physics":
        raise EvaluationError(f"{spec.name}: a stage acts on observations or actions, not on the physics")
    register_parameter(spec)
    _STAGES[spec.name] = stage


class Stages:
    """All that one condition does to its episodes: it moves their physics, and its stages stand around the policy.

    Observations pass the stages in the order stated, then the policy acts, then its actions pass them in the order
    stated. Actions that end outside a Box are clipped to it. Random draws depend on the seed, the episode and the
    parameter only: another level, parameter, episode or policy changes none of them. Latencies count in steps of the
    unperturbed environment.

    Args:
        system: the environment.
        perturbations: with modes filled in.
        seed: the evaluation's seed.
        episodes: the episode indices, one per row.
        victim: the policy.

    Attributes:
        physics: the perturbations that act inside the simulation.

    Raises:
        EvaluationError: a perturbation does not fit the environment or the policy.
    """

    _batch: BatchedEnv
    _rows: slice

    def __init__(
        self,
        system: System,
        perturbations: Sequence[Perturbation],
        seed: int,
        episodes: Sequence[int],
        victim: Any = None,
    ) -> None:
        self.physics, self._parameters = system.physics(perturbations), system.parameters
        self._levels = Levels(system, self.physics, seed, episodes)
        self._step = 0
        self._true: Rows = np.zeros(0)
        before: Counter[str] = Counter()
        self._all: list[Stage] = []
        for perturbation in system.outside(perturbations):
            name = perturbation.parameter
            self._all.append(_made(Site(system, perturbation, seed, episodes, victim, before[name])))
            before[name] += 1
        self._working = [stage for stage in self._all if not stage.idle]
        space, acting = system.action_space, any(stage.site.spec.target == "action" for stage in self._working)
        self._bounds = (space.low, space.high) if acting and isinstance(space, gym.spaces.Box) else None

    def start(self, batch: BatchedEnv, rows: slice) -> None:
        """Called once, before the episodes begin; they are these rows of the batch."""
        self._batch, self._rows = batch, rows
        if self._levels.varied:
            batch.perturb(range(rows.start, rows.stop), self._levels.at(0).tolist())
        for stage in self._working:
            stage.start(batch, rows)

    def observe(self, true: Rows) -> Rows:
        """What the policy sees of the true observations (N, O), once per step; the physics move to this step first."""
        if self._levels.moving:
            levels = self._levels.at(self._step)
            live = np.flatnonzero(self._batch.live[self._rows])
            self._batch.perturb([int(row) + self._rows.start for row in live], levels[live].tolist())
        self._step += 1
        self._true = seen = true
        for stage in self._working:
            seen = stage.observe(true, seen)
        return seen

    def act(self, actions: Rows) -> Rows:
        """What is executed of the policy's actions at what it was shown last."""
        for stage in self._working:
            actions = stage.act(self._true, actions)
        return actions if self._bounds is None else np.clip(actions, *self._bounds)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """What the numbers under this condition depend on: its physics, then each of its stages, in order."""
        specs = [self._parameters[p.parameter] for p in self.physics]
        physics = json.dumps([[asdict(p) for p in self.physics], [asdict(spec) for spec in specs]], sort_keys=True)
        return (physics, *(stage.fingerprint() for stage in self._all))


def _made(site: Site) -> Stage:
    """The stage of a perturbation, where it fits the environment."""
    name, system, space = site.perturbation.parameter, site.system, site.system.action_space
    kind = _STAGES.get(name.partition(".")[0])  # behind the dot is the part of the observation that it acts on
    if kind is None:
        raise EvaluationError(f"{name}: register it with register_stage, which says what acts")
    if site.spec.target == "action" and isinstance(space, gym.spaces.Discrete) and not kind.discrete:
        acting = {n for n, spec in system.parameters.items() if spec.target == "action"}
        fitting = ", ".join(n for n, other in _STAGES.items() if other.discrete and n in acting)
        raise EvaluationError(f"{name} needs continuous actions; with discrete ones use {fitting}")
    if kind.bounded and isinstance(space, gym.spaces.Box) and not np.isfinite([space.low, space.high]).all():
        raise EvaluationError(f"{name} needs a bounded action space")
    return kind(site)
