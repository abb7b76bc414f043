"""From logged data to the dataset type: where episodes end, and which next observations are true ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch

from offline_robust.datasets.logged import Array, Logged, floats
from offline_robust.datasets.spaces import infer_action_space, infer_observation_space
from offline_robust.datasets.transitions import TransitionDataset


@dataclass(frozen=True)
class Layout:
    """Which rows end an episode, and what follows each row."""

    end: Array
    """(N,) bool: the last row of an episode."""
    breaks: Array
    """(N,) bool: the logged next observation is not the next row's observation."""

    @property
    def starts(self) -> Array:
        """(E,) int64: the first row of every episode."""
        return np.concatenate([[0], np.flatnonzero(self.end[:-1]) + 1])


def layout(logged: Logged) -> Layout:
    """Finds the episode boundaries.

    Where the source has episodes (Minari's groups), they are taken as they are. In a flat file a row ends an episode
    when it is terminal, when it is marked as cut by time, when its logged next observation is not the next row's
    observation (time limits are "not always marked", D4RL issue 162), or when the file ends.
    """
    rows = len(logged)
    breaks = np.zeros(rows, bool)
    if logged.next_observations is not None:
        breaks[:-1] = (logged.next_observations[:-1] != logged.observations[1:]).any(axis=1)
        if logged.next_valid is not None:
            # A filler says nothing about where the episode went on.
            breaks &= logged.next_valid
    if logged.starts is not None:
        end = np.zeros(rows, bool)
        end[logged.starts[1:] - 1] = True
    else:
        end = logged.terminated | logged.truncated | breaks
    end[-1] = True
    return Layout(end, breaks)


def infer_spaces(logged: Logged) -> None:
    """Fills in spaces that neither the source nor an environment states, and says so in the provenance."""
    inferred = []
    if logged.observation_space is None:
        logged.observation_space = infer_observation_space(logged.observations.shape[1])
        inferred.append("observation_space (unbounded)")
    if logged.action_space is None:
        logged.action_space = infer_action_space(logged.name("actions"), logged.actions, logged.least_actions)
        inferred.append("action_space (the range of the data)")
        logged.action_space_inferred = True
    if inferred:
        logged.provenance["inferred"] = inferred
    if logged.actions_from_zero and isinstance(logged.action_space, gym.spaces.Discrete):
        logged.actions, logged.actions_from_zero = fit_actions(logged) + int(logged.action_space.start), False


def fit_actions(logged: Logged) -> Array:
    """Actions in the type that the action space needs; the space decides where it is known.

    Whole-number actions of a one-dimensional Box become float32; whole floating numbers of a Discrete space become
    int64. What does not fit is left as it is, for the checks to report.
    """
    actions = logged.actions
    if isinstance(logged.action_space, gym.spaces.Discrete):
        if actions.dtype.kind == "f" and actions.shape[1] == 1:
            whole = np.isfinite(actions).all() and (actions == np.rint(actions)).all()
            return actions[:, 0].astype(np.int64) if whole else actions
        return actions
    return floats(actions[:, None]) if actions.dtype.kind == "i" else actions


def assemble(logged: Logged) -> TransitionDataset:
    """Builds the dataset; `checks.findings` must have found no error.

    The last row of every episode is terminated or truncated: one that carries no flag was cut, by the end of the
    file or of the recording. Rows without a true next observation keep their own observation in its place and have
    ``next_valid`` false.
    """
    ends = layout(logged)
    observations = logged.observations
    if logged.next_observations is not None:
        after = logged.next_observations
        valid = np.ones(len(logged), bool) if logged.next_valid is None else logged.next_valid
    else:
        after = np.roll(observations, -1, axis=0)
        valid = ~ends.end
        if logged.next_valid is not None:
            valid = valid & logged.next_valid
    if after[~valid].tobytes() != observations[~valid].tobytes():  # else no copy is needed
        after = after if logged.next_observations is None else after.copy()
        after[~valid] = observations[~valid]
    episode = np.zeros(len(logged), np.int64)
    episode[ends.starts[1:]] = 1
    assert logged.observation_space is not None
    assert logged.action_space is not None
    return TransitionDataset(
        observations=torch.from_numpy(np.ascontiguousarray(observations)),
        actions=torch.from_numpy(np.ascontiguousarray(fit_actions(logged))),
        rewards=torch.from_numpy(np.ascontiguousarray(logged.rewards)),
        next_observations=torch.from_numpy(np.ascontiguousarray(after)),
        terminated=torch.from_numpy(logged.terminated.copy()),
        truncated=torch.from_numpy(logged.truncated | (ends.end & ~logged.terminated)),
        next_valid=torch.from_numpy(valid.copy()),
        episode=torch.from_numpy(np.cumsum(episode)),
        observation_space=logged.observation_space,
        action_space=logged.action_space,
        environment=logged.environment,
        provenance=logged.provenance,
    )


def exact_columns(dataset: TransitionDataset, raw: Mapping[str, Sequence[Array]]) -> dict[str, Array]:
    """The columns of a dataset in the source's own numbers, where float32 does not hold them; for the writers.

    Args:
        dataset: what `assemble` made of a source.
        raw: the source's `Logged.raw`, of the same rows.
    """
    exact = {name: np.concatenate(raw[name]) for name in ("actions", "rewards") if name in raw}
    parts, after = raw.get("observations"), raw.get("next_observations")
    if parts is not None and sum(map(len, parts)) > len(dataset):  # T+1 observations an episode
        exact["observations"] = np.concatenate([part[:-1] for part in parts])
        exact["next_observations"] = np.concatenate([part[1:] for part in parts])
    elif parts is not None or after is not None:
        before, follower = dataset.observations.cpu().numpy(), dataset.next_observations.cpu().numpy()
        exact["observations"] = before if parts is None else np.concatenate(parts).reshape(before.shape)
        if after is not None:
            exact["next_observations"] = np.concatenate(after).reshape(before.shape)
        else:
            # Where the rows chain in float32, what follows is the next row, in its own numbers.
            chained = np.r_[(follower[:-1] == before[1:]).all(axis=1), False]
            own = np.roll(exact["observations"], -1, axis=0)
            exact["next_observations"] = np.where(chained[:, None], own, follower)
    shaped = {name: values.reshape(getattr(dataset, name).shape) for name, values in exact.items()}
    return {name: values for name, values in shaped.items() if (values != getattr(dataset, name).cpu().numpy()).any()}
