"""Data sets that another library made and that lie in memory: which reader takes which."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from offline_robust.datasets.findings import refusal
from offline_robust.datasets.flat_files import read_arrays
from offline_robust.datasets.logged import Logged
from offline_robust.datasets.minari_files import read_minari
from offline_robust.datasets.replay_buffers import read_replay_buffer
from offline_robust.datasets.table_files import read_frame
from offline_robust.datasets.transitions import TransitionDataset

_TAKEN = (
    "a name, a path, a dictionary of arrays, a pandas DataFrame, a minari.MinariDataset and a d3rlpy ReplayBuffer are "
    "taken"
)


def read_object(source: Any) -> Logged:
    """Reads a dictionary of arrays, a pandas data frame, a Minari dataset or a d3rlpy replay buffer.

    Raises:
        DatasetError: it is none of these, or what it holds is wrong.
    """
    if isinstance(source, Mapping):
        return read_arrays(source)
    if _is(source, "pandas", "DataFrame"):
        return read_frame(source)
    if _is(source, "minari", "MinariDataset"):
        return _read_minari(source)
    if hasattr(source, "episodes") and hasattr(source, "dataset_info"):
        return read_replay_buffer(source)
    if isinstance(source, TransitionDataset):
        raise refusal("dataset", "is loaded already", "write it with write_dataset, or use it as it is")
    kind = f"{type(source).__module__}.{type(source).__qualname__}".removeprefix("builtins.")
    mend = f"pass its .to_pandas(); {_TAKEN}" if hasattr(source, "to_pandas") else _TAKEN
    raise refusal("dataset", f"is a {kind[:100]}, which is not read", mend)


def as_path(source: Any) -> Any:
    """The folder of a Minari dataset that was opened whole, so that it is read, and cached, as by its path; else what
    was given."""
    if _is(source, "minari", "MinariDataset") and len(source.episode_indices) == source.storage.total_episodes:
        return Path(source.storage.data_path)
    return source


def _is(source: Any, module: str, name: str) -> bool:
    """Whether it is of a class of a library, which then is loaded; it is not imported for this."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(source, kind)


def _read_minari(source: Any) -> Logged:
    """The episodes that a filtered or split Minari dataset points to, in the order of its folder."""
    logged = read_minari(Path(source.storage.data_path))
    wanted = {f"episode_{int(index)}" for index in source.episode_indices}
    keep = np.array([label in wanted for label in logged.labels])
    if not keep.any():
        raise refusal(logged.where, "none of the dataset's episodes has transitions", "filter less")
    assert logged.starts is not None
    lengths = np.diff(np.r_[logged.starts, len(logged)])
    rows = np.repeat(keep, lengths)
    for name in ("observations", "actions", "rewards", "terminated", "truncated", "next_observations", "next_valid"):
        values = getattr(logged, name)
        if values is not None:
            setattr(logged, name, values[rows])
    logged.starts = np.cumsum(lengths[keep]) - lengths[keep]
    logged.labels = [label for label in logged.labels if label in wanted]
    logged.seeds = [seed for seed, kept in zip(logged.seeds, keep, strict=False) if kept]  # of the first ones only
    logged.raw = {
        name: [part for part, kept in zip(parts, keep, strict=True) if kept] for name, parts in logged.raw.items()
    }
    logged.provenance["episodes"] = f"{int(keep.sum()):,} of {len(keep):,}, as the MinariDataset has them"
    return logged
