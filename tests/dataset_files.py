"""Small data files for the dataset tests, written with h5py and numpy only: not with the code under test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hypothesis import strategies as st

BOX3 = json.dumps(
    {"type": "Box", "dtype": "float32", "shape": [3], "low": [-float("inf")] * 3, "high": [float("inf")] * 3}
)
BOX1 = json.dumps({"type": "Box", "dtype": "float32", "shape": [1], "low": [-2.0], "high": [2.0]})
DISCRETE4 = json.dumps({"type": "Discrete", "dtype": "int64", "start": 0, "n": 4})


def episode(length: int, *, seed: int = 0, terminated: bool = True, truncated: bool = False, **changes: Any) -> dict:
    """One Minari episode of ``length`` transitions: T+1 observations of width 3, one action dimension."""
    rng = np.random.default_rng(seed)
    flags = np.zeros((2, length), bool)
    if length:
        flags[0, -1], flags[1, -1] = terminated, truncated
    content = {
        "observations": rng.normal(size=(length + 1, 3)).astype(np.float32),
        "actions": rng.uniform(-2, 2, size=(length, 1)).astype(np.float32),
        "rewards": rng.normal(size=length),
        "terminations": flags[0],
        "truncations": flags[1],
    }
    return content | changes


def minari_folder(folder: Path, episodes: list[dict], *, numbers: list[int] | None = None, **about: Any) -> Path:
    """Writes ``folder/data`` as Minari's HDF5 storage does: chunked arrays, groups by number."""
    data = folder / "data"
    data.mkdir(parents=True)
    with h5py.File(data / "main_data.hdf5", "w") as file:
        for number, content in zip(numbers or range(len(episodes)), episodes, strict=True):
            group = file.create_group(f"episode_{number}")
            group.attrs["id"] = number
            group.attrs["total_steps"] = len(content["rewards"])
            for key, values in content.items():
                if isinstance(values, dict):
                    for inner, array in values.items():
                        group.create_dataset(f"{key}/{inner}", data=array)
                else:
                    group.create_dataset(key, data=values, chunks=True, maxshape=(None, *np.shape(values)[1:]))
    content = {
        "total_episodes": len(episodes),
        "total_steps": sum(len(one["rewards"]) for one in episodes),
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": BOX3,
        "action_space": BOX1,
        "dataset_id": "tests/small-v0",
        "minari_version": "0.5.4",
        "dataset_size": 0.1,
    }
    (data / "metadata.json").write_text(json.dumps(content | about))
    return folder


def columns(rows: int = 12, *, ends: dict[int, str] | None = None, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """D4RL's arrays: one walk per episode, so that next observations chain inside episodes and nowhere else.

    ``ends`` maps a row to "terminal", "timeout", "both" or "unmarked".
    """
    rng = np.random.default_rng(seed)
    ends = ends or {}
    observations = rng.normal(size=(rows, 3)).astype(np.float32)
    after = np.roll(observations, -1, axis=0)
    last = [*ends, rows - 1]
    after[last] = rng.normal(size=(len(last), 3)) + 100.0
    content = {
        "observations": observations,
        "actions": rng.uniform(-1, 1, size=(rows, 1)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": np.array([ends.get(row) in ("terminal", "both") for row in range(rows)]),
        "timeouts": np.array([ends.get(row) in ("timeout", "both") for row in range(rows)]),
        "next_observations": after,
    }
    content |= changes
    return {key: values for key, values in content.items() if values is not None}


def d4rl_file(path: Path, content: dict[str, Any]) -> Path:
    """Writes D4RL's layout, compressed as D4RL's files are, with its metadata beside the arrays."""
    with h5py.File(path, "w") as file:
        for key, values in content.items():
            file.create_dataset(key, data=values, compression="gzip" if np.ndim(values) else None)
        file["metadata/algorithm"] = b"SAC"
        file["metadata/iteration"] = 3
        file["infos/qpos"] = np.zeros((len(content["observations"]), 2))
    return path


@st.composite
def short_datasets(draw: st.DrawFn) -> dict[str, Any]:
    """Arrays for `load_dataset`: a few short episodes, ended in every way, some without a next observation."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    seed = draw(st.integers(0, 2**32 - 1))
    discrete = draw(st.booleans())
    rng = np.random.default_rng(seed)
    rows = sum(lengths)
    last = np.cumsum(lengths) - 1
    # Few values: equal neighbours and both zeros must not confuse the search for boundaries.
    values = np.array([-1.5, -0.0, 0.0, 0.25, 3e38], np.float32)
    observations = rng.choice(values, size=(rows, 2))
    after = np.roll(observations, -1, axis=0)
    after[last] = rng.choice(values, size=(len(last), 2))
    valid = rng.random(rows) < draw(st.sampled_from([0.5, 1.0]))
    terminated, truncated = np.zeros(rows, bool), np.zeros(rows, bool)
    ends = rng.integers(0, 3, len(last))
    terminated[last], truncated[last] = ends != 1, ends != 0
    return {
        "observations": observations,
        "actions": rng.integers(0, 3, rows) if discrete else rng.normal(size=(rows, 2)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": terminated,
        "timeouts": truncated,
        "next_observations": after,
        "next_valid": valid,
        "episode": np.repeat(np.arange(len(lengths)), lengths),
        "env_id": draw(st.sampled_from([None, "LikeToy-v0", "some/Thing-v3"])),
        "env_kwargs": draw(st.sampled_from([{}, {"g": 9.81}])),
    }
