"""Parquet files give what the same columns give from memory, and damage in them is one line (extra `arrow`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dataset_files import columns

from offline_robust.datasets import check, load_dataset
from offline_robust.errors import DatasetError

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as parquet  # noqa: E402

ENDS = {3: "terminal", 7: "timeout"}


def flat_frame() -> pd.DataFrame:
    found: dict[str, Any] = {}
    for name, values in columns(12, ends=ENDS).items():
        found |= {name: values} if values.ndim == 1 else {f"{name}_{d}": v for d, v in enumerate(values.T)}
    return pd.DataFrame(found)


def counted(path: Path) -> None:
    flat_frame().assign(note="text").set_index(pd.Index([f"row {k}" for k in range(12)])).to_parquet(path)


def lists(path: Path) -> None:
    content = {name: list(v) if v.ndim > 1 else v for name, v in columns(12, ends=ENDS).items()}
    pd.DataFrame(content).to_parquet(path, row_group_size=5)


def lists_of_fixed_size(path: Path) -> None:
    content = columns(12, ends=ENDS)
    fixed = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        for name, values in content.items()
        if values.ndim > 1
    }
    parquet.write_table(pa.table(content | fixed), path)


def structures(path: Path) -> None:
    content: dict[str, Any] = columns(12, ends=ENDS)
    for name in ("observations", "next_observations"):
        content[name] = [dict(zip("xyz", map(float, row), strict=True)) for row in content[name]]
    content["actions"] = content["actions"][:, 0]
    content["info"] = [{"text": "none"}] * 12
    parquet.write_table(pa.table(content), path)


@pytest.mark.parametrize("write", [counted, lists, lists_of_fixed_size, structures])
@pytest.mark.parametrize("ending", [".parquet", ".pq"])
def test_columns_are_found_by_name(write: Any, ending: str, tmp_path: Path) -> None:
    write(tmp_path / f"x{ending}")
    assert load_dataset(tmp_path / f"x{ending}").fingerprint == load_dataset(columns(12, ends=ENDS)).fingerprint
    unread = [problem.what for problem in check(tmp_path / f"x{ending}") if "not read" in problem.what]
    assert unread == {counted: ["holds columns that are not read: note"]}.get(
        write, ["holds columns that are not read: info.text"] if write is structures else []
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rewards": "text"}, "rewards: holds text: row 0 holds 'text'"),
        ({"rewards": pd.array([None, *range(11)], "Int64")}, "rewards: 1 row with NaN"),
        ({"rewards": pd.date_range("2020", periods=12)}, "rewards: holds datetime64"),
    ],
)
def test_what_is_no_number_is_one_line(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    flat_frame().assign(**change).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match=said):
        load_dataset(tmp_path / "x.parquet")


def test_damage_is_one_line(tmp_path: Path) -> None:
    flat_frame().to_parquet(tmp_path / "x.parquet")
    good, rng = (tmp_path / "x.parquet").read_bytes(), np.random.default_rng(0)
    contents = [good[: len(good) // 2], b"PAR1" * 5, b"x", b""]
    for _ in range(40):
        content = bytearray(good)
        for place in rng.integers(0, len(good), 6):
            content[place] = rng.integers(256)
        contents.append(bytes(content))
    refused = []
    for content in contents:
        (tmp_path / "x.parquet").write_bytes(content)
        try:
            load_dataset(tmp_path / "x.parquet")
        except DatasetError as error:
            refused.append(str(error))
    assert len(refused) > 10
    assert not any("\n" in message for message in refused)


def test_more_than_memory_should_hold_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat_frame().to_parquet(tmp_path / "x.parquet")
    monkeypatch.setattr("offline_robust.datasets.logged.MAX_BYTES", 12 * 8)
    monkeypatch.setattr("pyarrow.parquet.ParquetFile.read", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(DatasetError, match=r"needs 960 bytes; a source may take 96"):
        load_dataset(tmp_path / "x.parquet")
