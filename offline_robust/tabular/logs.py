"""Logs of finite problems: transitions by the numbers of their states, and the model that they count up to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from offline_robust.datasets import TransitionDataset
from offline_robust.errors import ConfigError, DatasetError
from offline_robust.tabular.mdp import FiniteMDP, FloatArray, IntArray, finite_mdp


@dataclass(frozen=True, eq=False)
class TransitionLog:
    """N logged transitions of a finite problem; build one with `as_log`."""

    transitions: IntArray
    """(N, 3) state, action, next state."""
    rewards: FloatArray
    """(N,)."""
    states: int
    """S, with one more state for the end where some rows terminate: the last."""
    actions: int
    """A."""
    terminal: NDArray[np.bool_]
    """(S,) true for the end."""
    start: FloatArray
    """(S,) law of the first states of the logged episodes."""


class CountedModel(NamedTuple):
    """The problem that a log counts up to."""

    mdp: FiniteMDP
    counts: IntArray
    """(S, A) how often each pair was tried."""


Log = TransitionDataset | TransitionLog | tuple[ArrayLike, ...]
"""A dataset; or arrays (states, actions, rewards, next states) and perhaps terminated, of one length."""


def as_log(data: Log, *, states: int | None = None, actions: int | None = None) -> TransitionLog:
    """Transitions by number.

    Args:
        data: a dataset whose observations are one-hot, as Gymnasium flattens Discrete ones (rows without a next
            observation are left out); or arrays: states, actions, rewards, next states, and optionally terminated.
        states: S, without the end; by default as many as a dataset's observations are wide, or as arrays name.
        actions: A; by default the dataset's, or as many as arrays name.

    Raises:
        DatasetError: observations that are not one-hot, continuous actions, numbers out of range, arrays of
            different lengths.
    """
    if isinstance(data, TransitionLog):
        return data
    if isinstance(data, TransitionDataset):
        columns, first, states, actions = _from_dataset(data, states, actions)
    else:
        columns = _from_arrays(data)
        first = columns[0][:1]
    s, a, rewards, after, ended = columns
    if not len(s):
        raise DatasetError("the log has no transition with a next state")
    states = _count("states", np.append(s, after[~ended]), states)
    actions = _count("actions", a, actions)
    ends = bool(ended.any())
    # What follows a true end is never looked at: one state of its own stands for it.
    after = np.where(ended, states, after)
    total = states + ends
    start = np.bincount(first, minlength=total) / len(first)
    terminal = np.arange(total) >= states
    return TransitionLog(np.stack([s, a, after], 1), rewards, total, actions, terminal, start)


def count_model(
    data: Log,
    discount: float,
    *,
    states: int | None = None,
    actions: int | None = None,
    entering: bool = False,
    untried_reward: float | None = None,
) -> CountedModel:
    """The empirical model: relative frequencies of next states, and mean rewards.

    Args:
        data: see `as_log`.
        discount: of the problem.
        states: see `as_log`.
        actions: see `as_log`.
        entering: whether rewards are kept for each successor, inside the worst case, not averaged for each pair.
        untried_reward: a pair that was never tried stays where it is and pays this for ever: the least reward there
            is makes it the worst place. None: refuse such logs.

    Raises:
        DatasetError: see `as_log`; or pairs that were never tried.

    Source: the model of Panaganti and Kalathil (2022), from a log instead of a simulator.
    """
    log = as_log(data, states=states, actions=actions)
    pair = log.transitions[:, 0] * log.actions + log.transitions[:, 1]
    pairs = log.states * log.actions
    counts = np.bincount(pair, minlength=pairs)
    live = np.repeat(~log.terminal, log.actions)
    untried = live & (counts == 0)
    if untried.any() and untried_reward is None:
        s, a = divmod(int(np.flatnonzero(untried)[0]), log.actions)
        raise DatasetError(
            f"{untried.sum():,} of {live.sum():,} pairs were never tried, the first is state {s}, action {a}: "
            "log more, or give untried_reward, the least reward there is"
        )
    key, place, number = np.unique(pair * log.states + log.transitions[:, 2], return_inverse=True, return_counts=True)
    owner, after = np.divmod(key, log.states)
    first = np.searchsorted(owner, np.arange(pairs))
    slot = np.arange(len(key)) - first[owner]
    width = int(slot.max()) + 1
    # A pair without rows leads to itself for certain.
    successors = np.repeat(np.repeat(np.arange(log.states), log.actions)[:, None], width, 1)
    law, paid = np.zeros((pairs, width)), np.zeros((pairs, width))
    law[counts == 0, 0] = 1.0
    paid[untried] = 0.0 if untried_reward is None else untried_reward
    successors[owner, slot] = after
    law[owner, slot] = number / counts[owner]
    paid[owner, slot] = np.bincount(place, log.rewards) / number
    shape = (log.states, log.actions, width)
    rewards = paid.reshape(shape) if entering else (law * paid).sum(-1).reshape(shape[:2])
    mdp = finite_mdp(
        (successors.reshape(shape), law.reshape(shape)), rewards, discount, terminal=log.terminal, start=log.start
    )
    return CountedModel(mdp, counts.reshape(shape[:2]))


_Columns = tuple[IntArray, IntArray, FloatArray, IntArray, NDArray[np.bool_]]


def _from_dataset(
    data: TransitionDataset, states: int | None, actions: int | None
) -> tuple[_Columns, IntArray, int, int]:
    if not isinstance(data.action_space, gym.spaces.Discrete):
        raise DatasetError("actions are continuous: tabular methods need a finite number of them")
    keep = data.next_valid | data.terminated
    hot = (data.observations == 1.0).sum(1)
    whole = (hot == 1) & ((data.observations == 0.0).sum(1) == data.observation_dim - 1)
    if not bool(whole.all()):
        row = int((~whole).nonzero()[0])
        raise DatasetError(f"row {row:,}: the observation is not one-hot, so it is no state of a finite problem")
    number = data.observations.argmax(1).numpy(force=True)
    following = data.next_observations.argmax(1).numpy(force=True)
    kept = keep.numpy(force=True)
    columns = (
        number[kept],
        data.actions.numpy(force=True).astype(np.int64)[kept],
        data.rewards.numpy(force=True).astype(np.float64)[kept],
        following[kept],
        data.terminated.numpy(force=True)[kept],
    )
    begins = np.flatnonzero(np.diff(data.episode.numpy(force=True), prepend=-1))
    width = data.observation_dim if states is None else states
    return columns, number[begins], width, data.action_dim if actions is None else actions


def _from_arrays(data: Any) -> _Columns:
    if not isinstance(data, tuple) or len(data) not in (4, 5):
        raise DatasetError("a log is a dataset, or (states, actions, rewards, next states[, terminated])")
    s, a, r, after = (np.asarray(column) for column in data[:4])
    ended = np.asarray(data[4], bool) if len(data) == 5 else np.zeros(s.shape, bool)
    for name, column in (("states", s), ("actions", a), ("rewards", r), ("next states", after), ("terminated", ended)):
        if column.shape != (len(s),):
            raise DatasetError(f"{name}: shape {column.shape} where states has {s.shape}; all are (N,)")
        if name not in ("rewards", "terminated") and column.dtype.kind not in "iu":
            raise DatasetError(f"{name}: whole numbers, got {column.dtype}")
    rewards = r.astype(np.float64)
    if not np.isfinite(rewards).all():
        raise DatasetError(f"rewards: row {int(np.flatnonzero(~np.isfinite(rewards))[0]):,} is not finite")
    return s.astype(np.int64), a.astype(np.int64), rewards, after.astype(np.int64), ended


def _count(name: str, numbers: IntArray, given: int | None) -> int:
    """How many there are; refuses numbers out of range."""
    if given is not None and given < 1:
        raise ConfigError(f"{name}: at least 1, got {given}")
    most = int(numbers.max()) + 1 if given is None else given
    if numbers.min() < 0 or numbers.max() >= most:
        raise DatasetError(f"{name}: 0 to {most - 1}, got {numbers.min()} to {numbers.max()}")
    return most
