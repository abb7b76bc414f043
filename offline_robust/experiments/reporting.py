"""The report of an evaluation: written with its table, and made again from it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from offline_robust.errors import UserError
from offline_robust.evaluation import Results, clear_cells, score_reference
from offline_robust.evaluation.results import meta_path
from offline_robust.experiments.config import WandbConfig
from offline_robust.experiments.earlier import CELLS, earlier_results, place_of, save_results
from offline_robust.experiments.evaluating import PolicyFile
from offline_robust.experiments.publishing import log_evaluation, log_report
from offline_robust.experiments.run import Run
from offline_robust.experiments.tracking import group_of
from offline_robust.locks import writing
from offline_robust.reports import RunRecord, write_reports
from offline_robust.reports.page import Report
from offline_robust.reports.records import record_digest
from offline_robust.reports.trained_on import data_of
from offline_robust.untrusted import within

_MAX_PATH = 4_096


def save_report(
    folder: Path,
    results: Results,
    runs: Sequence[Run | PolicyFile],
    command: str,
    title: str = "",
    score: str | None = None,
    wandb: WandbConfig | None = None,
) -> Path:
    """Writes results.csv and the report (report.html, report.md, figures, tables) into a folder.

    The table of another question that was the latest until now is kept beside it, see `earlier`.

    The report also goes to Weights & Biases where ``wandb`` (by default the first run's configuration) asks for it, and
    a single run's evaluation into that run.

    Returns:
        The path of report.html.

    The cells that these results were put together from are removed once results.csv is there.

    Raises:
        FolderInUse: another process or thread writes into the folder.
    """
    # What `rewrite_report` needs to make the same page again.
    folders = [run.folder.resolve() for run in runs if isinstance(run, Run)]
    page: dict[str, object] = {"title": title, "command": command, "runs": [str(path) for path in folders]}
    page["digests"] = [record_digest(path) for path in folders]
    results.meta["page"] = page | ({"score": score} if score else {})
    with writing(folder):
        save_results(folder, results)
        clear_cells(folder / CELLS, results.cells)
        records = [RunRecord.read(path) for path in folders]
        report = _write(folder, results, records, command, title, score)
        trained = [run for run in runs if isinstance(run, Run)]
        if trained:
            groups = [group_of(run.config, str(run.meta["label"]), data_of(run.meta)[1]) for run in trained]
            if len(runs) == 1 and folder.resolve() == trained[0].folder.resolve():
                log_run_evaluation(trained[0], results)
            log_report(wandb or trained[0].config.wandb, folder, report, list(dict.fromkeys(groups)), title)
    return folder / "report.html"


def log_run_evaluation(run: Run, results: Results) -> None:
    """Logs a run's evaluation into its Weights & Biases run, where its configuration asks for W&B."""
    log_evaluation(run.config, run.folder, str(run.meta["label"]), str(run.environment), results)


def rewrite_report(folder: Path, score: str | None = None, outside: bool = False) -> Path:
    """Writes the report anew from a folder's results.csv and the runs behind it, those that are still there.

    The folder may come from anyone, and what it names must not put other files of this computer into a page that is
    passed on: a run that lies outside it is read where it is what `compare` saw.

    Args:
        folder: a run's, or one that `compare` wrote; or a table that is kept in one, whose report lies beside it.
        score: the name of a reference; by default the one the report had.
        outside: read runs outside the folder whatever they hold by now.

    Returns:
        The path of report.html.

    Raises:
        UserError: the folder has no results, or the reference does not fit them.
        FolderInUse: another process or thread writes into the folder.
    """
    table, out, owner = place_of(folder)
    for path in (table, meta_path(table), out):
        within(owner, str(path.relative_to(owner)))
    if not table.is_file():
        raise UserError(f"{folder}: no results.csv; run `offline-robust evaluate` or `compare` first")
    with writing(out):
        return _rewrite(table, out, owner, score, outside)


def _rewrite(table: Path, out: Path, owner: Path, score: str | None, outside: bool) -> Path:
    results = Results.read(table)
    page = results.meta.get("page")
    page = page if isinstance(page, dict) else {}
    folders = _runs_behind(owner, page, outside)
    records = [RunRecord.read(path) for path in folders if (path / "meta.json").is_file()]
    kept = page.get("score")
    name = score or (str(kept) if kept else None)
    _write(out, results, records, str(page.get("command", "")), str(page.get("title", "")), name)
    return out / "report.html"


def _runs_behind(folder: Path, page: Mapping[str, Any], outside: bool) -> list[Path]:
    """The run folders that a report names: those inside its own, and those outside that are what it was made from."""
    if (folder / "meta.json").exists():  # a run's own folder, wherever it was when its page was written
        return [folder]
    named, digests = (value if isinstance(value := page.get(key), list) else [] for key in ("runs", "digests"))
    found = []
    for place, name in enumerate(named):
        path = Path(str(name).replace("\0", "")[:_MAX_PATH])
        inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
        known = digests[place] if place < len(digests) else None
        if inside or outside or not path.is_dir() or known == record_digest(path):
            found.append(path)
            continue
        warnings.warn(
            f"{path}: left out of the report, for it lies outside {folder} and is not what that was made from; "
            "--outside reads it",
            stacklevel=3,
        )
    return found


def _write(
    folder: Path, results: Results, records: Sequence[RunRecord], command: str, title: str, score: str | None
) -> Report:
    environments = [str(env_id) for env_id in results.frame["env_id"].unique()]
    references = None if score is None else {env_id: score_reference(score, env_id) for env_id in environments}
    kept = [str(path.relative_to(folder)) for path in earlier_results(folder)]
    results = replace(results, meta=results.meta | {"earlier": kept})
    return write_reports(folder, results, records, command=command, title=title, score=references)
