"""The evaluations of one folder: results.csv is the latest, tables of other questions are kept in ``results/``.

A question is what was evaluated under what: learners, environment, conditions, seed, and whatever else `evaluate` notes
of it. Asked again, also with more episodes, it is answered anew in place of its old answer; another question replaces
none.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

from offline_robust.errors import EvaluationError
from offline_robust.evaluation import Results
from offline_robust.evaluation.results import meta_path
from offline_robust.files import replacing
from offline_robust.untrusted import within

LATEST, EARLIER = "results.csv", "results"
"""The table of the latest evaluation, and the folder of the others."""
CELLS = "cells"
"""The folder beside them that keeps finished conditions until the table is written."""

_NOT_ASKED = (
    "versions", "page", "episodes", "conditions", "broken", "suite_source", "checkpoint", "datasets", "earlier"
)  # fmt: skip
"""What meta data say of the answer, not of the question."""


def save_results(folder: Path, results: Results) -> None:
    """Saves a table as the latest one; the one before is kept where it answers another question."""
    for name in (LATEST, EARLIER):
        within(folder, name)  # nothing is written through a link into a folder elsewhere
    _keep_latest(folder, results)
    results.save(folder / LATEST)
    stale = folder / EARLIER / f"{name_of(results)}.csv"  # asked before what was asked in between
    for path in (stale, meta_path(stale)):
        path.unlink(missing_ok=True)


def place_of(path: Path) -> tuple[Path, Path, Path]:
    """Of a folder or one of its tables: the table, the folder of its report, and the folder that it belongs to."""
    if not path.is_file() or path.name == LATEST:
        folder = path.parent if path.name == LATEST else path
        return folder / LATEST, folder, folder
    return path, path.with_suffix(""), path.parent.parent if path.parent.name == EARLIER else path.parent


def earlier_results(folder: Path) -> list[Path]:
    """The tables that are kept beside the latest one, by name."""
    return sorted((folder / EARLIER).glob("*.csv"))


def name_of(results: Results) -> str:
    """A name for the question a table answers: suite and seed in words, and a hash of everything that was asked."""
    meta = results.meta
    words = [str(meta.get("suite", "")), *map(str, results.frame["env_id"].unique()), f"seed{meta.get('seed', '')}"]
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', '-'.join(words)).strip('-.')[:80]}-{_question(results)[:8]}"


def _question(results: Results) -> str:
    frame = results.frame
    meta = results.meta
    parts = [part for part in meta.get("parts", []) if isinstance(part, dict)] or [meta]
    asked = {
        json.dumps({k: v for k, v in part.items() if k not in _NOT_ASKED}, sort_keys=True, default=str)
        for part in parts
    }
    subjects = sorted(set(zip(frame["run"], frame["learner"], frame["env_id"], strict=True)))
    content = [sorted(asked), subjects, sorted(set(frame["condition"]))]
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


def _keep_latest(folder: Path, results: Results) -> None:
    latest = folder / LATEST
    if not latest.is_file():
        return
    try:
        before = Results.read(latest)
    except EvaluationError:  # damaged: no answer to anything
        return
    if _question(before) == _question(results):
        return
    target = folder / EARLIER / f"{name_of(before)}.csv"
    for source, place in ((meta_path(latest), meta_path(target)), (latest, target)):
        if source.is_file():
            with replacing(place) as aside:
                shutil.copyfile(source, aside)
