"""Reader of d3rlpy's replay buffers, in memory or as its file (HDF5, version 2.1); d3rlpy itself is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from offline_robust.datasets.findings import refusal
from offline_robust.datasets.hdf5 import Budget, is_group, links, open_hdf5, open_object, read_array
from offline_robust.datasets.logged import (
    Array,
    Logged,
    action_rows,
    column,
    flags,
    floats,
    vector_rows,
)
from offline_robust.datasets.spaces import OWN_PREFIX, Description, decode_description

VERSION = "2.1"
"""Of d3rlpy's file format, as its release 2.8.1 writes it."""

FLAGS = ("terminated", "last_valid", "truncated", "continues")
_COUNT = "num_episodes"
_OWN = OWN_PREFIX.rstrip("/")


@dataclass(frozen=True, eq=False)
class Stretch:
    """T rows in which each row's next observation is the next row's."""

    observations: Array
    """(T, O)."""
    actions: Array
    """(T, A) floating, or (T, 1) whole numbers counted from 0."""
    rewards: Array
    """(T, 1)."""
    terminated: bool
    """Whether the last row is a true end."""
    last_observation: Array
    """(O,): the observation after the last row; zeros where there is none."""
    last_valid: bool
    """Whether `last_observation` is a true one."""
    truncated: bool
    """Whether the last row carries the flag of a cut."""
    continues: bool
    """Whether the next stretch belongs to the same episode."""


def read_replay_buffer(buffer: Any) -> Logged:
    """Takes the episodes of a d3rlpy replay buffer, `MDPDataset` or the like.

    Every row is kept; an episode's last one has no true next observation (unless the episode holds T + 1
    observations) and is terminated or, where it is not, truncated. The number of discrete actions that the buffer
    says is a lower bound: d3rlpy counts what was logged.

    Args:
        buffer: anything with ``episodes`` and ``dataset_info``.

    Raises:
        DatasetError: observations that are not vectors, arrays that do not fit each other, or no episode.
    """
    where, info = "d3rlpy replay buffer", buffer.dataset_info
    discrete = str(info.action_space).endswith("DISCRETE")
    stretches = [_of_episode(f"{where}: episode {k}", one, discrete) for k, one in enumerate(buffer.episodes)]
    if not stretches:
        raise refusal(where, "holds no episode", "append some")
    logged = join(where, stretches, Description())
    logged.least_actions = int(info.action_size) if discrete else 0
    return logged


def is_buffer_file(keys: Sequence[str]) -> bool:
    """Whether an HDF5 file with these keys is a replay buffer of d3rlpy 2."""
    return _COUNT in keys and "version" in keys


def read_buffer_file(path: Path) -> Logged:
    """Reads what ``ReplayBuffer.dump`` of d3rlpy 2 or `offline_robust.baselines.write_d3rlpy` wrote.

    Raises:
        DatasetError: not such a file, damaged, too large, or observations that are not vectors.
    """
    where = str(path)
    with open_hdf5(path) as root:
        names = set(links(root))
        episodes = _episodes(where, root, names)
        budget = Budget(where)
        about = _description(where, root, names, budget)
        stretches = [_of_file(where, root, names, number, budget) for number in range(episodes)]
    return join(where, stretches, about)


def join(where: str, stretches: list[Stretch], about: Description) -> Logged:
    """The rows of all stretches, in order; discrete actions count from 0 still.

    The list is empty afterwards: joined and in single precision, the rows would be there four times.

    Raises:
        DatasetError: they differ in width or in the type of their actions.
    """
    shapes = {(part.observations.shape[1], part.actions.shape[1], part.actions.dtype.kind) for part in stretches}
    if len(shapes) > 1:
        mend = "make a buffer of each kind"
        raise refusal(where, "has episodes whose observations or actions differ in width or type", mend)
    lengths = [len(part.actions) for part in stretches]
    observations = np.concatenate([part.observations for part in stretches])
    after = np.concatenate([observations[1:], observations[:1]])
    valid = np.ones(len(observations), bool)
    terminated, truncated = np.zeros(len(observations), bool), np.zeros(len(observations), bool)
    for part, row in zip(stretches, np.cumsum(lengths) - 1, strict=True):
        valid[row] = part.last_valid
        after[row] = part.last_observation if part.last_valid else observations[row]
        terminated[row], truncated[row] = part.terminated, part.truncated
    actions = np.concatenate([part.actions for part in stretches])
    rewards = np.concatenate([part.rewards for part in stretches])[:, 0]
    begins = np.array([True] + [not part.continues for part in stretches[:-1]])
    stretches.clear()
    logged = Logged(
        where=where,
        observations=floats(observations),
        actions=floats(actions) if actions.dtype.kind == "f" else action_rows(f"{where}: actions", actions),
        rewards=floats(rewards),
        terminated=terminated,
        truncated=truncated,
        next_observations=floats(after),
        next_valid=valid,
        starts=(np.cumsum(lengths) - lengths)[begins],
        actions_from_zero=True,
        provenance={"source": where, "format": "d3rlpy"},
    )
    logged.labels = [f"episode_{number}" for number in range(int(begins.sum()))]
    raw = {"observations": observations, "actions": actions, "rewards": rewards, "next_observations": after}
    for name, values in raw.items():
        logged.keep_raw(name, [values])
    logged.describe(about)
    return logged


def _of_episode(where: str, episode: Any, discrete: bool) -> Stretch:
    """An episode of d3rlpy's; `Stretch`es, which our own buffers hold, are what they are."""
    if isinstance(episode, Stretch):
        return episode
    if not isinstance(episode.observations, np.ndarray):
        raise refusal(where, "has a tuple of observations", "only vectors are supported: (T, O) arrays")
    observations = vector_rows(f"{where}: observations", episode.observations)
    actions = np.asarray(episode.actions)
    rows = len(actions)
    known = len(observations) == rows + 1
    if not rows or (not known and len(observations) != rows):
        what = f"has {len(observations):,} observations for {rows:,} actions"
        raise refusal(where, what, "an episode has as many (and may have one more observation)")
    actions = np.asarray(action_rows(f"{where}: actions", actions)).reshape(rows, -1)
    rewards = column(f"{where}: rewards", np.asarray(episode.rewards))
    if len(rewards) != rows:
        raise refusal(where, f"has {len(rewards):,} rewards for {rows:,} actions", "an episode has as many of each")
    return Stretch(
        observations=observations[:rows],
        actions=actions.astype(np.int64) if discrete else actions,
        rewards=rewards[:, None],
        terminated=bool(episode.terminated),
        last_observation=observations[rows] if known else np.zeros_like(observations[0]),
        last_valid=known,
        truncated=not episode.terminated,
        continues=False,
    )


def _episodes(where: str, root: Any, names: set[str]) -> int:
    """The number of episodes, which the file must have room for."""
    if _COUNT not in names:
        old = "observations" in names
        mend = "it has flat arrays: load_dataset reads it" if old else "write it with ReplayBuffer.dump of d3rlpy 2"
        raise refusal(where, f"is not a replay buffer of d3rlpy 2 (the key '{_COUNT}' is missing)", mend)
    item = open_object(where, root, "version")
    text = h5py.Dataset(item) if isinstance(item, h5py.h5d.DatasetID) and item.shape == () else None
    version = text.asstr()[()] if text is not None and h5py.check_string_dtype(text.dtype) is not None else None
    if version != VERSION:
        raise refusal(where, f"has format version {str(version)[:20]!r}", f"version {VERSION} is read: dump it again")
    count = read_array(where, root, _COUNT, Budget(where))
    if count.shape != () or count.dtype.kind not in "iu" or not 1 <= int(count) <= len(names):
        raise refusal(f"{where}: {_COUNT}", "is not the number of episodes in the file", "dump it again")
    return int(count)


def _of_file(where: str, root: Any, names: set[str], number: int, budget: Budget) -> Stretch:
    def at(name: str) -> str:
        return f"{where}: {name}_{number}"

    def read(name: str) -> Any:
        return read_array(where, root, f"{name}_{number}", budget)

    if f"observations_{number}" not in names and f"observations_{number}_0" in names:
        raise refusal(at("observations"), "is a tuple of observations", "only vectors are supported")
    observations = vector_rows(at("observations"), read("observations"))
    actions = action_rows(at("actions"), read("actions"))
    actions = actions[:, None] if actions.ndim == 1 else actions
    rewards = column(at("rewards"), read("rewards"))
    rows = len(actions)
    extra = len(observations) - rows
    if not rows or len(rewards) != rows or extra not in (0, 1):
        raise refusal(
            at("observations"),
            f"has {len(observations):,} rows beside {rows:,} actions and {len(rewards):,} rewards",
            "an episode has as many of each (and may have one more observation)",
        )
    own = f"last_observation_{number}" in names
    marks = {name: _flag(at(name), read(name)) for name in (FLAGS if own else FLAGS[:1])}
    last = observations[rows - 1 + extra]
    if own:
        last = vector_rows(at("last_observation"), read("last_observation")[None])[0]
    else:
        marks |= {"last_valid": extra == 1, "truncated": not marks["terminated"], "continues": False}
    if last.shape != observations.shape[1:]:
        raise refusal(at("last_observation"), f"has width {len(last)}, not {observations.shape[1]}", "dump it again")
    return Stretch(observations[:rows], actions, rewards[:, None], last_observation=last, **marks)


def _flag(where: str, value: Any) -> bool:
    if value.shape != ():
        raise refusal(where, f"has shape {value.shape}", "one flag an episode is needed")
    return bool(flags(where, value[None])[0])


def _description(where: str, root: Any, names: set[str], budget: Budget) -> Description:
    if _OWN not in names:
        return Description()
    group = open_object(where, root, _OWN)
    if not is_group(group) or "description" not in links(group):
        raise refusal(f"{where}: {_OWN}", "is not a group with a description", "remove it")
    return decode_description(where, read_array(f"{where}: {_OWN}", group, "description", budget).tobytes())
