"""The top of a report over several environments or datasets: who is best in each, and scores over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from offline_robust.evaluation.ranking import across
from offline_robust.evaluation.scores import ScoreReference
from offline_robust.reports.analysis import Analysis
from offline_robust.reports.blocks import Block, Box, Heading, Links, Para, Picture, Sheet, SheetCell
from offline_robust.reports.curves import draw_profiles
from offline_robust.reports.parts import ReportPart
from offline_robust.reports.tables import interval_cell, name_cell
from offline_robust.reports.text import clean, headline, number, score_words


def overview(parts: Sequence[ReportPart], scores: Mapping[str, ScoreReference], command: str) -> list[Block]:
    """Findings, a table of raw returns, and, where every environment has a named reference, scores over all parts.

    Args:
        parts: two or more.
        scores: references by environment.
        command: what made the report.
    """
    learners = list(dict.fromkeys(name for part in parts for name in part.known.learners))
    facts = f"{len(parts)} parts: {', '.join(clean(part.name, 60) for part in parts)} · {len(learners)} learners"
    findings = [f"{clean(part.name, 80)}: {headline(part.known)[0]}" for part in parts]
    blocks: list[Block] = [
        Para(facts, "facts"),
        Box("finding", findings),
        Links([(part.name, part.key) for part in parts]),
        Heading("All parts side by side"),
        _returns(learners, parts),
        Para(
            "Mean return over all conditions of the part's suite, raw returns of its environment, with the 95 % "
            "interval and the return on the nominal system below. Returns of different environments have nothing in "
            "common and are never averaged.",
            "note",
        ),
    ]
    if all(part.env_id in scores for part in parts):
        blocks += _scores(parts, learners, scores, command)
    return blocks


def _returns(learners: Sequence[str], parts: Sequence[ReportPart]) -> Sheet:
    rows: list[list[SheetCell | str]] = []
    for learner in learners:
        row: list[SheetCell | str] = [name_cell(_whole(parts, learners), learner)]
        for part in parts:
            own = part.known.summary[part.known.summary["learner"] == learner]
            at = {cell["statistic"]: cell for cell in own.to_dict("records")}
            if not at:
                row.append("–")
                continue
            cell = interval_cell(at["mean"])
            nominal = f"nominal {number(float(at['nominal']['value']))}"
            row.append(SheetCell(cell.text, (*cell.below, nominal)))
        rows.append(row)
    return Sheet(["Learner", *(part.name for part in parts)], rows)


def _scores(
    parts: Sequence[ReportPart], learners: Sequence[str], scores: Mapping[str, ScoreReference], command: str
) -> list[Block]:
    known = _whole(parts, learners)
    table, curves = across(
        {part.name: part.known.results for part in parts}, {part.name: scores[part.env_id] for part in parts}
    )
    if table.empty:
        return []
    rows: list[list[SheetCell | str]] = []
    for learner, own in table.groupby("learner", sort=False):
        at = {row["statistic"]: row for row in own.to_dict("records")}
        cells = [interval_cell(at["nominal"]) if "nominal" in at else SheetCell("–"), interval_cell(at["suite"])]
        rows.append([name_cell(known, str(learner)), str(at["suite"]["trainings"]), *cells])
    named = " and ".join(dict.fromkeys(f"'{scores[part.env_id].name}'" for part in parts))
    caption = (
        "The share of trainings × conditions whose score exceeds τ, averaged over parts, with pointwise 95 % bands. "
        f"Scores are on the scale of {named}."
    )
    figure = draw_profiles(curves, known, f"score {named} above τ")
    note = (
        "IQM over parts × trainings of the score on the nominal system and of the mean score over the suite. Every "
        "part counts the same, and its trainings are resampled on their own. Learners that a part lacks are left out."
    )
    references = [score_words(scores[env]) for env in dict.fromkeys(part.env_id for part in parts)]
    return [
        Heading(f"Scores over all parts, reference {named}"),
        Sheet(["Learner", "Trainings", "IQM, nominal", "IQM, suite"], rows),
        Para(note, "note"),
        Picture("all-profile", "Performance profile over all parts", caption, figure, curves, command=command),
        *(Para(text, "note") for text in references),
    ]


def _whole(parts: Sequence[ReportPart], learners: Sequence[str]) -> Analysis:
    """For the places, and so the colours, of all learners."""
    return Analysis(parts[0].known.results, tuple(learners))
