"""Evaluations and reports on Weights & Biases: into the run of the training, and as a W&B Report.

As in `tracking`, nothing here can stop what called it.

Names. ``train/*``, ``model/*``, ``dual/*`` and ``time/*`` as in metrics.jsonl; of an evaluation ``eval/nominal/*``,
``eval/all/*`` and ``eval/perturb/<name>/<level>/*`` with mean, iqm and cvar10 each, ``<name>`` the perturbed parameter
(several joined by "+") and ``<level>`` its level ("x0.8", "=0.1", "+1", several joined by ";").
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from offline_robust.evaluation import Results
from offline_robust.evaluation.levels import CONDITION_COLUMNS, level_text
from offline_robust.evaluation.statistics import cvar, iqm
from offline_robust.experiments.config import RunConfig, WandbConfig
from offline_robust.experiments.tracking import WandbRun, attach, begin, online, version_tags, warn
from offline_robust.files import write_text
from offline_robust.reports.folder import tables
from offline_robust.reports.page import Report
from offline_robust.reports.wandb_report import build_wandb_report, specification
from offline_robust.untrusted import within

_FILES = ("results.csv", "results.meta.json", "report.html", "report.md")
_MAX_NAME, _MAX_ROWS = 128, 10_000


def log_evaluation(config: RunConfig, folder: Path, label: str, env_id: str | None, results: Results) -> None:
    """Logs an evaluation into the W&B run of its training, if the configuration asks for W&B at all.

    Args:
        config: the run's.
        folder: the run's; its results.csv and report are attached where it has some.
        label: what seeds average over.
        env_id: the environment.
        results: rows of any runs; those of this folder's are taken.
    """
    if config.wandb.mode == "disabled" or importlib.util.find_spec("wandb") is None:
        return
    own = results.frame[results.frame["run"] == folder.resolve().name].reset_index(drop=True)
    if own.empty:
        return
    run = WandbRun(config, folder, label, env_id)
    run.log_tables(
        evaluation_values(own),
        {"eval/conditions": condition_table(own)} | ({"eval/episodes": own} if len(own) <= _MAX_ROWS else {}),
        config.training.model_steps + config.training.steps,
        {name: within(folder, name) for name in _FILES},
    )
    run.finish()


def log_report(settings: WandbConfig, folder: Path, report: Report, groups: Sequence[str], name: str = "") -> str:
    """Publishes a comparison: its files and table as a W&B run of type "report", and a W&B Report of its text.

    The Report's specification is written to wandb-report.json in any case where wandb-workspaces is installed, and
    saved to W&B where these settings go online.

    Args:
        settings: project, entity, mode.
        folder: where results.csv and the report lie; this run's id is kept there.
        report: as `write_reports` returns it.
        groups: the groups (`group_of`) of the runs behind it.
        name: of the run; by default the folder's.

    Returns:
        The Report's address, "" where it was not saved.
    """
    if settings.mode == "disabled" or importlib.util.find_spec("wandb") is None:
        return ""
    if not (folder / "config.yaml").is_file():  # a training's own folder has its own run, `log_evaluation`
        try:
            _log_files(settings, folder, report, name or folder.resolve().name)
        except Exception as error:
            warn(error, "the report is in its folder")
    if importlib.util.find_spec("wandb_workspaces") is None:
        warnings.warn("no Weights & Biases Report: pip install 'offline-robust[wandb]'", stacklevel=2)
        return ""
    try:
        return _publish(settings, folder, report, groups)
    except Exception as error:
        warn(error, "the report is in its folder")
        return ""


def _log_files(settings: WandbConfig, folder: Path, report: Report, name: str) -> None:
    import wandb

    learners = list(dict.fromkeys(learner for part in report.parts for learner in part.known.learners))
    about = {"algo": learners, "env_id": list(dict.fromkeys(part.env_id for part in report.parts))}
    run = begin(
        settings,
        folder,
        name=name[:_MAX_NAME],
        group=None,
        job_type="report",
        tags=[*version_tags(folder), *settings.tags],
        config=about | {"dataset": [part.name for part in report.parts]},
    )
    try:
        run.log({f"report/{key}": wandb.Table(dataframe=table) for key, table in tables(report).items()})
        figures = [f"figures/{path.name}" for path in sorted((folder / "figures").glob("*"))]
        files = {file: within(folder, file) for file in (*_FILES, *figures)}
        attach(run, f"report-{run.id}", "report", files)
    finally:
        run.finish()


def _publish(settings: WandbConfig, folder: Path, report: Report, groups: Sequence[str]) -> str:
    metrics = list(dict.fromkeys(key for part in report.parts for record in part.records for key in record.metrics))
    metrics = [key for key in metrics if key.startswith(("train/", "dual/"))]
    built = build_wandb_report(report, settings.project, "", groups, metrics)
    write_text(folder / "wandb-report.json", specification(built))
    if not online(settings):
        return ""
    import wandb

    entity = settings.entity or wandb.Api().default_entity
    saved = build_wandb_report(report, settings.project, entity, groups, metrics).save()
    return str(saved.url)


def evaluation_values(frame: pd.DataFrame) -> dict[str, float]:
    """Mean, IQM and CVaR 10 % of a results table's returns: nominal, over all conditions, under each perturbation."""
    values: dict[str, float] = {}
    groups = [("eval/all", frame)]
    if frame["nominal"].any():
        groups.append(("eval/nominal", frame[frame["nominal"]]))
    used: set[str] = set()
    for condition, own in frame[~frame["nominal"]].groupby("condition", sort=False):
        first = own.iloc[0]
        where = f"eval/perturb/{_key(str(first['perturbation']))}"
        key = f"{where}/{_level(str(first['level']), str(first['mode']))}"
        if key in used:  # the same level in another way, such as from another start
            key = f"{where}/{_key(str(condition))}"
        used.add(key)
        groups.append((key, own))
    for key, own in groups:
        returns = own["return"].to_numpy(np.float64)
        values |= {f"{key}/mean": float(returns.mean()), f"{key}/iqm": float(iqm(returns))}
        values[f"{key}/cvar10"] = float(cvar(returns))
    values["eval/worst_level"] = float(frame.groupby("condition")["return"].mean().min())
    return values


def condition_table(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per condition: what it perturbs, then mean, iqm, cvar10, and episodes."""
    rows = []
    for condition, own in frame.groupby("condition", sort=False):
        returns = own["return"].to_numpy(np.float64)
        first = own.iloc[0]
        row = {"condition": condition} | {name: first[name] for name in CONDITION_COLUMNS[1:]}
        row |= {"mean": returns.mean(), "iqm": float(iqm(returns)), "cvar10": float(cvar(returns))}
        rows.append(row | {"episodes": len(returns)})
    return pd.DataFrame(rows)


def _key(name: str) -> str:
    """A part of a metric's name: no slash of its own, nothing unprintable."""
    return "".join(c if c.isprintable() and c not in "/\\" else "_" for c in name)[:80]


def _level(levels: str, modes: str) -> str:
    texts, kinds = levels.split(";"), modes.split(";")
    parts = []
    for text, mode in zip(texts, kinds, strict=False):
        kind, _, schedule = mode.partition(" ")
        try:
            shown = level_text(float(text), kind).replace(" ", "")
        except ValueError:
            shown = text
        parts.append(f"{shown} {schedule}" if schedule else shown)
    return _key(";".join(parts))
