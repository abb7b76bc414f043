"""A report in every format into one folder: HTML, Markdown, figures as PNG, and the numbers behind them as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import pandas as pd

from offline_robust.csv_text import csv_of
from offline_robust.evaluation.results import Results
from offline_robust.files import write_text
from offline_robust.reports import html, markdown
from offline_robust.reports.blocks import pictures
from offline_robust.reports.canvas import save_png
from offline_robust.reports.costs import cost_data
from offline_robust.reports.page import Report, ReportOptions, build_report
from offline_robust.reports.records import RunRecord
from offline_robust.untrusted import within


def write_reports(
    folder: str | Path, results: Results, records: Sequence[RunRecord] = (), **options: Unpack[ReportOptions]
) -> Report:
    """Writes report.html, report.md, figures/*.png, figures/*.csv and tables/*.csv; arguments as for `build_report`.

    The HTML page carries its own figures; the other files are for documents and for tools. Each is written atomically.

    Returns:
        The report, for other formats.

    Raises:
        EvaluationError: as for `build_report`.
    """
    where = Path(folder)
    for name in ("figures", "tables"):
        within(where, name)  # nothing is written through a link into a folder elsewhere
    report = build_report(results, records, **options)
    write_text(where / "report.html", html.page(report.heading, report.blocks, beside=True))
    write_text(where / "report.md", markdown.document(report.blocks))
    for picture in pictures(report.blocks):
        save_png(picture.figure, where / "figures" / f"{picture.key}.png")
        _csv(where / "figures" / f"{picture.key}.csv", picture.data)
    for name, table in tables(report).items():
        _csv(where / "tables" / f"{name}.csv", table)
    return report


def tables(report: Report) -> dict[str, pd.DataFrame]:
    """The tables of a report by name, tidy; of a report over several parts, those of each behind the other."""
    found: dict[str, list[pd.DataFrame]] = {}
    for part in report.parts:
        known = part.known
        leaders = known.leaders.assign(tied=known.leaders["tied"].map(lambda names: "; ".join(names)))
        own = {
            "statistics": known.summary,
            "conditions": known.means,
            "parameters": known.parameters,
            "severity": known.severity,
            "leaders": leaders,
            "iqm": known.iqms,
            "improvement": known.improvement,
            "costs": cost_data(part.records),
        }
        others = [name for name in known.learners if name != known.learners[0]]
        differences = [known.compare(known.learners[0], other).assign(a=known.learners[0], b=other) for other in others]
        if differences:
            own["differences"] = pd.concat(differences, ignore_index=True)
        for name, table in own.items():
            if not table.empty:
                found.setdefault(name, []).append(table.assign(part=part.name) if part.key else table)
    return {name: pd.concat(parts, ignore_index=True) for name, parts in found.items()}


def _csv(path: Path, table: pd.DataFrame) -> None:
    write_text(path, csv_of(table))
