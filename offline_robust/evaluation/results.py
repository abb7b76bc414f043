"""The results table: one row per episode, from which every mean, interval and figure derives."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from offline_robust.csv_text import csv_of, plain
from offline_robust.environment import EnvironmentSpec
from offline_robust.errors import EvaluationError
from offline_robust.evaluation.summary import summarise
from offline_robust.files import write_json, write_text
from offline_robust.untrusted import MAX_NUMBER, free_memory, parse_json, read_regular

COLUMNS: dict[str, str] = {
    "run": "str",
    "learner": "str",
    "training_seed": "int",
    "env_id": "str",
    "condition": "str",
    "nominal": "bool",
    "perturbation": "str",
    "level": "str",
    "mode": "str",
    "episode": "int",
    "episode_seed": "int",
    "return": "float",
    "length": "int",
    "terminated": "bool",
}
"""Columns and their kinds. ``level`` is text because a condition may move several parameters ("0.5;1.2")."""

KEY = ["run", "learner", "training_seed", "env_id", "condition", "episode"]
"""What identifies a row."""

_MAX_BYTES = 1_000_000_000
_MAX_META_BYTES = 4_000_000
_MAX_TEXT = 500
_META_KINDS: dict[str, type] = {"parts": list, "page": dict, "datasets": dict, "versions": dict, "broken": dict}
_BYTES_PER_ROW = 1_500


@dataclass(frozen=True)
class Results:
    """A tidy table of evaluated episodes.

    Attributes:
        frame: one row per episode, with the columns of `COLUMNS`: the run (a training), its learner and training
            seed; the environment (its id, and what it differs by from the registered one); the condition (its label,
            whether it leaves the system nominal, the perturbed parameters joined by "+", their levels and modes joined
            by ";"); the episode, the seed of its start state, its return (undiscounted, the environment's own reward),
            its length in steps, and whether it terminated rather than ran out of time.
        meta: versions, suite, seed and so on, as `evaluate` records them.
        cells: files that hold parts of this table until it is saved, see `clear_cells`; not saved with it.
    """

    frame: pd.DataFrame
    meta: dict[str, Any] = field(default_factory=dict)
    cells: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        _check(self.frame, "the results table")

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def learners(self) -> list[str]:
        """Learner labels in order of first appearance."""
        return [str(name) for name in self.frame["learner"].unique()]

    @property
    def environments(self) -> dict[str, EnvironmentSpec]:
        """The environments by what the table calls them; those of which ``meta`` holds a description."""
        parts = self.meta.get("parts")
        found = {}
        for meta in [self.meta, *(parts if isinstance(parts, list) else ())]:
            if isinstance(meta, dict) and isinstance(meta.get("environment"), dict):
                with contextlib.suppress(EvaluationError):  # a foreign file: then its name is all that is known
                    spec = EnvironmentSpec.from_dict(meta["environment"], "the results")
                    found[str(spec)] = spec
        return found

    def save(self, path: str | Path) -> None:
        """Writes the table as CSV and ``meta`` as JSON beside it (results.csv, results.meta.json), atomically.

        Names that a spreadsheet would take for formulas stand behind an apostrophe, which `read` takes away.
        """
        write_json(meta_path(path), self.meta)
        write_text(path, csv_of(self.frame))

    @classmethod
    def read(cls, path: str | Path) -> Results:
        """Reads and validates what `save` wrote; a missing meta file is an empty ``meta``.

        Raises:
            EvaluationError: missing or oversized file, wrong columns, or a value of the wrong kind; names the line.
        """
        where = Path(path)
        try:
            content = read_regular(where, _MAX_BYTES)
            _check_memory(content, where)
            text = content.decode("utf-8")  # as it is: a name may hold a carriage return
        except (OSError, UnicodeDecodeError) as error:
            raise EvaluationError(f"{where}: cannot read the results ({error})") from None
        try:
            raw = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, na_filter=False)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
            raise EvaluationError(f"{where}: not a CSV table ({' '.join(str(error).split())})") from None
        if list(raw.columns) != list(COLUMNS):
            raise EvaluationError(
                f"{where}: the columns must be {', '.join(COLUMNS)}; got {', '.join(map(str, raw.columns))[:200]}"
            )
        frame = pd.DataFrame({name: _parse(raw[name], name, kind, where) for name, kind in COLUMNS.items()})
        _check(frame, str(where))
        return cls(frame, _read_meta(meta_path(where)))

    @classmethod
    def concat(cls, parts: Iterable[Results]) -> Results:
        """One table of several; ``meta`` keeps what all parts agree on, and every part's own under ``parts``.

        Raises:
            EvaluationError: no part at all, or two parts hold the same episode of the same run.
        """
        tables = list(parts)
        if not tables:
            raise EvaluationError("no results to put together")
        if len(tables) == 1:
            return tables[0]
        frame = pd.concat([part.frame for part in tables], ignore_index=True)
        first = tables[0].meta
        common = {k: v for k, v in first.items() if all(k in p.meta and p.meta[k] == v for p in tables)}
        common.pop("parts", None)
        cells = tuple(path for part in tables for path in part.cells)
        return cls(frame, {**common, "parts": [part.meta for part in tables]}, cells)

    def summary(self, rng: np.random.Generator | None = None, draws: int = 2_000) -> pd.DataFrame:
        """The table of statistics per learner; see `offline_robust.evaluation.summary.summarise`."""
        return summarise(self, rng, draws)


def results_frame(rows: Mapping[str, Any]) -> pd.DataFrame:
    """A frame with the columns of `COLUMNS` and their types from equally long columns or scalars."""
    size = max(len(value) for value in rows.values() if isinstance(value, np.ndarray))
    types = {"int": np.int64, "float": np.float64, "bool": np.bool_}
    columns: dict[str, Any] = {}
    for name, kind in COLUMNS.items():
        value = rows[name]
        if kind == "str":
            # Names of folders may hold bytes that are no text; a table is a text file.
            columns[name] = [str(value).encode("utf-8", "backslashreplace").decode("utf-8")] * size
        else:
            columns[name] = np.broadcast_to(np.asarray(value, types[kind]), (size,))
    return pd.DataFrame(columns)


def meta_path(path: str | Path) -> Path:
    """Where the meta data of a results file lie: results.csv has results.meta.json."""
    where = Path(path)
    return where.with_name(where.stem + ".meta.json")


def _check(frame: pd.DataFrame, where: str) -> None:
    if list(frame.columns) != list(COLUMNS):
        raise EvaluationError(f"{where}: the columns must be {', '.join(COLUMNS)}")
    if frame.empty:
        raise EvaluationError(f"{where}: no episodes")
    returns = frame["return"].to_numpy()
    if returns.dtype != np.float64 or not np.isfinite(returns).all():
        raise EvaluationError(f"{where}: a return is NaN or infinite")
    if (frame["length"].to_numpy() < 0).any() or (frame["episode"].to_numpy() < 0).any():
        raise EvaluationError(f"{where}: a length or an episode number is negative")
    twice = frame.duplicated(KEY)
    if twice.any():
        row = frame[twice].iloc[0]
        raise EvaluationError(
            f"{where}: run '{row['run']}' (seed {row['training_seed']}) has episode {row['episode']} of condition "
            f"'{row['condition']}' twice"
        )


def _parse(column: pd.Series[str], name: str, kind: str, where: Path) -> Any:
    values = column.to_list()
    if kind == "str":
        if any(len(value) > _MAX_TEXT for value in values):
            raise EvaluationError(f"{where}: a {name} is longer than {_MAX_TEXT} characters")
        return [plain(value) for value in values]
    convert: Any = {"int": _integer, "float": _number, "bool": {"True": True, "False": False}.__getitem__}[kind]
    parsed = []
    for line, value in enumerate(values, start=2):
        try:
            parsed.append(convert(value))
        except (ValueError, KeyError):
            raise EvaluationError(f"{where}, line {line}: {name} is {value[:40]!r}, expected {kind}") from None
    return np.array(parsed, {"int": np.int64, "float": np.float64, "bool": np.bool_}[kind])


def _integer(text: str) -> int:
    # int() would take a million digits, and numpy would then overflow.
    if len(text) > 19:
        raise ValueError
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError
    return value


def _number(text: str) -> float:
    # NaN and infinity are refused by name later; sums and squares of what is larger than this would become them.
    value = float(text)
    if math.isfinite(value) and abs(value) > MAX_NUMBER:
        raise ValueError
    return value


def _check_memory(content: bytes, where: Path) -> None:
    """Refuses a table whose rows, as text and as numbers, would not fit into memory."""
    needed = len(content) * 4 + content.count(b"\n") * _BYTES_PER_ROW
    if needed > (free := free_memory()):
        raise EvaluationError(
            f"{where}: needs about {needed:,} bytes of memory, {free:,} are free: evaluate fewer runs together"
        )


def _read_meta(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = parse_json(read_regular(path, _MAX_META_BYTES))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise EvaluationError(f"{path}: must hold a JSON object")
    for part in (content, *_objects(content.get("parts"))):
        for key, kind in _META_KINDS.items():
            if part.get(key) is not None and not isinstance(part[key], kind):
                raise EvaluationError(f"{path}: {key} is not a JSON {'array' if kind is list else 'object'}")
    return content


def _objects(value: Any) -> list[dict[str, Any]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []
