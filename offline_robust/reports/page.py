"""The report: what it says and in which order; and one HTML file that asks nothing of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack

from offline_robust.errors import EvaluationError, nearest
from offline_robust.evaluation.results import Results
from offline_robust.evaluation.scores import ScoreReference
from offline_robust.files import write_text
from offline_robust.reports import html
from offline_robust.reports.analysis import Analysis
from offline_robust.reports.blocks import Block, Box, Code, Folded, Heading, Para, Picture, Sheet, pictures
from offline_robust.reports.costs import cost_section
from offline_robust.reports.overview import overview
from offline_robust.reports.parts import ReportPart, split
from offline_robust.reports.pictures import profile_picture, return_pictures, training_pictures
from offline_robust.reports.records import RunRecord
from offline_robust.reports.setup import model_section, setup_section
from offline_robust.reports.standing import standing_section, trainings_section, words
from offline_robust.reports.tables import differences_section, statistics_section
from offline_robust.reports.text import cautions, clean, headline
from offline_robust.reports.trained_on import data_of, different_data

_NAMED = 5
"""Tables beside the latest that the page names."""

Scores = ScoreReference | Mapping[str, ScoreReference] | None
"""A reference, or one for each environment by its id."""


MAX_LEARNERS, MAX_PARAMETERS, MAX_MEANS = 100, 100, 10_000
"""Learners, sets of perturbed parameters, and means (of a learner under a condition) of one report, in all."""


@dataclass(frozen=True)
class Report:
    """A report before it is written in any format.

    Attributes:
        heading: its title.
        blocks: what it says, in order.
        parts: the environments or datasets it is about, with their statistics.
    """

    heading: str
    blocks: list[Block]
    parts: list[ReportPart]


class ReportOptions(TypedDict, total=False):
    """What a report says besides the results; every option may be left out."""

    title: str
    """Of the page."""
    command: str
    """What reproduces the report, printed as it stands."""
    baseline: str | None
    """The learner the others are compared with; by default the first learner is compared with each other."""
    score: Scores
    """Shown behind every return of the tables, or one for each environment; none by default."""
    datasets: Mapping[str, str] | None
    """The dataset of each run by name; by default what the results and the records say."""


def write_report(
    path: str | Path, results: Results, records: Sequence[RunRecord] = (), **options: Unpack[ReportOptions]
) -> None:
    """Writes a self-contained HTML report, atomically; arguments and errors as for `build_report`."""
    report = build_report(results, records, **options)
    write_text(path, html.page(report.heading, report.blocks))


def build_report(results: Results, records: Sequence[RunRecord] = (), **options: Unpack[ReportOptions]) -> Report:
    """The report as blocks, for any format.

    Args:
        results: one or several learners. The first learner is the one the report is about. Several environments, or
            several datasets that the same learners were trained on, get a section each; inside one, all must have been
            evaluated under the same conditions.
        records: the runs behind the results, for learning curves, costs, diagnostics and set-up.
        options: see `ReportOptions`.

    Raises:
        EvaluationError: the results were not all evaluated alike, or there is no such baseline.
    """
    baseline, score, command = options.get("baseline"), options.get("score"), options.get("command", "")
    if baseline is not None and baseline not in results.learners:
        raise EvaluationError(f"no learner {baseline!r} in the results{nearest(baseline, results.learners)}")
    _check_size(results)
    parts = split(results, records, options.get("datasets"))
    envs = list(dict.fromkeys(part.env_id for part in parts))
    where = envs[0] if len(envs) == 1 else f"{len(envs)} environments"
    heading = clean(options.get("title", "")) or f"{', '.join(results.learners[:3])} in {where}, {_system(parts)}"
    scores = dict.fromkeys(envs, score) if isinstance(score, ScoreReference) else dict(score or {})
    blocks: list[Block] = [Heading(heading, 1), *_latest(results)]
    mixed = different_data([data_of(record.meta) for part in parts for record in part.records])
    blocks += [Box("caution", [clean(said, 500) for said in mixed])] if mixed else []
    if len(parts) == 1:
        (part,) = parts
        blocks += [*_opening(part), *_body(part, baseline, scores.get(part.env_id), command)]
    else:
        blocks += overview(parts, scores, command)
        for part in parts:
            own = baseline if baseline in part.known.learners else None
            body = [*_opening(part), *_body(part, own, scores.get(part.env_id), command)]
            blocks += [Heading(part.name, 2, part.key), *_deeper(body)]
    everyone = tuple(record for part in parts for record in part.records)
    blocks += [*model_section(everyone), *setup_section(results, everyone)]
    blocks += [*_reproduce(command, everyone, pictures(blocks)), *_method(results, [part.known for part in parts])]
    return Report(heading, blocks, parts)


def _check_size(results: Results) -> None:
    """Refuses what would be drawn for hours: every learner is compared with others, every parameter has its panels."""
    for most, what, columns in (
        (MAX_LEARNERS, "learners (counted in each environment)", ["env_id", "learner"]),
        (MAX_PARAMETERS, "sets of perturbed parameters", ["env_id", "perturbation"]),
        (MAX_MEANS, "means of a learner under a condition", ["env_id", "learner", "condition"]),
    ):
        if (count := len(results.frame[columns].drop_duplicates())) > most:
            raise EvaluationError(
                f"a report holds at most {most:,} {what}, these results have {count:,}: compare fewer (the table is "
                "whole)"
            )


def _system(parts: Sequence[ReportPart]) -> str:
    """What was evaluated, for the title."""
    return "perturbed" if any(part.known.perturbed for part in parts) else "on the nominal system"


def _latest(results: Results) -> list[Block]:
    """Says so where the folder keeps tables of other questions."""
    kept = results.meta.get("earlier")
    names = [clean(name, 120) for name in kept] if isinstance(kept, list) else []
    if not names:
        return []
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [
        Para(
            f"This is the latest evaluation in its folder. Kept beside it: {', '.join(names[:_NAMED])}{more}; "
            "offline-robust report makes the page of any of them.",
            "note",
        )
    ]


def _opening(part: ReportPart) -> list[Block]:
    known = part.known
    trainings = sorted({len(cube.trainings) for cube in known.cubes.values()})
    counts = "–".join(str(n) for n in dict.fromkeys((trainings[0], trainings[-1])))
    conditions, episodes = known.first.returns.shape[1:]
    facts = (
        f"{part.env_id} · {len(known.cubes)} learner{_s(len(known.cubes))}, {counts} training{_s(trainings[-1])} each "
        f"· {conditions} condition{_s(conditions)} × {episodes} episode{_s(episodes)} per training · "
        f"suite {clean(known.results.meta.get('suite', 'unknown'))}"
    )
    short, *each = headline(known)
    said = words(known)
    few = len(each) <= 1
    blocks: list[Block] = [Para(facts, "facts"), Box("finding", [short, *(each if few else []), *said])]
    if not few:
        blocks.append(Folded(f"{clean(known.learners[0], 60)} against each other learner", [Para(t) for t in each]))
    warnings = cautions(known)
    return [*blocks, Box("caution", warnings)] if warnings else blocks


def _body(part: ReportPart, baseline: str | None, score: ScoreReference | None, command: str) -> list[Block]:
    known = part.known
    blocks = standing_section(known, score)
    shown = return_pictures(part, command)
    if shown:
        blocks += [Heading("Return under perturbation"), *shown]
    blocks += [Heading("Over trainings"), profile_picture(part, command), *trainings_section(known, score)]
    blocks += statistics_section(known, score) + differences_section(known, baseline, score)
    training = training_pictures(part)
    if training:
        blocks.append(Heading("Training"))
        for picture in training:
            blocks += [Heading(picture.title, 3), picture]
    return blocks + cost_section(known, part.records, 3 if training else 2)


def _deeper(blocks: Sequence[Block]) -> list[Block]:
    """The same blocks one level of headings below."""
    found: list[Block] = []
    for block in blocks:
        if isinstance(block, Heading):
            found.append(replace(block, level=min(block.level + 1, 5)))
        elif isinstance(block, Folded):
            found.append(replace(block, blocks=_deeper(block.blocks)))
        else:
            found.append(block)
    return found


def _reproduce(command: str, records: Sequence[RunRecord], shown: Sequence[Picture]) -> list[Block]:
    commands = [command, *(str(record.meta.get("command", "")) for record in records)]
    lines = list(dict.fromkeys(clean(line, 2_000) for line in commands if line.strip()))
    if not lines:
        return []
    blocks: list[Block] = [Heading("Reproduce"), Code("\n".join(lines))]
    rows = [[picture.title, picture.key, picture.command] for picture in shown if picture.command]
    if rows:
        blocks.append(
            Folded("Which command makes which figure", [Sheet(["Figure", "File", "Command"], rows, (), "words")])
        )
    return blocks


def _method(results: Results, known: Sequence[Analysis]) -> list[Block]:
    meta = results.meta
    shared = all(cube.shared for own in known for cube in own.cubes.values())
    start = (
        "Episode k starts in the same state for every training and under every condition, so one resample of start "
        "states serves them all."
        if shared
        else "The trainings were evaluated from different start states, so episodes are resampled in each on its own."
    )
    first = (
        "All numbers are undiscounted returns of the deterministic policy, the "
        f"{clean(meta.get('checkpoint', 'last'))} checkpoint of each training, in the environment's own reward, not "
        "normalised. Intervals are 95 % percentile intervals of 2,000 bootstrap draws. Each draw resamples trainings "
        f"with replacement, then start states with replacement; conditions are fixed. {start}"
    )
    second = (
        "Episodes of one policy are never counted as independent trainings. With one training the interval covers "
        "the choice of start states only and says nothing about training again; with two it covers the truth about "
        "half the time where trainings differ, with five about 85 %. Conditions are called far when they lie at least "
        "60 % of the way from nominal to the last level on their side."
    )
    return [Heading("How the intervals are made"), Para(first), Para(second)]


def _s(count: int) -> str:
    return "" if count == 1 else "s"
