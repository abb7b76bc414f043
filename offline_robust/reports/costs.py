"""What the trainings cost: updates per second, minutes, memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from offline_robust.reports.analysis import Analysis
from offline_robust.reports.blocks import Block, Heading, Para, Sheet, SheetCell
from offline_robust.reports.records import RunRecord, numbers
from offline_robust.reports.tables import name_cell
from offline_robust.reports.text import number, span

COSTS = {"updates_per_s": "Updates/s", "training_minutes": "Minutes", "peak_memory_mib": "Peak memory, MiB"}
"""Keys of meta.json and their column heads; memory is that of the whole process at its largest."""


def cost_data(records: Sequence[RunRecord]) -> pd.DataFrame:
    """A row per run: run, learner, seed, steps, and the keys of `COSTS`; NaN where meta.json is silent."""
    rows = []
    for record in records:
        row: dict[str, object] = {"run": record.name, "learner": record.learner, "seed": record.meta.get("seed")}
        row["steps"] = max((steps[-1] for steps, _ in record.metrics.values() if len(steps)), default=math.nan)
        rows.append(row | {key: next(iter(numbers(record.meta.get(key))), math.nan) for key in COSTS})
    return pd.DataFrame(rows, columns=["run", "learner", "seed", "steps", *COSTS])


def cost_section(known: Analysis, records: Sequence[RunRecord], level: int = 2) -> list[Block]:
    """Mean over a learner's runs and their range; nothing where no run says anything."""
    table = cost_data(records)
    kept = [key for key in COSTS if table[key].notna().any()]
    if not kept:
        return []
    rows: list[list[SheetCell | str]] = []
    for learner, own in table.groupby("learner", sort=False):
        cells = [_cell(own[key].dropna()) for key in kept]
        steps = own["steps"].dropna()
        count = f"{steps.max():,.0f}" if len(steps) else "–"
        rows.append([name_cell(known, str(learner)), str(len(own)), count, *cells])
    note = (
        "Means over a learner's runs, with their range below. Minutes are those of the training loop over all "
        "processes that worked on a run, without evaluation; runs that shared a machine slow each other down."
    )
    heads = ["Learner", "Runs", "Updates", *(COSTS[key] for key in kept)]
    return [Heading("Training cost", level), Sheet(heads, rows), Para(note, "note")]


def _cell(values: pd.Series[float]) -> SheetCell:
    if values.empty:
        return SheetCell("–")
    low, high = float(values.min()), float(values.max())
    return SheetCell(number(float(values.mean())), (span(low, high),) if len(values) > 1 else ())
