"""Who is best where: in sentences, in a table, and over trainings (profile, IQM, probability of improvement)."""

from __future__ import annotations

from offline_robust.evaluation.scores import ScoreReference
from offline_robust.reports.analysis import Analysis
from offline_robust.reports.blocks import Block, Heading, Para, Sheet, SheetCell
from offline_robust.reports.tables import Row, interval_cell, name_cell
from offline_robust.reports.text import clean, listed, number, scored, span

_NAMED = 5
"""Parameters that one sentence names; the table has all."""


def words(known: Analysis) -> list[str]:
    """Who is best at nominal, under which perturbation and by how much, and at the worst; none for one learner."""
    if len(known.learners) < 2:
        return []
    rows = _leading(known)
    at = {row["scope"]: row for row in rows}
    sentences = []
    if "nominal" in at:
        sentences.append(f"On the nominal system {_said(at['nominal'])}")
    groups: dict[str, list[Row]] = {}
    open_ones: list[Row] = []
    for row in rows:
        if row["scope"] == "parameter":
            if row["tied"]:
                open_ones.append(row)
            else:
                groups.setdefault(row["learner"], []).append(row)
    for learner, own in groups.items():
        shown = "; ".join(
            f"{clean(row['label'], 60)} by {number(row['difference'])} over {clean(row['next'], 60)} "
            f"({span(row['difference_low'], row['difference_high'])})"
            for row in own[:_NAMED]
        )
        sentences.append(f"{clean(learner, 60)} returns most under perturbed {shown}{_more(own)}.")
    if open_ones:
        shown = "; ".join(
            f"{clean(row['label'], 60)} (ahead {clean(row['learner'], 60)}, not told apart {_names(row['tied'])})"
            for row in open_ones[:_NAMED]
        )
        sentences.append(f"No single best learner under perturbed {shown}{_more(open_ones)}.")
    if known.perturbed:
        sentences.append(f"Over all conditions {_said(at['all'])}")
        sentences.append(f"At its worst condition {_said(at['worst'])}")
    return sentences


def standing_section(known: Analysis, score: ScoreReference | None) -> list[Block]:
    """The table of who is best where; none for one learner."""
    if len(known.learners) < 2:
        return []
    note = (
        "Best: the highest mean return over the conditions of the row, raw returns of the environment, with its 95 % "
        "interval. Lead: its difference from the next learner, paired by start state. Not told apart: learners whose "
        "difference from the best has an interval that holds zero. The best is chosen by the same numbers, which "
        "flatters its lead a little."
    )
    rows = [_row(known, row, score) for row in _leading(known)]
    classes = ["" if row["scope"] == "parameter" else "total" for row in _leading(known)]
    heads = ["Where", "Conditions", "Best", "Return", "Lead", "Over", "Not told apart"]
    return [Heading("Who is best where"), Sheet(heads, rows, classes), Para(note, "note")]


def _leading(known: Analysis) -> list[Row]:
    """Who leads where; one row where nothing was perturbed, for all conditions are the nominal one."""
    rows: list[Row] = [*known.leaders.to_dict("records")]
    return rows if known.perturbed else [row for row in rows if row["scope"] == "nominal"]


def trainings_section(known: Analysis, score: ScoreReference | None) -> list[Block]:
    """IQM over trainings x conditions and the probabilities of improvement."""
    iqms = {row["learner"]: row for row in known.iqms.to_dict("records")}
    chances = {(row["a"], row["b"]): row for row in known.improvement.to_dict("records")}
    several = len(known.learners) > 1
    heads = ["Learner", "Trainings", "IQM of trainings × conditions"]
    heads += [f"P(better than {clean(name, 40)})" for name in known.learners] if several else []
    rows: list[list[SheetCell | str]] = []
    for learner in known.learners:
        row: list[SheetCell | str] = [
            name_cell(known, learner),
            str(iqms[learner]["trainings"]),
            interval_cell(iqms[learner], score),
        ]
        if several:
            row += [_chance(chances.get((learner, other))) for other in known.learners]
        rows.append(row)
    note = (
        "A training's mean return under a condition is the unit here. IQM is the mean of the middle half of them. "
        "P(better) is the probability that a training of the row's learner returns more than one of the column's "
        "under the same condition, averaged over conditions (Mann-Whitney, ties half); 50 % says nothing either way, "
        "and an interval that holds 50 % does not tell the two apart. Each bootstrap draw takes whole trainings "
        "through all conditions, which are its strata."
    )
    return [Sheet(heads, rows), Para(note if several else note.split(" P(better)")[0], "note")]


def _row(known: Analysis, row: Row, score: ScoreReference | None) -> list[SheetCell | str]:
    where = {"nominal": "Nominal system", "all": "All conditions", "worst": "Worst condition"}
    label = where.get(row["scope"], clean(row["label"], 120))
    low, high = row["difference_low"], row["difference_high"]
    lead = (span(low, high, True), *scored(row["difference"], low, high, score, True))
    return [
        label,
        str(row["conditions"]),
        name_cell(known, row["learner"]),
        interval_cell(row, score),
        SheetCell(number(row["difference"], True) + (" ▲" if low > 0 else ""), lead),
        SheetCell(clean(row["next"], 60), long=True),
        SheetCell(_names(row["tied"], "–"), long=True),
    ]


def _said(row: Row) -> str:
    """After "at nominal": who returns most, and how surely."""
    ahead = (
        f"{clean(row['learner'], 60)} returns most, {number(row['value'])} ({span(row['low'], row['high'])}), "
        f"{number(row['difference'])} more than {clean(row['next'], 60)} "
        f"(95 % interval {span(row['difference_low'], row['difference_high'], True)})"
    )
    return f"{ahead}; not told apart from it: {_names(row['tied'])}." if row["tied"] else f"{ahead}."


def _chance(row: Row | None) -> SheetCell | str:
    if row is None:
        return "–"
    mark = " ▲" if row["low"] > 0.5 else " ▼" if row["high"] < 0.5 else ""
    return SheetCell(f"{100 * row['value']:.0f} %{mark}", (f"{100 * row['low']:.0f} to {100 * row['high']:.0f} %",))


def _names(names: tuple[str, ...], none: str = "") -> str:
    return listed([clean(name, 60) for name in names]) if names else none


def _more(rows: list[Row]) -> str:
    left = len(rows) - _NAMED
    return f"; and {left} more, in the table" if left > 0 else ""
