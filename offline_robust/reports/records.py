"""What a report needs to know of a run, read from its folder; nothing in it is trusted."""

from __future__ import annotations

import errno
import hashlib
import math
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from offline_robust.errors import EvaluationError
from offline_robust.untrusted import (
    MAX_NUMBER,
    MAX_STEP,
    Unreadable,
    open_regular,
    parse_json,
    read_lines,
    read_regular,
    within,
)

MetricCurve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Steps (K,) and values (K,) of one metric."""

_MAX_METRICS = 400_000_000
_MAX_TEXT = 1_000_000
_POINTS = 600
_MAX_KEYS = 1_000


@dataclass(frozen=True)
class RunRecord:
    """One run: what was trained on what, how it went, and what the nominal model is worth.

    Attributes:
        name: the run folder's name.
        learner: the label the results table uses, "" when meta.json is silent.
        config: config.yaml as text.
        meta: meta.json; may lack any key.
        metrics: curves by key, thinned to a few hundred points.
        model: model.json, the nominal model's diagnostics, or None.
        notes: what was missing or damaged, in words.
        before: updates of what is trained before the policy, which steps count from.
    """

    name: str
    learner: str = ""
    config: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, MetricCurve] = field(default_factory=dict)
    model: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    before: float = 0.0

    @classmethod
    def read(cls, folder: str | Path) -> RunRecord:
        """Reads a run folder; every file may be missing or cut, which `notes` then says.

        Raises:
            EvaluationError: there is no such folder.
        """
        where = Path(folder)
        if not where.is_dir():
            raise EvaluationError(f"{where}: no such run folder")
        notes: list[str] = []
        meta = _read_object(where, "meta.json", notes) or {}
        model = _read_object(where, "model.json", notes) if (where / "model.json").exists() else None
        metrics, before = _read_metrics(where, notes)
        label = meta.get("label") or meta.get("learner") or ""
        return cls(
            name=where.resolve().name,
            learner=str(label),
            config=_read_text(where, "config.yaml", notes),
            meta=meta,
            metrics=metrics,
            model=model,
            notes=tuple(notes),
            before=before,
        )


def record_digest(folder: str | Path) -> str:
    """A hash of everything that `RunRecord.read` reads from a run folder."""
    digest = hashlib.sha256()
    for name in ("config.yaml", "meta.json", "model.json", "metrics.jsonl"):
        path = within(folder, name)
        digest.update(name.encode())
        if path.is_file():
            with open_regular(path) as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def numbers(values: Any) -> list[float]:
    """A list of floats from JSON of any shape; whatever is not a number becomes NaN."""
    if isinstance(values, bool) or not isinstance(values, int | float | list):
        return []
    items = values if isinstance(values, list) else [values]
    return [float(v) if isinstance(v, int | float) and not isinstance(v, bool) else math.nan for v in items]


def _read_text(folder: Path, name: str, notes: list[str]) -> str:
    try:
        return read_regular(within(folder, name), _MAX_TEXT).decode("utf-8", "replace")
    except Unreadable as error:
        notes.append(f"{name} was left out: it {error.strerror}")
    except OSError:
        notes.append(f"{name} is missing")
    return ""


def _read_object(folder: Path, name: str, notes: list[str]) -> dict[str, Any] | None:
    text = _read_text(folder, name, notes)
    if not text:
        return None
    try:
        content = parse_json(text)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        notes.append(f"{name} does not hold a JSON object")
        return None
    return content


def _read_metrics(folder: Path, notes: list[str]) -> tuple[dict[str, MetricCurve], float]:
    """The curves, and the last step of the phase ``model``."""
    name = "metrics.jsonl"
    try:
        path = within(folder, name)
        if path.stat().st_size > _MAX_METRICS:
            raise Unreadable(errno.EFBIG, f"is larger than {_MAX_METRICS:,} bytes", name)
        with open_regular(path) as file:
            points, before, damaged = _points(file)
    except OSError as error:
        notes.append(f"{name} was left out: it {error.strerror if isinstance(error, Unreadable) else 'is missing'}")
        return {}, 0.0
    if damaged:
        # A killed run leaves at most its last line cut.
        notes.append(f"{damaged} line{'s' if damaged > 1 else ''} of {name} could not be read")
    if len(points) > _MAX_KEYS:
        notes.append(f"{name} has more than {_MAX_KEYS:,} metrics, the others were left out")
        del points[next(reversed(points))]
    return {key: _curve(values) for key, values in points.items()}, before


def _points(file: BinaryIO) -> tuple[dict[str, array[float]], float, int]:
    """Of every metric its steps and values in turn; the last step of the phase ``model``; lines that are none.

    One metric more than `_MAX_KEYS` shows that there were more.
    """
    points: dict[str, array[float]] = {}
    damaged, before = 0, 0.0
    for line in read_lines(file):
        try:
            row = parse_json(line)
            step = _bounded(row["step"], MAX_STEP)
        except (ValueError, KeyError, TypeError):
            damaged += 1
            continue
        if row.get("phase") == "model":
            before = max(before, step)
        for key, value in row.items():
            if "/" not in key or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if key in points or len(points) <= _MAX_KEYS:
                points.setdefault(key, array("d")).extend((step, float(value)))
    return points, before, damaged


def _bounded(value: Any, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= most:
        raise ValueError(f"{str(value)[:20]} is not a number up to {most:g}")
    return float(value)


def _curve(points: array[float]) -> MetricCurve:
    table = np.frombuffer(points, np.float64).reshape(-1, 2)
    table = table[(np.abs(table) <= MAX_NUMBER).all(1)]
    stride = max(1, -(-len(table) // _POINTS))
    return table[::stride, 0].copy(), table[::stride, 1].copy()
