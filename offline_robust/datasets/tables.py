"""Tables with one row per transition and named columns: which column holds what.

A vector is one column a dimension, counted (``observations_0``, ``obs.0``, ``obs[0]``, ``obs0``) or named after a dot
(``observation.angle``), or one column whose cells are lists of one length. Scalars are one column. The names before
the number are those of `ALIASES`; large and small letters are the same. `pandas.concat({"observations": a, ...},
axis=1)` gives pairs as names, which are read as if joined by a dot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from offline_robust.datasets.findings import Finding, one_line, refusal
from offline_robust.datasets.flat_files import own_memory, set_episodes
from offline_robust.datasets.logged import ALIASES, Array, Logged, from_columns
from offline_robust.datasets.spaces import OWN_PREFIX

_INDEX = ("Unnamed: ", "__index_level_")
"""What pandas calls an index without a name in CSV and in Parquet."""
_VECTORS = ("observations", "actions", "next_observations")
_EPISODE = ("episode", "episode_id", "episode_index")
_OWN = {"next_valid": ("next_valid",), "episode": _EPISODE}
_BASES = "|".join(sorted((alias for aliases in ALIASES.values() for alias in aliases), key=len, reverse=True))
_COLUMN = re.compile(rf"({_BASES})(?:[_.\-:/ ]?(\d{{1,6}})|\[(\d{{1,6}})\]|[.:/](.+))?")
_WAYS = (
    "name the columns observations_0, observations_1, ... (or obs.angle, ...), actions_0, rewards, terminals, timeouts"
)


@dataclass(frozen=True)
class _Column:
    """What a column's name says."""

    base: str
    number: int | None
    part: str | None


@dataclass(frozen=True)
class ColumnPlan:
    """Which columns of a table hold which array."""

    arrays: Mapping[str, tuple[int, ...]]
    """Places of the columns of each array, in the order of its dimensions; by our names, and `_OWN`'s."""
    labels: tuple[str, ...]
    """The names of all columns."""
    unread: tuple[str, ...]
    """Columns that are none of ours."""

    @property
    def places(self) -> list[int]:
        """The columns that are read, in the table's order."""
        return sorted({place for places in self.arrays.values() for place in places})


def plan_columns(where: str, names: Sequence[Hashable]) -> ColumnPlan:
    """Finds the columns of every array.

    Raises:
        DatasetError: a needed array has none, two columns have one name, or numbers are missing among the dimensions.
    """
    labels = tuple(_label(name) for name in names)
    keys = [label.casefold() for label in labels]
    for place, key in enumerate(keys):
        if key in keys[:place]:
            raise refusal(f"{where}: {labels[place][:60]}", "is there twice", "give every column a name of its own")
    read = [_read(key) for key in keys]
    arrays: dict[str, tuple[int, ...]] = {}
    for name, aliases in ALIASES.items():
        for base in aliases:
            places = [place for place, column in enumerate(read) if column is not None and column.base == base]
            if name not in _VECTORS:
                bare = [place for place in places if keys[place] == base]
                places = bare or [place for place in places if read[place].part is None]  # type: ignore[union-attr]
            if places and name not in arrays:
                arrays[name] = _ordered(f"{where}: {base}", base, places, read)
    for name in ("observations", "actions", "rewards", "terminated"):
        if name not in arrays:
            there = ", ".join(label[:40] for label in labels[:12]) or "nothing"
            mend = "add it (all zero if no episode truly ends)" if name == "terminated" else _WAYS
            raise refusal(where, f"no column '{ALIASES[name][0]}'; the table has {there}", mend)
    if "next_observations" in arrays:
        arrays["next_observations"] = _alike(where, arrays, read)
    for name, aliases in _OWN.items():
        found = [keys.index(key) for key in aliases if key in keys]
        if found:
            arrays[name] = (found[0],)
    used = {place for places in arrays.values() for place in places}
    unread = (label for place, label in enumerate(labels) if place not in used and not label.startswith(_INDEX))
    return ColumnPlan(arrays, labels, tuple(unread))


def read_table(where: str, plan: ColumnPlan, column: Callable[[int], Array], form: str) -> Logged:
    """The rows of a table.

    Args:
        where: the source, for messages.
        plan: of its columns.
        column: the values of the column at a place: (N,), or (N, D) where cells are lists; numbers, else it refuses.
        form: what the source is, for the provenance.

    Raises:
        DatasetError: values are not numbers, or do not fit each other.
    """
    columns: dict[str, Array] = {}
    names: dict[str, str] = {}
    for name, places in plan.arrays.items():
        parts = [column(place) for place in places]
        first, last = plan.labels[places[0]], plan.labels[places[-1]]
        names[name] = first if len(places) == 1 else f"{first} to {last}"
        wide = next((place for place, part in zip(places, parts, strict=True) if part.ndim > 1), None)
        if wide is not None and len(places) > 1:
            raise refusal(f"{where}: {plan.labels[wide]}", "holds lists beside other columns of its array", _WAYS)
        key = OWN_PREFIX + name if name == "next_valid" else name
        columns[key] = parts[0] if len(places) == 1 else np.stack(parts, axis=1)
    episode = columns.pop("episode", None)
    logged = from_columns(where, columns, names)
    own_memory(logged, columns)
    if episode is not None:
        set_episodes(logged, f"{where}: {names['episode']}", episode)
    logged.provenance = {"source": where, "format": form}
    if plan.unread:
        shown = ", ".join(label[:40] for label in plan.unread[:8]) + (", ..." if len(plan.unread) > 8 else "")
        what = one_line(f"holds columns that are not read: {shown}")
        logged.problems.append(Finding("warning", where, what, f"if they belong to an array, {_WAYS}"))
    return logged


def cells(where: str, values: Sequence[Any]) -> Array:
    """(N,) or (N, D) numbers from cells that are numbers, or lists or arrays of one length.

    Raises:
        DatasetError: a cell is something else, or of another length; names the row.
    """
    try:
        array = np.array(values) if len(values) else np.zeros(0)
    except (ValueError, TypeError, OverflowError):
        array = np.zeros(0, object)
    if array.dtype.kind in "fiub":
        return array
    shape: tuple[int, ...] | None = None
    for row, cell in enumerate(values):
        try:
            one = np.array(cell)
        except (ValueError, TypeError, OverflowError):
            one = np.zeros(0, object)
        if one.dtype.kind not in "fiub":
            raise refusal(where, f"row {row:,} holds {_shown(cell)}", "store numbers, a column each or lists of them")
        if shape is not None and one.shape != shape:
            what = f"row {row:,} holds {_size(one)} where row 0 holds {_size(np.zeros(shape))}"
            raise refusal(where, what, "every row needs as many numbers")
        shape = one.shape
    raise refusal(where, "holds numbers beyond 64 bits", "store numbers that float64 holds")


def _shown(cell: Any) -> str:
    if cell is None:
        return "nothing"
    if isinstance(cell, str):
        return f"the text '{cell[:30]}'"
    return f"a {type(cell).__name__}" if not isinstance(cell, list | tuple) else "a list of something else than numbers"


def _size(values: Array) -> str:
    return f"a list of {len(values):,}" if values.ndim == 1 else "a number" if values.ndim == 0 else "nested lists"


def _label(name: Hashable) -> str:
    """A column's name as text; a pair, as of two levels of columns, joined by a dot."""
    parts = name if isinstance(name, tuple) else (name,)
    return ".".join(text for text in (str(part).strip() for part in parts) if text)


def _read(key: str) -> _Column | None:
    match = _COLUMN.fullmatch(key)
    if match is None:
        return None
    number = match[2] or match[3]
    return _Column(match[1], None if number is None else int(number), match[4])


def _ordered(where: str, base: str, places: Sequence[int], read: Sequence[_Column | None]) -> tuple[int, ...]:
    """The columns of one array in the order of its dimensions: by number, else as they stand."""
    columns = [(place, column) for place in places if (column := read[place]) is not None]
    if len({(column.number is None, column.part is None) for _, column in columns}) > 1:
        raise refusal(where, "has columns with a number beside others without", _WAYS)
    numbers = {column.number: place for place, column in columns if column.number is not None}
    if not numbers:
        return tuple(places)
    if len(numbers) != len(places):
        raise refusal(where, "has two columns of one number", _WAYS)
    first = min(numbers)
    missing = next((number for number in range(first, first + len(numbers)) if number not in numbers), None)
    if first > 1 or missing is not None:
        what = f"the dimension {0 if first > 1 else missing} is missing among its {len(numbers):,} columns"
        raise refusal(where, what, f"number them from 0 on: {base}_0, {base}_1, ...")
    return tuple(numbers[number] for number in sorted(numbers))


def _alike(where: str, arrays: Mapping[str, tuple[int, ...]], read: Sequence[_Column | None]) -> tuple[int, ...]:
    """The columns of the next observations in the order of the observations', which counts where they have names."""
    parts = {name: [read[place].part for place in arrays[name]] for name in ("observations", "next_observations")}  # type: ignore[union-attr]
    before, after = parts["observations"], parts["next_observations"]
    if not any(before) and not any(after):
        return arrays["next_observations"]
    if sorted(map(str, before)) != sorted(map(str, after)):
        odd = sorted(set(map(str, before)) ^ set(map(str, after)))
        raise refusal(f"{where}: next_observations", f"differs from observations in {', '.join(odd[:6])}", _WAYS)
    return tuple(arrays["next_observations"][after.index(part)] for part in before)
