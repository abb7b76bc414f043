"""An HDF5 array that was never written, or only in part, loads as h5py reads it; absurd sizes stay refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from dataset_files import columns, d4rl_file

from offline_robust.datasets import check, load_dataset
from offline_robust.datasets.hdf5 import MAX_UNSTORED
from offline_robust.errors import DatasetError

ROWS = 4000


def never(file: h5py.File) -> None:
    file.create_dataset("rewards", shape=(ROWS,), dtype="f8")


def never_with_a_fill_value(file: h5py.File) -> None:
    file.create_dataset("rewards", shape=(ROWS,), dtype="f4", fillvalue=-1.5)


def never_in_chunks(file: h5py.File) -> None:
    file.create_dataset("rewards", shape=(ROWS,), dtype="f4", chunks=(50,), fillvalue=2.0, compression="gzip")


def in_part(file: h5py.File) -> None:
    file.create_dataset("rewards", shape=(ROWS,), dtype="f8", chunks=(10,), fillvalue=0.25)[20:40] = 7.0


def grown_in_part(file: h5py.File) -> None:
    dataset = file.create_dataset("rewards", shape=(10,), dtype="f8", maxshape=(None,), chunks=(5,))
    dataset[:] = 3.0
    dataset.resize((ROWS,))


def denser_than_deflate(file: h5py.File) -> None:
    # Constant values behind this filter take no bytes but a header a chunk.
    whole = np.full(ROWS, 9, np.int64)
    file.create_dataset("rewards", data=whole, chunks=(ROWS,), scaleoffset=0)


CASES: dict[str, Callable[[h5py.File], None]] = {
    function.__name__: function
    for function in (never, never_with_a_fill_value, never_in_chunks, in_part, grown_in_part, denser_than_deflate)
}


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_that_h5py_reads(name: str, tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "x.hdf5", columns(ROWS, rewards=None))
    with h5py.File(path, "a") as file:
        CASES[name](file)
    with h5py.File(path) as file:
        wanted = file["rewards"][()]
        assert file["rewards"].id.get_storage_size() * 50 < wanted.nbytes
    np.testing.assert_array_equal(load_dataset(path).rewards, wanted.astype(np.float32))


def test_flags_that_nobody_wrote_are_false(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "x.hdf5", columns(ROWS, terminals=None, timeouts=None))
    with h5py.File(path, "a") as file:
        file.create_dataset("terminals", shape=(ROWS,), dtype=bool)
        file.create_dataset("timeouts", shape=(ROWS,), dtype="u1")
    dataset = load_dataset(path)
    assert (dataset.episodes, bool(dataset.terminated.any())) == (1, False)
    assert not [problem for problem in check(path) if problem.severity == "error"]


def test_values_that_the_file_neither_stores_nor_states_are_zero(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "x.hdf5", columns(ROWS, rewards=None))
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", shape=(ROWS,), dtype="f4", fill_time="never")
    assert not load_dataset(path).rewards.any()


@pytest.mark.parametrize("rows", [MAX_UNSTORED // 4 + 1, 10**13, 2**60])
@pytest.mark.parametrize("chunks", [None, (1000,)])
def test_sizes_that_no_memory_holds_are_refused_before_anything_is_allocated(
    rows: int, chunks: tuple[int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = d4rl_file(tmp_path / "x.hdf5", columns(8, rewards=None))
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", shape=(rows,), chunks=chunks, dtype="f4", maxshape=chunks and (None,))
    zeros = np.zeros

    def bounded(shape: object, *rest: object) -> np.ndarray:
        assert np.prod(shape, dtype=float) < 1e6
        return zeros(shape, *rest)

    monkeypatch.setattr("offline_robust.datasets.hdf5.np.zeros", bounded)
    with pytest.raises(DatasetError, match=f"rewards: declares {4 * rows:,} bytes but stores 0"):
        load_dataset(path)


def test_many_arrays_of_nothing_count_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offline_robust.datasets.hdf5.MAX_UNSTORED", 5 * ROWS)
    path = d4rl_file(tmp_path / "x.hdf5", columns(ROWS, rewards=None, terminals=None))
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", shape=(ROWS,), dtype="f4")
        file.create_dataset("terminals", shape=(ROWS,), dtype="f4")
    with pytest.raises(DatasetError, match="of fill values a source may hold"):
        load_dataset(path)
