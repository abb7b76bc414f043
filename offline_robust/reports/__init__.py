"""From the results table and run folders to figures, reports (HTML, Markdown, CSV), and a table for the terminal."""

from offline_robust.reports.canvas import save_png
from offline_robust.reports.curves import metric_figure
from offline_robust.reports.figures import difference_figure, heat_figure, level_figure
from offline_robust.reports.folder import write_reports
from offline_robust.reports.page import build_report, write_report
from offline_robust.reports.records import RunRecord
from offline_robust.reports.text import headline, summary_table

__all__ = [
    "RunRecord",
    "build_report",
    "difference_figure",
    "headline",
    "heat_figure",
    "level_figure",
    "metric_figure",
    "save_png",
    "summary_table",
    "write_report",
    "write_reports",
]
