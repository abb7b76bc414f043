"""The report's tables of statistics: per learner, per parameter, by severity, per condition, and differences."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from offline_robust.evaluation.levels import QUARTILES, far, moving
from offline_robust.evaluation.scores import ScoreReference
from offline_robust.reports.analysis import Analysis
from offline_robust.reports.blocks import Block, Folded, Heading, Para, Sheet, SheetCell
from offline_robust.reports.canvas import colour
from offline_robust.reports.text import STATISTICS, clean, far_words, number, score_words, scored, span, statistics_of

Row = Mapping[Hashable, Any]

_LONG = 40
"""Rows above which a table of conditions is folded away."""


def statistics_section(known: Analysis, score: ScoreReference | None) -> list[Block]:
    """The statistics of every learner, then per parameter, by severity and per condition, where there are such."""
    note = (
        "Mean, IQM (mean of the middle half), 5th percentile and CVaR 10 % (mean of the lowest tenth) are taken over "
        "all episodes of all conditions. Worst level is the lowest mean return of any condition of the suite, which is "
        "named below it. Area under curve is the mean return over the swept range, by trapezoids, of parameters swept "
        "alone. Below each value its 95 % interval."
    )
    blocks: list[Block] = [Heading("Statistics per learner"), summary_sheet(known, score), Para(note, "note")]
    if score is not None:
        blocks.append(Para(score_words(score), "note"))
    return [*blocks, *_per_parameter(known, score), *_severity(known, score), *_by_level(known, score)]


def summary_sheet(known: Analysis, score: ScoreReference | None = None) -> Sheet:
    """A row per learner, a column per statistic."""
    summary, means = known.summary, known.means
    kept = statistics_of(known)
    rows: list[list[SheetCell | str]] = []
    for learner in known.learners:
        cells = {row["statistic"]: row for row in summary[summary["learner"] == learner].to_dict("records")}
        own = means[means["learner"] == learner]
        worst = str(own["condition"].iloc[int(own["value"].argmin())])
        shown = [interval_cell(cells[s], score, more=worst if s == "worst_level" else "") for s in kept]
        rows.append([name_cell(known, learner), str(cells[kept[0]]["trainings"]), *shown])
    return Sheet(["Learner", "Trainings", *(STATISTICS[name] for name in kept)], rows)


def differences_section(known: Analysis, baseline: str | None, score: ScoreReference | None) -> list[Block]:
    """Paired differences of mean returns, overall, far from nominal and per condition; none for a single learner."""
    learners = known.learners
    if len(learners) < 2:
        return []
    if baseline is None:
        pairs = [(learners[0], other) for other in learners[1:]]
    else:
        pairs = [(other, baseline) for other in learners if other != baseline]
    columns: list[list[Row]] = [[*known.compare(a, b).to_dict("records")] for a, b in pairs]
    names = {"overall": "All conditions", "nominal": "Nominal", "far": f"Far ({far_words(known)})"}
    names |= {"far below": "Far, below nominal only", "far above": "Far, above nominal only"}
    rows: list[list[SheetCell | str]] = []
    classes = []
    if not known.perturbed:  # all conditions, and each, are the nominal one
        columns = [[row for row in column if row["scope"] == "nominal"] for column in columns]
    for k, row in enumerate(columns[0]):
        label = names.get(row["scope"], row["condition"])
        rows.append([clean(label, 160), *(interval_cell(column[k], score, signed=True) for column in columns)])
        classes.append("total" if row["scope"] in names else "")
    heads = ["Condition", *(f"{clean(a, 40)} − {clean(b, 40)}" for a, b in pairs)]
    pairing = (
        "Episodes are paired by start state, trainings are independent"
        if all(column[0]["paired"] for column in columns)
        else "Episodes could not be paired everywhere: the learners were evaluated from different start states"
    )
    note = (
        f"{pairing}. ▲ the interval is above zero, ▼ below; without a mark it holds zero, and the data do not tell the "
        "two apart. The rows are not corrected for their number: of many rows, one in twenty is marked by chance alone."
    )
    shown = classes.count("total") if len(rows) > _LONG else len(rows)
    blocks: list[Block] = [Heading("Differences in mean return"), Sheet(heads, rows[:shown], classes)]
    if shown < len(rows):
        blocks.append(_folded(len(rows) - shown, Sheet(heads, rows[shown:])))
    return [*blocks, Para(note, "note")]


def interval_cell(row: Row, score: ScoreReference | None = None, signed: bool = False, more: str = "") -> SheetCell:
    """A cell: the value and, below it, its interval and score; a difference is marked where it excludes zero."""
    value, low, high = (float(row[key]) for key in ("difference" if signed else "value", "low", "high"))
    if not math.isfinite(value):
        return SheetCell("–")
    mark = (" ▲" if low > 0 else " ▼" if high < 0 else "") if signed else ""
    below = (span(low, high, signed), *scored(value, low, high, score, signed))
    return SheetCell(number(value, signed) + mark, below, where=more)


def name_cell(known: Analysis, learner: str) -> SheetCell:
    """A learner's name with its colour."""
    return SheetCell(clean(learner, 60), colour=colour(known.place(learner)))


def _per_parameter(known: Analysis, score: ScoreReference | None) -> list[Block]:
    found = known.parameters
    if found["parameter"].nunique() < 2:
        return []
    rows: list[list[SheetCell | str]] = []
    classes = []
    for (parameter, mode), group in found.groupby(["parameter", "mode"], sort=False):
        rows.append([clean(f"{parameter} ({mode})", 120), "", ""])
        classes.append("total")
        for learner, own in group.groupby("learner", sort=False):
            at = {row["statistic"]: row for row in own.to_dict("records")}
            worst = interval_cell(at["worst_level"], score, more=str(at["worst_level"]["condition"]))
            rows.append([name_cell(known, str(learner)), interval_cell(at["area"], score), worst])
            classes.append("")
    heads = ["Parameter", STATISTICS["area"], STATISTICS["worst_level"]]
    return [Heading("Per parameter", 3), Sheet(heads, rows, classes)]


def _severity(known: Analysis, score: ScoreReference | None) -> list[Block]:
    found = known.severity
    if found.empty:
        return []
    several = (found["parameter"] == "").any()
    names = [str(name) for name in found["parameter"].unique() if name]
    first = found[found["parameter"] == ""] if several else found
    blocks: list[Block] = [Heading("By severity", 3), _severity_sheet(known, first, score)]
    if several:
        each: list[Block] = []
        for name in names:
            each += [Heading(name, 4), _severity_sheet(known, found[found["parameter"] == name], score)]
        blocks.append(Folded("Each parameter alone", each))
    note = (
        f"Mean return over the conditions of each quartile of the distance from nominal, for the parameters that are "
        f"scaled by pairs 1 − d and 1 + d: {', '.join(names)}. Q1 holds the nearest quarter of the distances, "
        f"Q{QUARTILES} the farthest. A mean over both sides hides which way a policy fails, so both are given apart."
    )
    return [*blocks, Para(note, "note")]


def _severity_sheet(known: Analysis, found: pd.DataFrame, score: ScoreReference | None) -> Sheet:
    rows: list[list[SheetCell | str]] = []
    classes = []
    words = {"both": "Both sides", "below": "Below nominal", "above": "Above nominal"}
    quartiles = [*range(1, QUARTILES + 1), 0]
    for side, label in words.items():
        group = found[found["side"] == side]
        counts = dict(zip(group["quartile"], group["conditions"], strict=True))
        small = [SheetCell("", (f"{counts[q]} condition{'' if counts[q] == 1 else 's'}",)) for q in quartiles]
        rows.append([label, *small])
        classes.append("total")
        for learner, own in group.groupby("learner", sort=False):
            at = {row["quartile"]: row for row in own.to_dict("records")}
            rows.append([name_cell(known, str(learner)), *(interval_cell(at[q], score) for q in quartiles)])
            classes.append("")
    heads = ["Side", *(f"Q{q}" for q in quartiles[:-1]), "All four"]
    return Sheet(heads, rows, classes)


def _by_level(known: Analysis, score: ScoreReference | None) -> list[Block]:
    first = known.first
    conditions, distant = first.conditions, far(first.conditions, first.environment)
    moves = moving(conditions)
    by_label = {label: group.to_dict("records") for label, group in known.means.groupby("condition", sort=False)}
    rows: list[list[SheetCell | str]] = []
    classes = []
    for k, label in enumerate(conditions["condition"]):
        at = {row["learner"]: row for row in by_label[label]}
        kind = "nominal" if conditions["nominal"].iloc[k] else "moves" if moves[k] else "far" if distant[k] else ""
        cells = [interval_cell(at[name], score) if name in at else "–" for name in known.cubes]
        rows.append([clean(label, 160), kind, *cells])
        classes.append("total" if kind == "nominal" else "")
    body: Block = Sheet(["Condition", "", *(clean(name, 60) for name in known.cubes)], rows, classes)
    if len(rows) > _LONG:
        body = _folded(len(rows), body)
    blocks: list[Block] = [Heading("Mean return per condition", 3), body]
    if moves.any():
        note = (
            'The levels of conditions marked "moves" change inside an episode or from one to the next, between the '
            "first level named (nominal where none is) and the other; they are in no curve."
        )
        blocks.append(Para(note, "note"))
    return blocks


def _folded(count: int, body: Block) -> Folded:
    return Folded(f"All {count} conditions", [body])
