"""From the results table and run folders to figures, a self-contained HTML page, and a table for the terminal."""

from offline_robust.reports.figures import difference_figure, heat_figure, level_figure, metric_figure, save_png
from offline_robust.reports.page import write_report
from offline_robust.reports.records import RunRecord
from offline_robust.reports.text import headline, summary_table

__all__ = [
    "RunRecord",
    "difference_figure",
    "headline",
    "heat_figure",
    "level_figure",
    "metric_figure",
    "save_png",
    "summary_table",
    "write_report",
]
