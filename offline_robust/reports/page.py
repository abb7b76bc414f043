"""The report: one HTML file that carries everything it shows and asks nothing of the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from offline_robust.errors import EvaluationError, nearest
from offline_robust.evaluation.results import Results
from offline_robust.evaluation.scores import ScoreReference
from offline_robust.evaluation.summary import cubes
from offline_robust.files import write_text
from offline_robust.reports.figures import difference_figure, heat_figure, level_figure, metric_figure, svg
from offline_robust.reports.html import pre
from offline_robust.reports.records import RunRecord
from offline_robust.reports.setup import model_section, setup_section
from offline_robust.reports.style import CSS
from offline_robust.reports.tables import differences_section, statistics_section
from offline_robust.reports.text import cautions, clean, headline, safe

_LEVELS = "Mean return at each level with its 95 % band; the dashed line is the nominal system."
_DIFFERENCE = (
    "Mean return of the first learner minus that of each other one, with 95 % bands. All learners start in the same "
    "states, which moves their curves together: bands that overlap above may still differ here."
)
_GRID = "Mean return at each pair of levels. Bold levels are nominal, and the frame marks the nominal system."


def write_report(
    path: str | Path,
    results: Results,
    records: Sequence[RunRecord] = (),
    *,
    title: str = "",
    command: str = "",
    baseline: str | None = None,
    score: ScoreReference | None = None,
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
        score: shown behind every return of the tables; none by default.

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
        statistics_section(results, score),
        differences_section(results, baseline, score),
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
    several = any(len(cube.trainings) > 1 for cube in cubes(results).values())
    thin = " Thin lines are single trainings." if several else ""
    parts = []
    for draw, title, key, caption in (
        (level_figure, "Return against level", "levels", f"{_LEVELS}{thin}"),
        (difference_figure, "Difference against level", "difference", _DIFFERENCE),
        (heat_figure, "Mean return over the grid", "grid", _GRID),
    ):
        figure = draw(results)
        if figure is not None:
            # Panels that lie side by side on a large screen lie under each other on a small one.
            narrow = draw(results, narrow=True) if len(figure.axes) > 1 else None
            parts.append(_figure(figure, title, key, caption, narrow=narrow))
    return "<h2>Return under perturbation</h2>" + "".join(parts) if parts else ""


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


def _figure(
    figure: Figure, title: str, prefix: str, caption: str, wide: bool = False, narrow: Figure | None = None
) -> str:
    kind = ' class="wide"' if wide or len(figure.axes) > 1 else ""
    screens = ' class="scroll large"' if narrow else ' class="scroll"'
    body = f'<div{screens} tabindex="0">{svg(figure, title, prefix)}</div>'
    if narrow is not None:
        body += f'<div class="small">{svg(narrow, title, prefix + "-narrow")}</div>'
    return f"<figure{kind}>{body}<figcaption>{safe(caption, 500)}</figcaption></figure>"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
