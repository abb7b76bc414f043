"""d3rlpy's replay-buffer file (HDF5, version 2.1): written and read without d3rlpy, and never trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from offline_robust.baselines.segments import COLUMNS, segments_of
from offline_robust.datasets.load import finish
from offline_robust.datasets.replay_buffers import VERSION, read_buffer_file
from offline_robust.datasets.spaces import OWN_PREFIX, Description, encode_description
from offline_robust.datasets.transitions import TransitionDataset
from offline_robust.datasets.writers import new_hdf5, new_target
from offline_robust.environment import EnvironmentSpec

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
    about = Description(dataset.observation_space, dataset.action_space, dataset.environment)
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


def read_d3rlpy(path: str | Path, *, env: str | EnvironmentSpec | None = None) -> TransitionDataset:
    """Reads a replay-buffer file of d3rlpy 2: `write_d3rlpy`'s, or what ``ReplayBuffer.dump`` wrote.

    In a file of d3rlpy's own every row is kept; an episode's last row has no true next observation there.
    `load_dataset` does the same where the file's ending is .h5 or .hdf5.

    Args:
        path: the file.
        env: the environment of the data; it gives the spaces, which d3rlpy's own files do not state.

    Raises:
        DatasetError: not such a file, damaged, too large, not finite, or observations that are not vectors.
    """
    return finish(read_buffer_file(Path(path)), env)
