"""Running a sweep: what is finished is kept, what was stopped goes on, what fails is told and loses nothing else."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from offline_robust.datasets.sources import locate
from offline_robust.environment import EnvironmentSpec
from offline_robust.errors import FULL, ConfigError, DatasetError, EvaluationError, FolderInUse
from offline_robust.evaluation import EvaluationRequest, Results, score_reference
from offline_robust.experiments.config import WandbConfig
from offline_robust.experiments.labels import distinct_labels_of
from offline_robust.experiments.reporting import save_report
from offline_robust.experiments.run import load_run
from offline_robust.experiments.tracking import check_wandb
from offline_robust.files import write_json, write_text
from offline_robust.locks import writing
from offline_robust.plain_yaml import dump_yaml
from offline_robust.reports.trained_on import data_names, data_of, different_data
from offline_robust.sweeps.comparison import environment_of
from offline_robust.sweeps.engines import Engine, Load, cores, elsewhere, engine
from offline_robust.sweeps.grids import Cell, SweepConfig
from offline_robust.sweeps.worker import IN_HAND, is_finished, last_lines, prepare, refuse_another
from offline_robust.untrusted import Unreadable, parse_json, within

RUNS, INDEX, SWEEP = "runs", "cells.json", "sweep.yaml"
AGENT = "WANDB_SWEEP_ID"
"""What a W&B agent sets in the environment of its commands."""

_TAIL = 4_096
_NO_REPORT = "no report: "


@dataclass
class CellState:
    """How far one run is.

    Attributes:
        cell: what it is.
        folder: where it is.
        state: ``new``, ``begun`` (there is something to go on from), ``running``, ``finished`` or ``failed``.
        done, total: updates, or conditions of the evaluation.
        phase: ``model``, ``train`` or ``evaluate``.
        said: the last lines of a failed run's log.
    """

    cell: Cell
    folder: Path
    state: str
    done: int = 0
    total: int = 0
    phase: str = ""
    said: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Its line of ``cells.json``."""
        facts: dict[str, Any] = {
            "name": self.cell.name,
            "state": self.state,
            "learner": self.cell.config.learner.name,
            "dataset": self.cell.config.dataset,
            "seed": self.cell.config.seed,
            "overrides": dict(self.cell.overrides),
            "folder": f"{RUNS}/{self.cell.name}",
        }
        return facts | ({"error": self.said} if self.said else {})


SweepProgress = Callable[[Sequence[CellState]], None]


@dataclass(frozen=True)
class SweepOutcome:
    """What came of a sweep.

    Attributes:
        out: its folder.
        states: of all its cells.
        results: the table of all that is evaluated, or None where nothing is.
        report: the path of its page, or None where there is none.
        notes: what the reader should know, in words.
    """

    out: Path
    states: tuple[CellState, ...]
    results: Results | None
    report: Path | None
    notes: tuple[str, ...]

    @property
    def unreported(self) -> bool:
        """Whether the finished runs could not be put into one report; `notes` say why."""
        return any(note.startswith(_NO_REPORT) for note in self.notes)

    @property
    def failed(self) -> list[CellState]:
        """The cells that failed."""
        return [state for state in self.states if state.state == "failed"]


def look(cells: Sequence[Cell], out: Path) -> list[CellState]:
    """What is there already. Nothing is written.

    Raises:
        ConfigError: a folder holds a run of another configuration.
    """
    states = []
    for cell in cells:
        folder = out / RUNS / cell.name
        refuse_another(folder, cell.config)
        begun = "begun" if (folder / "config.yaml").is_file() else "new"
        states.append(CellState(cell, folder, "finished" if is_finished(folder, cell.config) else begun))
    return states


def load_of(cells: Sequence[Cell], jobs: int | None, engine_name: str = "local") -> Load:
    """How many runs at once, and what each needs.

    As many as there are cores for, one where they would share a GPU; all of them where a Ray cluster has its own ways.
    """
    threads = max(cell.config.training.threads for cell in cells)
    gpus = int(any(cell.config.training.device != "cpu" for cell in cells))
    if jobs is None and engine_name == "ray" and elsewhere():
        jobs = len(cells)
    return Load(jobs or (1 if gpus else max(1, cores() // threads)), threads, gpus)


def run_sweep(
    sweep: SweepConfig,
    cells: Sequence[Cell],
    out: Path,
    *,
    chosen: Sequence[Cell] | None = None,
    engine_name: str = "local",
    jobs: int | None = None,
    progress: SweepProgress | None = None,
    command: str = "",
    score: str | None = None,
    download: bool = False,
) -> SweepOutcome:
    """Trains and evaluates the cells that are not finished, then writes the table and the report of all that are.

    Args:
        sweep: what the cells come from; kept as ``sweep.yaml``.
        cells: all of its cells.
        out: the folder; each cell's own lies in ``runs`` below it.
        chosen: those to run now; all by default.
        engine_name: ``local`` or ``ray``; the results are the same.
        jobs: runs at once; by default what `load_of` says.
        progress: told a few times a second.
        command: what reproduces the report.
        score: the name of a score reference that the report shows beside returns.
        download: whether Minari datasets that are not here may be downloaded.

    Raises:
        ConfigError: unknown engine, a folder that cannot be written, or one that holds other runs.
        EvaluationError: there is no such suite.
        MissingExtra: Ray is asked for and not installed.
    """
    work: Engine = engine(engine_name)
    check_evaluation(cells, score)
    for dataset in dict.fromkeys(cell.config.dataset for cell in cells):
        locate(dataset, download)  # what is missing is refused here, and what is downloaded is downloaded once
    out = out.resolve()
    states = look(cells, out)
    names = {cell.name for cell in (cells if chosen is None else chosen)}
    todo = [state for state in states if state.cell.name in names and state.state != "finished"]
    _open(out, sweep, todo)
    by_folder = {state.folder: state for state in todo}
    try:
        if todo:
            load = load_of([state.cell for state in todo], jobs, engine_name)
            with contextlib.closing(work(list(by_folder), load)) as events:
                for happened in events:
                    for folder, status in happened:
                        _happened(by_folder[folder], status)
                    if happened:
                        write_index(out, states)
                    if progress is not None:
                        _measure(todo)
                        progress(states)
    finally:
        for state in todo:
            if state.state == "running":  # stopped from the keyboard
                state.state = "begun"
        write_index(out, states)
    with writing(out, wait=True):
        # Another process may have finished other cells of this folder meanwhile, or those it had in hand; and where it
        # was another sweep, what stands in the end is all of one.
        write_text(out / SWEEP, dump_yaml(sweep.to_dict()))
        states = [state if state.state == "failed" else look([state.cell], out)[0] for state in states]
        write_index(out, states)
        results, report, notes = summarise_sweep(out, states, sweep, command, score)
    left = [state.cell.name for state in states if state.folder in by_folder and state.state in ("new", "begun")]
    if left:
        notes.append(f"left to the process that has them in hand: {', '.join(left)[:300]}")
    return SweepOutcome(out, tuple(states), results, report, tuple(notes))


def check_evaluation(cells: Sequence[Cell], score: str | None = None) -> None:
    """Refuses what cannot be evaluated or logged before anything long starts, wherever that is known by then.

    Raises:
        ConfigError, MissingExtra: see `check_wandb`.
        EvaluationError: no such suite, environment or score reference, or they do not fit each other.
    """
    seen = set()
    for config in (cell.config for cell in cells):
        check_wandb(config.wandb)
        environment = config.environment.on(_environment(config.dataset))
        key = repr((environment, config.evaluation.suite))
        if key in seen:
            continue
        seen.add(key)
        EvaluationRequest(config.evaluation.suite).check(environment)
        if score is not None and environment is not None:
            score_reference(score, str(environment))


@lru_cache(maxsize=64)
def _environment(dataset: str) -> EnvironmentSpec | None:
    """What the data say; None where they cannot be read, which the cell will tell."""
    try:
        return environment_of(dataset)
    except DatasetError:
        return None


def write_index(out: Path, states: Sequence[CellState]) -> None:
    """Writes ``cells.json``: every cell and how far it is."""
    write_json(out / INDEX, {"format": 1, "cells": [state.to_dict() for state in states]})


def summarise_sweep(
    out: Path, states: Sequence[CellState], sweep: SweepConfig, command: str = "", score: str | None = None
) -> tuple[Results | None, Path | None, list[str]]:
    """One table of all finished cells, ``results.csv``, and one report.

    Returns:
        The table (None where nothing is evaluated), the report, and notes.
    """
    finished = [state for state in states if state.state == "finished"]
    notes = _data_notes(finished)
    labels = _labels([state.cell for state in states])
    evaluated = [state for state in finished if within(state.folder, "results.csv").is_file()]
    runs = [load_run(state.folder) for state in evaluated]
    names = data_names([data_of(run.meta, run.config.dataset) for run in runs], pool=False)
    tables = []
    for state, name in zip(evaluated, names, strict=True):
        table, label = Results.read(state.folder / "results.csv"), labels[state.cell.name]
        label += "" if name == state.cell.config.dataset else f" dataset={name}"  # not what others of that name are
        tables.append(Results(table.frame.assign(learner=label), table.meta))
    if not tables:
        return None, None, notes
    results = _together(tables)
    results.meta["datasets"] = dict(zip((run.name for run in runs), names, strict=True))
    if len(tables) < len(states):
        notes.append(f"the table and the report hold {len(tables)} of {len(states)} runs")
    results.save(out / "results.csv")
    wandb = states[0].cell.config.wandb
    if AGENT in os.environ:
        # A W&B agent's own run is the cell's: the report must not be logged into it, and more cells will come.
        if len(tables) < len(states):
            return results, None, notes
        wandb = WandbConfig()
    try:
        return results, save_report(out, results, runs, command, sweep.title, score, wandb), notes
    except EvaluationError as error:
        return results, None, [*notes, f"{_NO_REPORT}{error}"]


def _labels(cells: Sequence[Cell]) -> dict[str, str]:
    """What every cell's learner is called: the report tells learners apart on one dataset, and datasets by itself."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.config.dataset, []).append(cell)
    found: dict[str, str] = {}
    for group in groups.values():
        labels = distinct_labels_of([cell.config for cell in group])
        found |= {cell.name: label for cell, label in zip(group, labels, strict=True)}
    return found


def _open(out: Path, sweep: SweepConfig, todo: Sequence[CellState]) -> None:
    """Makes the folder, and those of the runs to be done."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / SWEEP, dump_yaml(sweep.to_dict()))
        for state in todo:
            within(out, f"{RUNS}/{state.cell.name}")
            state.folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FolderInUse):  # who has it in hand has prepared it
                prepare(state.folder, state.cell.config)
    except Unreadable:
        raise
    except OSError as error:
        if error.errno in FULL:
            raise
        raise ConfigError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None


def _happened(state: CellState, status: int | None) -> None:
    if status is None:
        state.state = "running"
    elif status == 0 and is_finished(state.folder, state.cell.config):
        state.state = "finished"
    elif status == IN_HAND:
        state.state = "begun"
    else:
        state.state = "failed"
        state.said = last_lines(state.folder)
        if status == 0:
            state.said = ["done as another process of this folder asked meanwhile; start this sweep again"]
        elif status < 0 or not state.said:
            ended = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            state.said.append(f"its process {ended}")


def _measure(states: Sequence[CellState]) -> None:
    """Reads off the folders how far the running cells are."""
    for state in states:
        if state.state == "running":
            training = state.cell.config.training
            state.total = training.steps + training.model_steps
            state.phase, state.done = _last_step(state.folder / "metrics.jsonl")
            if state.done >= state.total and (state.folder / "policy.safetensors").is_file():
                state.phase = "evaluate"


def _last_step(path: Path) -> tuple[str, int]:
    try:
        with within(path.parent, path.name).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().splitlines()
    except OSError:
        return "", 0
    for line in reversed(lines):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            content = parse_json(line)
            return str(content["phase"]), int(content["step"])
    return "", 0


def _together(parts: Sequence[Results]) -> Results:
    """One table; what was evaluated alike is described once."""
    joined = Results.concat(parts)
    described = joined.meta.get("parts")
    if not isinstance(described, list):
        return joined
    distinct = {json.dumps(part, sort_keys=True, default=str): part for part in described}
    return Results(joined.frame, {**joined.meta, "parts": list(distinct.values())})


def _data_notes(states: Sequence[CellState]) -> list[str]:
    """Says so where cells of one dataset's name were trained on different data."""
    return different_data([data_of(load_run(state.folder).meta, state.cell.config.dataset) for state in states])
