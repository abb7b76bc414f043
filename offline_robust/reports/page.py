"""The report: one HTML file that carries everything it shows and asks nothing of the network."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from offline_robust.errors import EvaluationError, nearest
from offline_robust.evaluation import compare, per_condition, summarise
from offline_robust.evaluation.levels import far
from offline_robust.evaluation.results import Results
from offline_robust.evaluation.summary import cubes
from offline_robust.files import write_text
from offline_robust.reports.figures import COLOURS, difference_figure, heat_figure, level_figure, metric_figure, svg
from offline_robust.reports.html import pre, swatch, table, value_cell
from offline_robust.reports.records import RunRecord
from offline_robust.reports.setup import model_section, setup_section
from offline_robust.reports.style import CSS
from offline_robust.reports.text import STATISTICS, cautions, clean, far_words, headline, number, safe, span


def write_report(
    path: str | Path,
    results: Results,
    records: Sequence[RunRecord] = (),
    *,
    title: str = "",
    command: str = "",
    baseline: str | None = None,
) -> None:
    """Writes a self-contained HTML report, atomically.

    Args:
        path: the file to write.
        results: one or several learners in one environment, evaluated under the same conditions. The first learner is
            the one the report is about.
        records: the runs behind the results, for learning curves, diagnostics and set-up.
        title: of the page.
        command: what reproduces the report, printed as it stands.
        baseline: the learner the others are compared with; by default the first learner is compared with each other.

    Raises:
        EvaluationError: the results hold several environments or were not all evaluated alike, or there is no such
            baseline.
    """
    if baseline is not None and baseline not in results.learners:
        raise EvaluationError(f"no learner {baseline!r} in the results{nearest(baseline, results.learners)}")
    env_id = str(results.frame["env_id"].iloc[0])
    heading = clean(title) or f"{', '.join(results.learners[:3])} in {env_id}, perturbed"
    sections = [
        _opening(results, heading, env_id),
        _levels(results),
        _statistics(results),
        _differences(results, baseline),
        _training(results, records),
        model_section(records),
        setup_section(results, records),
        _reproduce(command, records),
        _method(results),
    ]
    body = "\n".join(section for section in sections if section)
    write_text(
        path,
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(heading)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n"
        "</html>\n",
    )


def _opening(results: Results, heading: str, env_id: str) -> str:
    known = cubes(results)
    first = next(iter(known.values()))
    trainings = sorted({len(cube.trainings) for cube in known.values()})
    counts = "–".join(str(n) for n in dict.fromkeys((trainings[0], trainings[-1])))
    facts = (
        f"{env_id} · {len(known)} learner{_s(len(known))}, {counts} training{_s(trainings[-1])} each · "
        f"{first.returns.shape[1]} conditions × {first.returns.shape[2]} episodes per training · "
        f"suite {results.meta.get('suite', 'unknown')}"
    )
    first_sentence, *others = headline(results)
    findings = f"<p><strong>{safe(first_sentence, 2_000)}</strong></p>"
    findings += "".join(f"<p>{safe(sentence, 2_000)}</p>" for sentence in others)
    warnings = "".join(f"<p>{safe(text, 2_000)}</p>" for text in cautions(results))
    box = f'<div class="caution">{warnings}</div>' if warnings else ""
    return (
        f'<h1>{safe(heading)}</h1>\n<p class="facts">{safe(facts, 500)}</p>\n<div class="finding">{findings}</div>{box}'
    )


def _levels(results: Results) -> str:
    parts = []
    curves, heat = level_figure(results), heat_figure(results)
    if curves is not None:
        several = any(len(cube.trainings) > 1 for cube in cubes(results).values())
        thin = " Thin lines are single trainings." if several else ""
        parts.append(
            _figure(
                curves,
                "Return against level",
                "levels",
                f"Mean return at each level with its 95 % band; the dashed line is the nominal system.{thin}",
            )
        )
    apart = difference_figure(results)
    if apart is not None:
        parts.append(
            _figure(
                apart,
                "Difference against level",
                "difference",
                "Mean return of the first learner minus that of each other one, with 95 % bands. All learners start in "
                "the same states, which moves their curves together: bands that overlap above may still differ here.",
            )
        )
    if heat is not None:
        parts.append(_figure(heat, "Mean return over the grid", "grid", "Mean return at each pair of levels."))
    return "<h2>Return under perturbation</h2>" + "".join(parts) if parts else ""


def _statistics(results: Results) -> str:
    summary = summarise(results)
    kept = [name for name in STATISTICS if not summary.loc[summary["statistic"] == name, "value"].isna().all()]
    rows = []
    for k, learner in enumerate(results.learners):
        cells = {row["statistic"]: row for row in summary[summary["learner"] == learner].to_dict("records")}
        name = swatch(COLOURS[k % len(COLOURS)]) + safe(learner, 60)
        rows.append([name, str(cells[kept[0]]["trainings"]), *(_interval(cells[statistic]) for statistic in kept)])
    heads = ["Learner", "Trainings", *(STATISTICS[name] for name in kept)]
    note = (
        "Mean, IQM (mean of the middle half), 5th percentile and CVaR 10 % (mean of the lowest tenth) are taken over "
        "all episodes of all conditions. Worst level is the lowest mean return of any condition. Area under curve is "
        "the mean return over the swept range. Below each value its 95 % interval."
    )
    return "<h2>Statistics per learner</h2>" + table(heads, rows) + f'<p class="note">{note}</p>' + _by_level(results)


def _by_level(results: Results) -> str:
    means = per_condition(results)
    known = cubes(results)
    conditions = next(iter(known.values())).conditions
    distant = far(conditions, next(iter(known.values())).env_id)
    rows, classes = [], []
    for k, label in enumerate(conditions["condition"]):
        at = {row["learner"]: row for row in means[means["condition"] == label].to_dict("records")}
        kind = "nominal" if conditions["nominal"].iloc[k] else "far" if distant[k] else ""
        rows.append([safe(label, 120), kind, *(_interval(at[name]) if name in at else "–" for name in known)])
        classes.append("total" if kind == "nominal" else "")
    heads = ["Condition", "", *(safe(name, 60) for name in known)]
    return "<h3>Mean return per condition</h3>" + table(heads, rows, classes)


def _differences(results: Results, baseline: str | None) -> str:
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
        rows.append([safe(label, 160), *(_interval(column[k], True) for column in columns)])
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
    return f'<h2>Differences in mean return</h2>{table(heads, rows, classes)}<p class="note">{note}</p>'


def _training(results: Results, records: Sequence[RunRecord]) -> str:
    parts = []
    for prefixes, name, key, caption in (
        (("train/",), "Learning curves", "train", "Training metrics of each run, a line per run."),
        (("dual/",), "Dual variables", "dual", "The dual variables of the robust objective, a line per run."),
        (("model/",), "Nominal model", "model", "Losses while the nominal model was fitted, a line per run."),
    ):
        figure = metric_figure(records, results.learners, prefixes)
        if figure is not None:
            parts.append(f"<h3>{name}</h3>" + _figure(figure, name, key, caption, wide=True))
    return "<h2>Training</h2>" + "".join(parts) if parts else ""


def _reproduce(command: str, records: Sequence[RunRecord]) -> str:
    commands = [command, *(str(record.meta.get("command", "")) for record in records)]
    lines = list(dict.fromkeys(clean(line, 2_000) for line in commands if line.strip()))
    return "<h2>Reproduce</h2>" + pre("\n".join(lines)) if lines else ""


def _method(results: Results) -> str:
    meta = results.meta
    shared = all(cube.shared for cube in cubes(results).values())
    start = (
        "Episode k starts in the same state for every training and under every condition, so one resample of start "
        "states serves them all."
        if shared
        else "The trainings were evaluated from different start states, so episodes are resampled in each on its own."
    )
    return (
        "<h2>How the intervals are made</h2>"
        "<p>All numbers are undiscounted returns of the deterministic policy, the "
        f"{safe(meta.get('checkpoint', 'last'))} checkpoint of each training, in the environment's own reward, not "
        "normalised. Intervals are 95 % percentile intervals of 2,000 bootstrap draws. Each draw resamples trainings "
        f"with replacement, then start states with replacement; conditions are fixed. {start}</p>"
        "<p>Episodes of one policy are never counted as independent trainings. With one training the interval covers "
        "the choice of start states only and says nothing about training again; with two it covers the truth about "
        "half the time where trainings differ, with five about 85 %. Conditions are called far when they lie at least "
        "60 % of the way from nominal to the last level on their side.</p>"
    )


def _figure(figure: Figure, title: str, prefix: str, caption: str, wide: bool = False) -> str:
    kind = ' class="wide"' if wide or len(figure.axes) > 1 else ""
    return (
        f'<figure{kind}><div class="scroll" tabindex="0">{svg(figure, title, prefix)}</div>'
        f"<figcaption>{safe(caption, 500)}</figcaption></figure>"
    )


def _interval(row: Mapping[Hashable, Any], signed: bool = False) -> str:
    """A cell: the value and, below it, its interval; a difference is marked where the interval excludes zero."""
    value, low, high = row["difference" if signed else "value"], row["low"], row["high"]
    if not math.isfinite(value):
        return "–"
    mark = (" ▲" if low > 0 else " ▼" if high < 0 else "") if signed else ""
    return value_cell(number(value, signed) + mark, span(low, high, signed))


def _s(count: int) -> str:
    return "" if count == 1 else "s"
