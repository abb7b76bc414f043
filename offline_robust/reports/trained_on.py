"""Which data runs were trained on: fingerprints decide. A file may change under its name, or lie under two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_SHOWN, _MOST = 8, 128

Data = tuple[str, str]
"""A dataset's name, and its fingerprint or "" where that is not known."""


def data_of(meta: Mapping[str, Any], name: str = "") -> Data:
    """What a run's meta.json says of its data; ``name`` where it says nothing."""
    said = meta.get("dataset")
    said = said if isinstance(said, dict) else {}
    fingerprint = said.get("fingerprint")
    known = isinstance(fingerprint, str) and fingerprint.isalnum() and len(fingerprint) <= _MOST
    return str(said.get("name") or name), str(fingerprint) if known else ""


def data_names(data: Sequence[Data], pool: bool = True) -> list[str]:
    """What to call the data of each run, so that the same name is the same data.

    A name that stands for several data has the beginning of the fingerprint behind it: ``data.npz@1a2b3c4d``.

    Args:
        data: of each run.
        pool: whether data of one fingerprint have one name, the first; else they keep theirs.
    """
    first: dict[str, str] = {}
    for name, fingerprint in data:
        first.setdefault(fingerprint, name)
    named = [(first[mark] if pool and mark else name, mark) for name, mark in data]
    several = {name for name, marks in _marks(named).items() if len(marks) > 1}
    return [f"{name}@{mark[:_SHOWN] or 'unknown'}" if name in several else name for name, mark in named]


def different_data(data: Sequence[Data]) -> list[str]:
    """Says so, a sentence each, where runs were trained on different data of one name."""
    return [
        f"{name}: the runs were trained on different data of this name "
        f"({', '.join(mark[:_SHOWN] for mark in marks)[:200]}) and are not averaged together"
        for name, marks in _marks(data).items()
        if len(marks) > 1
    ]


def _marks(data: Sequence[Data]) -> dict[str, list[str]]:
    """The known fingerprints of every name. A run that tells none is taken for one of the same data."""
    found: dict[str, list[str]] = {}
    for name, mark in data:
        marks = found.setdefault(name, [])
        if mark and mark not in marks:
            marks.append(mark)
    return found
