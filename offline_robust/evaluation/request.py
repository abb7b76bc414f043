"""What an evaluation is asked for: one object, checked once, that is passed on whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from offline_robust.environment import EnvironmentSpec
from offline_robust.envs import (
    Condition,
    Perturbation,
    Suite,
    System,
    load_suite,
    parse_perturb,
    suite_from_perturb,
    system,
)
from offline_robust.errors import EvaluationError

MAX_EPISODES = 1_000_000


@dataclass(frozen=True)
class EvaluationRequest:
    """Under which conditions, in which environment and on which episodes a policy is evaluated.

    Attributes:
        suite: a `Suite`, the name of a bundled one, or a YAML file; several names, separated by commas, are one suite
            that holds each condition once. "" is the nominal system alone, None what `or_else` says.
        perturb: texts such as ``length=0.5:1.5:11`` in place of a suite; several form a grid.
        stages: what stands between system and policy under every condition, behind that condition's own perturbations:
            texts such as ``observation_noise=0.1``, or perturbations. The nominal system stays, without them.
        episodes: per condition; None is what `or_else` says.
        seed: of start states and noise; None is what `or_else` says.
        env: an id or a description; None is the environment that the policy was made for.
        env_kwargs: keyword arguments of the environment, in place of those that it would have.
        ignore_wrappers: wrappers of the environment to leave out, by name.
        max_steps: cuts episodes; needed where the environment has no time limit.

    Raises:
        EvaluationError: a suite and perturbations at once, a text that cannot be read, or a number out of range.
    """

    suite: Suite | str | None = None
    perturb: str | Sequence[str] | None = ()
    stages: str | Perturbation | Sequence[str | Perturbation] | None = ()
    episodes: int | None = None
    seed: int | None = None
    env: str | EnvironmentSpec | None = None
    env_kwargs: Mapping[str, Any] | None = None
    ignore_wrappers: Sequence[str] = ()
    max_steps: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("seed", 0), ("max_steps", 1)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < least):
                raise EvaluationError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if self.episodes is not None and self.episodes > MAX_EPISODES:
            raise EvaluationError(f"episodes must be {MAX_EPISODES:,} at most, got {self.episodes}")
        for name, one in (("perturb", str), ("stages", (str, Perturbation)), ("ignore_wrappers", str)):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, one) else tuple(value or ()))
        if self.suite and self.perturb:
            raise EvaluationError("give a suite (--suite) or perturbations (--perturb), not both")

    def or_else(self, suite: str | None, episodes: int, seed: int) -> EvaluationRequest:
        """The same with these in place of what is not said."""
        return replace(
            self,
            suite=suite if self.suite is None and not self.perturb else self.suite,
            episodes=episodes if self.episodes is None else self.episodes,
            seed=seed if self.seed is None else self.seed,
        )

    def check(self, environment: EnvironmentSpec | None = None) -> None:
        """Reads what is asked for before anything long starts, and fits it to an environment where one is given.

        Raises:
            EvaluationError: there is no such suite or environment, a perturbation cannot be read, or they do not fit.
        """
        suites, _ = self._suites(), self._stages()
        if environment is not None:
            of = system(environment)
            for suite in suites:
                suite.for_system(of)

    def conditions(self, of: System) -> tuple[Suite, tuple[Condition, ...]]:
        """The suite that is asked for, and its conditions made ready for one environment.

        Raises:
            EvaluationError: see `check`, or a stage acts on the physics.
        """
        suite, stages = self._suite(of), self._stages()
        conditions = suite.for_system(of)
        if stages:
            for physical in of.physics([of.ready(stage) for stage in stages]):
                raise EvaluationError(f"{physical.parameter} acts on the physics: it is perturbed, and is no stage")
            behind = [Condition((*condition.perturbations, *stages)) for condition in conditions]
            suite = Suite.of(suite.name, behind, source=suite.source, inert=suite.inert)
            conditions = suite.for_system(of)
        return suite, conditions

    def _suite(self, of: System) -> Suite:
        suites = self._suites()
        if not suites:
            return Suite.of("nominal", [Condition((), nominal=True)])
        if len(suites) == 1:
            return suites[0]
        conditions = {condition.label: condition for suite in suites for condition in suite.for_system(of)}
        sources = "; ".join(dict.fromkeys(suite.source for suite in suites if suite.source))
        together = ", ".join(suite.name for suite in suites)
        return Suite.of(together, conditions.values(), source=sources, inert=any(suite.inert for suite in suites))

    def _suites(self) -> list[Suite]:
        if self.perturb:
            return [suite_from_perturb(self.perturb)]
        return [self.suite] if isinstance(self.suite, Suite) else _load(str(self.suite or ""))

    def _stages(self) -> tuple[Perturbation, ...]:
        stated: Any = self.stages  # a tuple by now
        return tuple(_one_level(stage) if isinstance(stage, str) else stage for stage in stated)


def suites_digest(names: str | None) -> str:
    """A hash of what the named suites hold, "" where none is named: a file may change under its name."""
    return hashlib.sha256(repr(_load(names)).encode()).hexdigest() if names else ""


def _load(names: str) -> list[Suite]:
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if names and not chosen:
        raise EvaluationError(f"suite {names[:80]!r} names none: offline-robust suites lists them")
    return [load_suite(name) for name in chosen]


def _one_level(text: str) -> Perturbation:
    axis = parse_perturb(text)
    if len(axis.levels) != 1:
        raise EvaluationError(f"{text[:80]!r}: a stage has one level, as in {axis.parameter}=0.1")
    return axis.perturbations()[0][0]
