"""Readers of tables: pandas data frames, CSV, Parquet and JSON lines. Numbers only, of bounded size."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from offline_robust.datasets.findings import FileProblem, refusal
from offline_robust.datasets.hdf5 import Budget
from offline_robust.datasets.logged import Array, Logged
from offline_robust.datasets.spaces import MAX_JSON, parse_json
from offline_robust.datasets.tables import ColumnPlan, cells, plan_columns, read_table
from offline_robust.errors import MissingExtra
from offline_robust.untrusted import open_regular

MAX_TEXT = 4 * 2**30
"""Bytes of a text file that are read: its numbers take four times as much at most."""

_NUMBERS = "numbers are read, and true and false"
_BLOCK, _PIECE = 4_096, 2**20
"""Lines of JSON that are held as Python objects, and bytes in which separators are counted."""


def read_frame(frame: Any, where: str = "data frame", form: str = "dataframe") -> Logged:
    """Takes a pandas data frame; its index says nothing.

    Raises:
        DatasetError: a column is missing or holds something else than numbers.
    """
    plan = plan_columns(where, list(frame.columns))
    return read_table(where, plan, lambda place: _series(f"{where}: {plan.labels[place]}", frame.iloc[:, place]), form)


def read_csv(path: Path) -> Logged:
    """Reads comma-separated values, the first line of which names the columns.

    Raises:
        DatasetError: too large, not such a file, or a column is missing or holds something else than numbers.
    """
    import pandas as pd

    where = str(path)
    _refuse_large(path)
    # A file object, and nothing left to guess: pandas would open addresses, unpack archives and try another parser.
    options: dict[str, Any] = {
        "engine": "c",
        "sep": ",",
        "encoding": "utf-8-sig",
        "compression": None,
        "index_col": False,
        "skipinitialspace": True,
    }
    try:
        with path.open("rb") as file:
            head = pd.read_csv(file, header=None, nrows=1, dtype=str, keep_default_na=False, **options)
            plan = plan_columns(where, [str(name) for name in head.iloc[0]])
            file.seek(0)
            # All columns, or pandas would not notice lines that are too long.
            exact: dict[str, Any] = {"float_precision": "round_trip", "low_memory": False}
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                frame = pd.read_csv(file, header=None, skiprows=1, names=range(len(plan.labels)), **exact, **options)
    except FileProblem:
        raise
    except (ValueError, OverflowError, MemoryError, OSError, pd.errors.ParserWarning) as error:
        # (pandas' own errors are ValueErrors)
        raise refusal(where, f"is not a table of comma-separated values ({error})", "write it again") from None
    return read_table(
        where, plan, lambda place: _series(f"{where}: {plan.labels[place]}", frame[place], text=True), "csv"
    )


def read_parquet(path: Path) -> Logged:
    """Reads a Parquet file; structures become columns named after a dot.

    Raises:
        DatasetError: too large, damaged, or a column is missing or holds something else than numbers.
        MissingExtra: pyarrow is not installed.
    """
    where = str(path)
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtra("pyarrow", "arrow", f"reading {path.name}") from None
    try:
        with open_regular(path) as content:
            size = os.fstat(content.fileno()).st_size
        with parquet.ParquetFile(path, memory_map=False) as file:
            labels, tops = _flattened(pa, file.schema_arrow)
            plan = plan_columns(where, labels)
            wanted = sorted({tops[place] for place in plan.places})
            _take(where, file.metadata, {file.schema_arrow.names[top] for top in wanted}, size)
            table = file.read(columns=[file.schema_arrow.names[top] for top in wanted])
        while any(pa.types.is_struct(kind) for kind in table.schema.types):
            table = table.flatten()
        # Without the metadata pandas left there: what it says of indices and types is nothing to rely on.
        frame = table.select([labels[place] for place in plan.places]).to_pandas(ignore_metadata=True)
        del table  # or there would be three copies at a time
    except FileProblem:
        raise
    except Exception as error:  # the file decides what goes wrong in here
        raise refusal(where, f"is not a Parquet file, or damaged ({error})", "write or copy it again") from None
    places = {place: number for number, place in enumerate(plan.places)}
    return read_table(
        where, plan, lambda place: _series(f"{where}: {plan.labels[place]}", frame.iloc[:, places[place]]), "parquet"
    )


def read_jsonl(path: Path) -> Logged:
    """Reads JSON lines: an object per transition, all with the same keys; objects within become names after a dot.

    Raises:
        DatasetError: too large, a line that is not such an object, a key that is missing, or something else than
            numbers.
    """
    where = str(path)
    _refuse_large(path)
    plan: ColumnPlan | None = None
    parts: dict[int, list[Array]] = {}
    held: dict[int, list[Any]] = {}
    count = 0

    def put_down() -> None:
        assert plan is not None
        for place, values in held.items():
            array = cells(f"{where}: {plan.labels[place]}, lines before {count + 1:,}", values)
            if parts.get(place) and parts[place][0].shape[1:] != array.shape[1:]:
                what = f"holds other sizes before line {count + 1:,} than in line 1"
                raise refusal(f"{where}: {plan.labels[place]}", what, "every line needs as many numbers")
            parts.setdefault(place, []).append(array)
            held[place] = []

    with path.open("rb") as file:
        while line := file.readline(MAX_JSON + 1):
            if not line.strip():
                continue
            count += 1
            row = _flat(parse_json(f"{where}: line {count:,}", line, "write one JSON object a line"))
            if plan is None:
                plan = plan_columns(where, list(row))
                held = {place: [] for place in plan.places}
            for place, values in held.items():
                if plan.labels[place] not in row:
                    what = f"the key '{plan.labels[place][:60]}' of line 1 is missing"
                    raise refusal(f"{where}: line {count:,}", what, "every line is a transition, with the same keys")
                values.append(row[plan.labels[place]])
            if count % _BLOCK == 0:
                put_down()
    if plan is None:
        raise refusal(where, "is empty", "write one JSON object a line, one for each transition")
    if count % _BLOCK:
        put_down()
    return read_table(where, plan, lambda place: np.concatenate(parts[place]), "jsonl")


def _series(where: str, series: Any, text: bool = False) -> Array:
    """The numbers of a pandas column.

    Args:
        where: the column, for messages.
        series: the column.
        text: whether it comes from a file of text, in which the first row is line 2.
    """
    import pandas as pd

    kind = series.dtype
    if isinstance(kind, np.dtype) and kind.kind in "fiub":
        return np.asarray(series)
    if not len(series):
        return np.zeros(0)
    if not isinstance(kind, np.dtype) and (pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind)):
        plain = getattr(kind, "numpy_dtype", None)
        if isinstance(plain, np.dtype) and plain.kind in "fiub" and not series.isna().any():
            return np.asarray(series.to_numpy(plain))
        return np.asarray(series.to_numpy(np.float64, na_value=np.nan))
    if text or (pd.api.types.is_string_dtype(kind) and kind != np.dtype(object)):
        rows = np.flatnonzero(pd.to_numeric(series, errors="coerce").isna() & series.notna())
        what = "holds text"
        if len(rows):
            place = f"line {rows[0] + 2:,}" if text else f"row {rows[0]:,}"
            what += f": {place} holds '{str(series.iloc[int(rows[0])])[:30]}'"
        raise refusal(where, what, _NUMBERS)
    if isinstance(kind, np.dtype) and kind != np.dtype(object):
        raise refusal(where, f"holds {kind}", _NUMBERS)
    return cells(where, series.to_list())


def _refuse_large(path: Path) -> None:
    """Refuses a text file of more bytes, or of more numbers, than are read; its numbers stand between separators.

    While pandas reads the text, it holds it, too.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            pieces = iter(lambda: file.read(_PIECE), b"") if size <= MAX_TEXT else ()
            numbers = sum(piece.count(b",") + piece.count(b"\n") for piece in pieces)
    except OSError as error:
        raise refusal(str(path), f"cannot be read ({error.strerror})") from None
    if size > MAX_TEXT:
        raise refusal(str(path), f"is {size:,} bytes of text", f"at most {MAX_TEXT:,} are read: store it as .npz")
    if size == 0:
        raise refusal(str(path), "is empty", "copy or download it again")
    Budget(str(path)).take(str(path), max(8 * numbers, size), size)


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    """Objects within an object as names after a dot."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": item for inner, item in _flat(value).items()}
        else:
            flat[key] = value
    return flat


def _flattened(pa: Any, schema: Any) -> tuple[list[str], list[int]]:
    """The names of a schema's columns with structures taken apart, and the place of the column each lies in."""
    labels: list[str] = []
    tops: list[int] = []
    for place, field in enumerate(schema):
        inner = pa.schema([field]).empty_table()
        while any(pa.types.is_struct(kind) for kind in inner.schema.types):
            inner = inner.flatten()
        labels += inner.schema.names
        tops += [place] * len(inner.schema.names)
    return labels, tops


def _take(where: str, metadata: Any, wanted: set[str], stored: int) -> None:
    """Refuses what declares more numbers than memory should hold, before anything is read."""
    declared = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        columns = (row_group.column(number) for number in range(row_group.num_columns))
        declared += sum(8 * column.num_values for column in columns if column.path_in_schema.split(".")[0] in wanted)
    Budget(where).take(where, declared, stored)
