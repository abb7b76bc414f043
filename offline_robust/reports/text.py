"""Numbers and sentences for people."""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Hashable, Mapping
from typing import Any

from offline_robust.evaluation.levels import far, nominal_level, sides, sweeps
from offline_robust.evaluation.results import Results
from offline_robust.evaluation.scores import ScoreReference
from offline_robust.reports.analysis import Analysis

STATISTICS = {
    "nominal": "Nominal",
    "mean": "Mean",
    "iqm": "IQM",
    "p5": "5th percentile",
    "cvar10": "CVaR 10 %",
    "worst_level": "Worst level",
    "area": "Area under curve",
}
"""Column heads of the statistics of `evaluation.statistics.describe`."""

_FEW = 4
"""Parameters whose far levels a sentence can name."""


def clean(text: object, limit: int = 200) -> str:
    """Text that any file format takes: no control characters, no broken Unicode, not endless."""
    sound = str(text).encode("utf-8", "replace").decode("utf-8")
    kept = "".join(c for c in sound if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs", "Cf"))
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


def safe(text: object, limit: int = 200) -> str:
    """`clean` text, escaped for HTML: names of runs and learners come from outside."""
    return html.escape(clean(text, limit), quote=True)


def number(value: float, signed: bool = False, size: float | None = None) -> str:
    """Three or four significant digits with a true minus sign; a dash for a missing number.

    Decimals follow ``size`` where given, so that the two ends of an interval look alike.
    """
    if not math.isfinite(value):
        return "–"
    size = abs(value) if size is None or not math.isfinite(size) else size
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    text = f"{abs(value):,.{digits}f}"
    if not any(c in "123456789" for c in text):
        # An interval's end must not seem to touch zero because its other end is large.
        return text if value == 0.0 or size == abs(value) else number(value, signed)
    return ("−" if value < 0 else "+" if signed else "") + text


def span(low: float, high: float, signed: bool = False) -> str:
    """An interval in words: "−320 to −280"."""
    size = max(abs(low), abs(high))
    return f"{number(low, signed, size)} to {number(high, signed, size)}"


def scored(
    value: float, low: float, high: float, score: ScoreReference | None, difference: bool = False
) -> tuple[str, ...]:
    """A value and its interval on the scale of a reference, in words; nothing where no reference is named."""
    if score is None or not math.isfinite(value):
        return ()
    to = score.spread if difference else score.score
    value, low, high = (float(to(end)) for end in (value, low, high))
    return f"score {number(value, difference)}", span(low, high, difference)


def score_words(score: ScoreReference) -> str:
    """What a score means, where its reference comes from and what to know of it."""
    note = f" {score.note[0].upper()}{score.note[1:]}." if score.note else ""
    return (
        f"Scores are on the scale of reference '{score.name}' for {score.env_id}, 0 at a return of {score.low:.10g} "
        f"and 100 at {score.high:.10g}: {score.source}. Differences are scaled, not shifted.{note}"
    )


def headline(results: Results | Analysis) -> list[str]:
    """The main finding in plain sentences, the shortest first; then one with the numbers per other learner.

    The first learner is compared with every other one, far from nominal and at nominal. One learner alone gets its
    return at nominal, far from it, and at its worst.
    """
    known = Analysis.of(results)
    learners = known.learners
    if len(learners) == 1:
        return [_alone(known)]
    means = _mean_by_scope(known)
    return [_in_short(known), *(_against(known, means, learners[0], other) for other in learners[1:])]


def cautions(results: Results | Analysis) -> list[str]:
    """What a reader must know before believing the intervals."""
    found = []
    counts = {name: len(cube.trainings) for name, cube in Analysis.of(results).cubes.items()}
    few = min(counts.values())
    if few == 1:
        found.append(
            "At least one learner has a single training. Its intervals cover the choice of start states only: they "
            "describe that one policy, and training again may give another one."
        )
    elif few < 5:
        found.append(
            f"At least one learner has only {few} trainings. Intervals from so few are too narrow: with two they cover "
            "the truth about half the time where trainings differ, with five about 85 % of the time, not 95 %."
        )
    return found


def far_words(results: Results | Analysis) -> str:
    """Which levels the report calls far: "length x0.7 and below, x1.3 and above"."""
    cube = Analysis.of(results).first
    mask = far(cube.conditions, cube.environment)
    known = sweeps(cube.conditions, cube.environment)
    if len(known) > _FEW:
        return f"{int(mask.sum())} of {len(mask)} conditions, over {len(known)} parameters"
    parts = []
    for sweep in known:
        nominal = nominal_level(sweep.parameter, sweep.mode, cube.environment)
        low = [level for level, k in zip(sweep.levels, sweep.index, strict=True) if mask[k] and level < nominal]
        high = [level for level, k in zip(sweep.levels, sweep.index, strict=True) if mask[k] and level > nominal]
        factor = "x" if sweep.mode == "scale" else ""
        sides = [f"{factor}{max(low):g} and below"] if low else []
        sides += [f"{factor}{min(high):g} and above"] if high else []
        if sides:
            parts.append(f"{sweep.label} {', '.join(sides)}")
    return "; ".join(parts) if parts else f"{int(mask.sum())} of {len(mask)} conditions"


def summary_table(results: Results | Analysis, score: ScoreReference | None = None) -> str:
    """The statistics as plain text for a terminal: one line a statistic, one column a learner, intervals behind.

    With a reference each return is followed by its score.
    """
    known = Analysis.of(results)
    table = known.summary
    kept = statistics_of(known)
    columns = [["", "trainings", *(STATISTICS[name] for name in kept)]]
    for learner in known.learners:
        cells = {row["statistic"]: row for row in table[table["learner"] == learner].to_dict("records")}
        column = [clean(learner, 40), str(cells[kept[0]]["trainings"])]
        for name in kept:
            cell = cells[name]
            value, low, high = (float(cell[key]) for key in ("value", "low", "high"))
            text = f"{number(value)}  ({span(low, high)})"
            points = scored(value, low, high, score)
            column.append(f"{text}  {points[0]} ({points[1]})" if points else text)
        columns.append(column)
    widths = [max(len(text) for text in column) for column in columns]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]
    single = all(len(cube.trainings) == 1 for cube in known.cubes.values())
    over = "episodes alone: one training says nothing of another" if single else "trainings and episodes"
    lines.append(f"in brackets: 95 % intervals over {over}")
    return "\n".join([*lines, score_words(score)] if score else lines)


def statistics_of(known: Analysis) -> list[str]:
    """The statistics that some learner has; where nothing was perturbed there is no worst level."""
    there = known.summary.dropna(subset="value")["statistic"].unique()
    return [name for name in STATISTICS if name in there and (known.perturbed or name != "worst_level")]


def _in_short(known: Analysis) -> str:
    first, *others = known.learners
    groups: dict[str, list[str]] = {"returns more than": [], "returns less than": [], "cannot be told apart from": []}
    where = "Far from nominal"
    for other in others:
        rows = {row["scope"]: row for row in known.compare(first, other).to_dict("records")}
        if "far" not in rows:
            where = "Over all conditions" if known.perturbed else "On the nominal system"
        favours = rows["far" if "far" in rows else "overall"]["favours"]
        kind = "returns more than" if favours == first else "returns less than"
        groups[kind if favours else "cannot be told apart from"].append(clean(other))
    said = [f"{kind} {listed(names)}" for kind, names in groups.items() if names]
    single = min(len(cube.trainings) for cube in known.cubes.values()) == 1
    return f"{where}, {clean(first)} {listed(said)}{', as far as these trained policies go' if single else ''}."


def listed(items: list[str]) -> str:
    """Items as a sentence lists them: "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _against(known: Analysis, means: Mapping[tuple[str, str], float], a: str, b: str) -> str:
    rows = {row["scope"]: row for row in known.compare(a, b).to_dict("records") if row["scope"] != "condition"}
    sentences = []
    for scope, where in (
        ("far", f"Far from nominal ({far_words(known)})"),
        ("far above", "On the side above nominal alone"),
        ("far below", "On the side below nominal alone"),
        ("nominal", "At the nominal level"),
    ):
        if scope not in rows:
            continue
        row = rows[scope]
        sentences.append(
            f"{where}, {clean(a)} returns {number(means[a, scope])} and {clean(b)} {number(means[b, scope])}: "
            f"a difference of {number(row['difference'], True)} "
            f"(95 % interval {span(row['low'], row['high'], True)}), {_verdict(row)}."
        )
    return " ".join(sentences)


def _verdict(row: Mapping[Hashable, Any]) -> str:
    if row["favours"] == "":
        return "not distinguishable from zero"
    better = clean(row["favours"])
    single = min(row["trainings_a"], row["trainings_b"]) == 1
    # One policy against another says nothing yet about the learners that made them.
    return f"in favour of {better}" + (" for these trained policies" if single else "")


def _alone(known: Analysis) -> str:
    name = known.learners[0]
    means = _mean_by_scope(known)
    worst = min(known.means.to_dict("records"), key=lambda row: float(row["value"]))
    said = []
    if (name, "nominal") in means:
        said.append(f"{number(means[name, 'nominal'])} at the nominal level")
    if (name, "far") in means:
        said.append(f"{number(means[name, 'far'])} far from it ({far_words(known)})")
    over_all = f"{number(float(known.cubes[name].means.mean()))} over all conditions"
    text = f"{clean(name)} returns {' and '.join(said) or over_all}"
    interval = span(worst["low"], worst["high"])
    if not known.perturbed:
        return f"{text} (95 % interval {interval}). Nothing was perturbed."
    return (
        f"{text}. Its worst condition is {clean(worst['condition'])}, with {number(worst['value'])} "
        f"(95 % interval {interval})."
    )


def _mean_by_scope(known: Analysis) -> dict[tuple[str, str], float]:
    means = {}
    for name, cube in known.cubes.items():
        by_level = cube.returns.mean((0, 2))
        distant, side = far(cube.conditions, cube.environment), sides(cube.conditions, cube.environment)
        for scope, mask in (
            ("nominal", cube.conditions["nominal"].to_numpy(bool)),
            ("far", distant),
            ("far above", distant & (side > 0)),
            ("far below", distant & (side < 0)),
        ):
            if mask.any():
                means[name, scope] = float(by_level[mask].mean())
    return means
