"""What a report needs to know of a run, read from its folder; nothing in it is trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_robust.errors import EvaluationError

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Steps (K,) and values (K,) of one metric."""

_MAX_METRICS = 400_000_000
_MAX_TEXT = 1_000_000
_POINTS = 600


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
    metrics: dict[str, Curve] = field(default_factory=dict)
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
        meta = _read_object(where / "meta.json", notes) or {}
        model = _read_object(where / "model.json", notes) if (where / "model.json").exists() else None
        metrics, before = _read_metrics(where / "metrics.jsonl", notes)
        label = meta.get("label") or meta.get("learner") or ""
        return cls(
            name=where.resolve().name,
            learner=str(label),
            config=_read_text(where / "config.yaml", notes),
            meta=meta,
            metrics=metrics,
            model=model,
            notes=tuple(notes),
            before=before,
        )


def numbers(values: Any) -> list[float]:
    """A list of floats from JSON of any shape; whatever is not a number becomes NaN."""
    if isinstance(values, bool) or not isinstance(values, int | float | list):
        return []
    items = values if isinstance(values, list) else [values]
    return [float(v) if isinstance(v, int | float) and not isinstance(v, bool) else math.nan for v in items]


def _read_text(path: Path, notes: list[str]) -> str:
    try:
        if path.stat().st_size > _MAX_TEXT:
            notes.append(f"{path.name} is larger than {_MAX_TEXT} bytes and was left out")
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        notes.append(f"{path.name} is missing")
        return ""


def _read_object(path: Path, notes: list[str]) -> dict[str, Any] | None:
    text = _read_text(path, notes)
    if not text:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        notes.append(f"{path.name} does not hold a JSON object")
        return None
    return content


def _read_metrics(path: Path, notes: list[str]) -> tuple[dict[str, Curve], float]:
    """The curves, and the last step of the phase ``model``."""
    if not path.is_file() or path.stat().st_size > _MAX_METRICS:
        notes.append(f"{path.name} is missing or too large")
        return {}, 0.0
    points: dict[str, list[tuple[float, float]]] = {}
    damaged, before = 0, 0.0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
                step = float(row["step"])
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                damaged += 1
                continue
            if row.get("phase") == "model" and math.isfinite(step):
                before = max(before, step)
            for key, value in row.items():
                if "/" in key and isinstance(value, int | float) and not isinstance(value, bool):
                    points.setdefault(key, []).append((step, _float(value)))
    if damaged:
        # A killed run leaves at most its last line cut.
        notes.append(f"{damaged} line{'s' if damaged > 1 else ''} of {path.name} could not be read")
    return {key: _curve(values) for key, values in points.items()}, before


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _curve(points: Sequence[tuple[float, float]]) -> Curve:
    table = np.array(points)
    table = table[np.isfinite(table).all(1)]
    stride = max(1, -(-len(table) // _POINTS))
    return table[::stride, 0], table[::stride, 1]
