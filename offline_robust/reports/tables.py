"""The report's tables of statistics: per learner, per parameter, by severity, per condition, and differences."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from offline_robust.evaluation import by_severity, compare, per_condition, per_parameter, summarise
from offline_robust.evaluation.levels import QUARTILES, far, moving
from offline_robust.evaluation.results import Results
from offline_robust.evaluation.scores import ScoreReference
from offline_robust.evaluation.summary import cubes
from offline_robust.reports.figures import COLOURS
from offline_robust.reports.html import swatch, table, value_cell
from offline_robust.reports.text import STATISTICS, far_words, number, safe, score_words, scored, span

Row = Mapping[Hashable, Any]

_LONG = 40
"""Rows above which a table of conditions is folded away."""


def statistics_section(results: Results, score: ScoreReference | None) -> str:
    """The statistics of every learner, then per parameter, by severity and per condition, where there are such."""
    summary, means = summarise(results), per_condition(results)
    kept = [name for name in STATISTICS if not summary.loc[summary["statistic"] == name, "value"].isna().all()]
    rows = []
    for learner in results.learners:
        cells = {row["statistic"]: row for row in summary[summary["learner"] == learner].to_dict("records")}
        own = means[means["learner"] == learner]
        worst = str(own["condition"].iloc[int(own["value"].argmin())])
        shown = [interval_cell(cells[s], score, more=worst if s == "worst_level" else "") for s in kept]
        rows.append([_name(results, learner), str(cells[kept[0]]["trainings"]), *shown])
    heads = ["Learner", "Trainings", *(STATISTICS[name] for name in kept)]
    note = (
        "Mean, IQM (mean of the middle half), 5th percentile and CVaR 10 % (mean of the lowest tenth) are taken over "
        "all episodes of all conditions. Worst level is the lowest mean return of any condition of the suite, which is "
        "named below it. Area under curve is the mean return over the swept range, by trapezoids, of parameters swept "
        "alone. Below each value its 95 % interval."
    )
    parts = ["<h2>Statistics per learner</h2>", table(heads, rows), f'<p class="note">{note}</p>']
    if score is not None:
        parts.append(f'<p class="note">{safe(score_words(score), 1_000)}</p>')
    parts += [_per_parameter(results, score), _severity(results, score), _by_level(results, means, score)]
    return "".join(parts)


def differences_section(results: Results, baseline: str | None, score: ScoreReference | None) -> str:
    """Paired differences of mean returns, overall, far from nominal and per condition; "" for a single learner."""
    learners = results.learners
    if len(learners) < 2:
        return ""
    if baseline is None:
        pairs = [(learners[0], other) for other in learners[1:]]
    else:
        pairs = [(other, baseline) for other in learners if other != baseline]
    columns = [compare(results, a, b).to_dict("records") for a, b in pairs]
    names = {"overall": "All conditions", "nominal": "Nominal", "far": f"Far ({far_words(results)})"}
    names |= {"far below": "Far, below nominal only", "far above": "Far, above nominal only"}
    rows, classes = [], []
    for k, row in enumerate(columns[0]):
        label = names.get(row["scope"], row["condition"])
        rows.append([safe(label, 160), *(interval_cell(column[k], score, signed=True) for column in columns)])
        classes.append("total" if row["scope"] in names else "")
    heads = ["Condition", *(f"{safe(a, 40)} − {safe(b, 40)}" for a, b in pairs)]
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
    body = table(heads, rows[:shown], classes)
    if shown < len(rows):
        body += _folded(len(rows) - shown, table(heads, rows[shown:]))
    return f'<h2>Differences in mean return</h2>{body}<p class="note">{note}</p>'


def interval_cell(row: Row, score: ScoreReference | None = None, signed: bool = False, more: str = "") -> str:
    """A cell: the value and, below it, its interval and score; a difference is marked where it excludes zero."""
    value, low, high = (float(row[key]) for key in ("difference" if signed else "value", "low", "high"))
    if not math.isfinite(value):
        return "–"
    mark = (" ▲" if low > 0 else " ▼" if high < 0 else "") if signed else ""
    below = [span(low, high, signed), *scored(value, low, high, score, signed)]
    return value_cell(number(value, signed) + mark, *below, where=more)


def _per_parameter(results: Results, score: ScoreReference | None) -> str:
    found = per_parameter(results)
    if found["parameter"].nunique() < 2:
        return ""
    rows, classes = [], []
    for (parameter, mode), group in found.groupby(["parameter", "mode"], sort=False):
        rows.append([safe(f"{parameter} ({mode})", 120), "", ""])
        classes.append("total")
        for learner, own in group.groupby("learner", sort=False):
            at = {row["statistic"]: row for row in own.to_dict("records")}
            worst = interval_cell(at["worst_level"], score, more=str(at["worst_level"]["condition"]))
            rows.append([_name(results, str(learner)), interval_cell(at["area"], score), worst])
            classes.append("")
    heads = ["Parameter", STATISTICS["area"], STATISTICS["worst_level"]]
    return "<h3>Per parameter</h3>" + table(heads, rows, classes)


def _severity(results: Results, score: ScoreReference | None) -> str:
    found = by_severity(results)
    if found.empty:
        return ""
    several = (found["parameter"] == "").any()
    known = [name for name in found["parameter"].unique() if name]
    first = found[found["parameter"] == ""] if several else found
    parts = ["<h3>By severity</h3>", _severity_table(results, first, score)]
    if several:
        each = "".join(
            f"<h3>{safe(name)}</h3>" + _severity_table(results, found[found["parameter"] == name], score)
            for name in known
        )
        parts.append(f"<details><summary>Each parameter alone</summary>{each}</details>")
    note = (
        f"Mean return over the conditions of each quartile of the distance from nominal, for the parameters that are "
        f"scaled by pairs 1 − d and 1 + d: {', '.join(known)}. Q1 holds the nearest quarter of the distances, "
        f"Q{QUARTILES} the farthest. A mean over both sides hides which way a policy fails, so both are given apart."
    )
    return "".join(parts) + f'<p class="note">{safe(note, 1_000)}</p>'


def _severity_table(results: Results, found: pd.DataFrame, score: ScoreReference | None) -> str:
    rows, classes = [], []
    words = {"both": "Both sides", "below": "Below nominal", "above": "Above nominal"}
    quartiles = [*range(1, QUARTILES + 1), 0]
    for side, label in words.items():
        group = found[found["side"] == side]
        counts = dict(zip(group["quartile"], group["conditions"], strict=True))
        small = [f"<small>{counts[q]} condition{'' if counts[q] == 1 else 's'}</small>" for q in quartiles]
        rows.append([label, *small])
        classes.append("total")
        for learner, own in group.groupby("learner", sort=False):
            at = {row["quartile"]: row for row in own.to_dict("records")}
            rows.append([_name(results, str(learner)), *(interval_cell(at[q], score) for q in quartiles)])
            classes.append("")
    heads = ["Side", *(f"Q{q}" for q in quartiles[:-1]), "All four"]
    return table(heads, rows, classes)


def _by_level(results: Results, means: pd.DataFrame, score: ScoreReference | None) -> str:
    known = cubes(results)
    first = next(iter(known.values()))
    conditions, distant = first.conditions, far(first.conditions, first.env_id)
    moves = moving(conditions)
    by_label = {label: group.to_dict("records") for label, group in means.groupby("condition", sort=False)}
    rows, classes = [], []
    for k, label in enumerate(conditions["condition"]):
        at = {row["learner"]: row for row in by_label[label]}
        kind = "nominal" if conditions["nominal"].iloc[k] else "moves" if moves[k] else "far" if distant[k] else ""
        rows.append(
            [safe(label, 160), kind, *(interval_cell(at[name], score) if name in at else "–" for name in known)]
        )
        classes.append("total" if kind == "nominal" else "")
    heads = ["Condition", "", *(safe(name, 60) for name in known)]
    body = table(heads, rows, classes)
    body = _folded(len(rows), body) if len(rows) > _LONG else body
    note = (
        '<p class="note">The levels of conditions marked "moves" change inside an episode or from one to the next, '
        "between the first level named (nominal where none is) and the other; they are in no curve.</p>"
        if moves.any()
        else ""
    )
    return "<h3>Mean return per condition</h3>" + body + note


def _folded(count: int, body: str) -> str:
    return f"<details><summary>All {count} conditions</summary>{body}</details>"


def _name(results: Results, learner: str) -> str:
    return swatch(COLOURS[results.learners.index(learner) % len(COLOURS)]) + safe(learner, 60)
