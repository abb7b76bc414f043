"""The environment that data came from: what the data say, what the caller says, and what it says of itself."""

from __future__ import annotations

import numpy as np

from offline_robust.datasets.findings import Finding, refusal
from offline_robust.datasets.logged import Logged
from offline_robust.datasets.spaces import spaces_of
from offline_robust.environment import EnvironmentChoice, EnvironmentSpec, as_choice
from offline_robust.environment.making import keyword_for
from offline_robust.environment.spec import with_recorded
from offline_robust.errors import DatasetError, EvaluationError


def use_environment(logged: Logged, env: str | EnvironmentSpec | EnvironmentChoice | None) -> None:
    """Joins what the data and the caller say of the environment, and lets it supply what the source does not.

    It supplies spaces, and the time limit that an early D4RL file lacks: such files mark no timeouts. Where neither
    timeouts nor next observations are there, the environment's limit shows the cuts, as D4RL's own reader did: every
    ``max_episode_steps`` rows after an episode's start.

    Args:
        logged: changed in place.
        env: what the caller says; an id alone names the environment of the data, whose keyword arguments, limit and
            wrappers then stay the data's.

    Raises:
        DatasetError: the two disagree, or the environment that the caller names cannot be made.
    """
    choice = as_choice(env)
    try:
        spec = choice.on(logged.environment)
    except EvaluationError as error:
        raise DatasetError(str(error)) from None
    if spec is None:
        return
    named = choice.id is not None
    spec = with_recorded(spec, logged.recorded)
    logged.environment = spec
    if logged.observation_space is not None and logged.action_space is not None and logged.has_truncated and not named:
        return
    try:
        whole, observation_space, action_space, limit = spaces_of(spec)
    except DatasetError:
        if named and (logged.observation_space is None or logged.action_space is None or not logged.has_truncated):
            raise
        return  # the data say enough; who evaluates will hear of it
    if not logged.recorded:
        # Flat files have no place for the parts of an observation: they are the environment's.
        seen = (observation_space, action_space)
        logged.environment = spec if (whole.observation_space, whole.action_space) == seen else whole
    if logged.observation_space is None and (width := logged.observations.shape[1]) != observation_space.shape[0]:
        # Another width than the environment's: the checks say so; this says what may mend it.
        words = switch_words(spec, width)
        what = f"has width {width} where the observations of {spec} have {observation_space.shape[0]}"
        if words:
            raise refusal(logged.name("observations"), what, words)
    logged.observation_space = logged.observation_space or observation_space
    logged.action_space = logged.action_space if logged.action_space is not None else action_space
    if logged.has_truncated or logged.next_observations is not None or logged.starts is not None or limit is None:
        return
    rows = np.arange(len(logged))
    begins = np.r_[0, np.flatnonzero(logged.terminated[:-1]) + 1]
    step = rows - begins[np.searchsorted(begins, rows, side="right") - 1]
    logged.truncated = (step % limit == limit - 1) & ~logged.terminated
    logged.has_truncated = True
    logged.provenance["timeouts"] = f"inferred from the time limit of {spec.id} ({limit} steps)"
    what = f"marks no timeouts; cut every {limit} steps, the time limit of {spec.id}"
    logged.problems.append(Finding("warning", logged.where, what, "compare the episode lengths with the source's"))


def switch_words(spec: EnvironmentSpec, width: int) -> str:
    """Which keyword argument gives an environment's observations the width of the data; "" where none does."""
    switch = keyword_for(spec, width)
    name, _, value = switch.partition("=")
    return f"{spec.id} with {switch} has {width}: say so (--set env.kwargs.{name}={value.lower()})" if switch else ""
