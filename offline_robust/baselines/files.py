"""d3rlpy's replay-buffer file (HDF5, version 2.1): written and read without d3rlpy, and never trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from offline_robust.baselines.segments import COLUMNS, FLAGS, Segment, join, segments_of
from offline_robust.datasets.hdf5 import Budget, is_group, links, open_hdf5, open_object, read_array
from offline_robust.datasets.logged import actions as read_actions
from offline_robust.datasets.logged import column, flags, vectors
from offline_robust.datasets.problems import refusal
from offline_robust.datasets.spaces import OWN_PREFIX, Description, decode_description, encode_description, spaces_of
from offline_robust.datasets.transitions import TransitionDataset
from offline_robust.datasets.writers import new_hdf5, new_target

VERSION = "2.1"
"""Of d3rlpy's file format, as its release 2.8.1 writes it."""

_OWN = OWN_PREFIX.rstrip("/")


def write_d3rlpy(dataset: TransitionDataset, path: str | Path, *, overwrite: bool = False) -> Path:
    """Writes a file that ``d3rlpy.dataset.ReplayBuffer.load`` reads, and that `read_d3rlpy` reads back exactly.

    An episode with a gap becomes several, since d3rlpy would take the row after the gap for what followed. Read by
    d3rlpy alone, cut episodes lose their last transition (it has no place for the observation after it); with
    ``episode_cls=Segment, transition_picker=TrueNextPicker()`` they keep it.

    Raises:
        DatasetError: the target exists.
    """
    target = Path(path)
    about = Description(dataset.observation_space, dataset.action_space, dataset.env_id, dataset.env_kwargs)
    with new_target(target, overwrite) as aside, new_hdf5(aside) as file:
        count = 0
        for segment in segments_of(dataset):
            for name, values in segment.serialize().items():
                file.create_dataset(f"{name}_{count}", data=values, track_times=False)
            count += 1
        file.create_dataset("columns", data=list(COLUMNS), track_times=False)
        file.create_dataset("num_episodes", data=count, track_times=False)
        file.create_dataset("version", data=VERSION, track_times=False)
        text = np.frombuffer(encode_description(about).encode(), np.uint8)
        file.create_dataset(f"{_OWN}/description", data=text, track_times=False)
    return target


def read_d3rlpy(path: str | Path, *, env_id: str | None = None) -> TransitionDataset:
    """Reads a replay-buffer file of d3rlpy 2: `write_d3rlpy`'s, or what ``ReplayBuffer.dump`` wrote.

    In a file of d3rlpy's own every row is kept; an episode's last row has no true next observation there.

    Args:
        path: the file.
        env_id: the environment of the data; it gives the spaces, which d3rlpy's own files do not state.

    Raises:
        DatasetError: not such a file, damaged, too large, not finite, or observations that are not vectors.
    """
    where = str(path)
    with open_hdf5(Path(path)) as root:
        names = set(links(root))
        episodes = _episodes(where, root, names)
        budget = Budget(where)
        about = _description(where, root, names, budget)
        segments = [_segment(where, root, names, number, budget) for number in range(episodes)]
    observation_space, action_space = about.observation_space, about.action_space
    if env_id is not None:
        observation_space, action_space, _ = spaces_of(env_id, {})
    widths = {(part.observations.shape[1], part.actions.shape[1], part.actions.dtype.kind) for part in segments}
    if len(widths) > 1:
        raise refusal(where, "has episodes whose observations or actions differ in width or type", "dump them apart")
    return join(
        segments,
        observation_space=observation_space,
        action_space=action_space,
        env_id=env_id or about.env_id,
        env_kwargs={} if env_id else about.env_kwargs,
        provenance={"source": where, "format": "d3rlpy"},
    )


def _episodes(where: str, root: Any, names: set[str]) -> int:
    """The number of episodes, which the file must have room for."""
    if "num_episodes" not in names:
        old = "observations" in names
        mend = "it has flat arrays: load_dataset reads it" if old else "write it with ReplayBuffer.dump of d3rlpy 2"
        raise refusal(where, "is not a replay buffer of d3rlpy 2 (the key 'num_episodes' is missing)", mend)
    item = open_object(where, root, "version")
    text = h5py.Dataset(item) if isinstance(item, h5py.h5d.DatasetID) and item.shape == () else None
    version = text.asstr()[()] if text is not None and h5py.check_string_dtype(text.dtype) is not None else None
    if version != VERSION:
        raise refusal(where, f"has format version {str(version)[:20]!r}", f"version {VERSION} is read: dump it again")
    count = read_array(where, root, "num_episodes", Budget(where))
    if count.shape != () or count.dtype.kind not in "iu" or not 1 <= int(count) <= len(names):
        raise refusal(f"{where}: num_episodes", "is not the number of episodes in the file", "dump it again")
    return int(count)


def _segment(where: str, root: Any, names: set[str], number: int, budget: Budget) -> Segment:
    def at(name: str) -> str:
        return f"{where}: {name}_{number}"

    def read(name: str) -> Any:
        return read_array(where, root, f"{name}_{number}", budget)

    if f"observations_{number}" not in names and f"observations_{number}_0" in names:
        raise refusal(at("observations"), "is a tuple of observations", "only vectors are supported")
    observations = vectors(at("observations"), read("observations"))
    actions = read_actions(at("actions"), read("actions"))
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
    last = vectors(at("last_observation"), read("last_observation")[None])[0] if own else observations[rows - 1 + extra]
    if last.shape != observations.shape[1:]:
        raise refusal(at("last_observation"), f"has width {len(last)}, not {observations.shape[1]}", "dump it again")
    if not own:
        marks |= {"last_valid": extra == 1, "truncated": not marks["terminated"], "continues": False}
    return Segment(observations[:rows], actions, rewards[:, None], last_observation=last, **marks)


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
