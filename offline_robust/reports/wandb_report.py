"""A Weights & Biases Report from the same blocks as the local one, through `wandb-workspaces`.

What it says is the report's own text and tables, with the statistics computed here; below them stand panels that W&B
draws from the logged runs, grouped as they were logged. It can be built and checked without a network: `specification`
is what would be uploaded.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from offline_robust.errors import MissingExtra
from offline_robust.reports.blocks import Block, Box, Code, Folded, Heading, Links, Para, Picture, Sheet
from offline_robust.reports.markdown import document
from offline_robust.reports.page import Report
from offline_robust.reports.text import clean

_TITLE, _PANELS, _GROUPS = 128, 24, 200


def build_wandb_report(
    report: Report, project: str, entity: str = "", groups: Sequence[str] = (), metrics: Sequence[str] = ()
) -> Any:
    """The report as a ``wandb_workspaces.reports.v2.Report``, not saved.

    Args:
        report: as `build_report` makes it.
        project: of the runs.
        entity: who owns it; "" makes one that can be looked at but not saved.
        groups: the groups whose runs the panels show; all runs of the project when empty.
        metrics: training metrics to draw, up to a dozen.

    Raises:
        MissingExtra: wandb-workspaces is not installed.
    """
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise MissingExtra("wandb-workspaces", "wandb", "a Weights & Biases Report")
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = []
    waiting: list[Block] = []
    for block in report.blocks[1:]:  # the title stands above already
        if isinstance(block, Picture | Links):
            continue
        if isinstance(block, Heading | Para | Box | Code):
            _flush(wr, waiting, blocks)
            blocks += _block(wr, block)
        elif isinstance(block, Sheet | Folded):
            waiting.append(block)
    _flush(wr, waiting, blocks)
    where = next((k for k, block in enumerate(blocks) if isinstance(block, wr.H2)), len(blocks))
    blocks[where:where] = [wr.H2("Runs"), _grid(wr, report, project, entity, list(groups)[:_GROUPS], list(metrics))]
    return wr.Report(
        project=project, entity=entity, title=clean(report.heading, _TITLE), width="fluid", blocks=[*blocks]
    )


def specification(built: Any) -> str:
    """The JSON that saving the report would upload, checked by reading it back.

    Raises:
        ValueError: what was built cannot be read back.
    """
    from wandb_workspaces.reports.v2 import internal

    text: str = built._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1)
    internal.ReportViewspec.model_validate_json(text)
    return text + "\n"


def _flush(wr: Any, waiting: list[Block], blocks: list[Any]) -> None:
    """Tables become Markdown, several of them one block."""
    if waiting:
        blocks.append(wr.MarkdownBlock(text=document(waiting, figures="")))
        waiting.clear()


def _block(wr: Any, block: Heading | Para | Box | Code) -> list[Any]:
    if isinstance(block, Heading):
        return [(wr.H2 if block.level <= 2 else wr.H3)(text=clean(block.text))]
    if isinstance(block, Para):
        return [wr.P(text=clean(block.text, 3_000))]
    if isinstance(block, Box):
        lines = [clean(line, 3_000) for line in block.lines]
        if block.kind == "caution":
            return [wr.CalloutBlock(text="\n".join(lines))]
        return [wr.UnorderedList(items=lines)]
    return [wr.CodeBlock(code=clean(block.text, 100_000), language="markdown")]  # it knows no shell


def _grid(wr: Any, report: Report, project: str, entity: str, groups: list[str], metrics: list[str]) -> Any:
    """Panels over the logged runs: returns as bars, training metrics as lines, a mark per group."""
    bars = [("Return on the nominal system", "eval/nominal/mean"), ("Mean return over all conditions", "eval/all/mean")]
    bars += [("IQM over all conditions", "eval/all/iqm"), ("CVaR 10 % over all conditions", "eval/all/cvar10")]
    bars += [("Mean return at the worst condition", "eval/worst_level")]
    shown: list[Any] = [
        wr.BarPlot(
            title=title,
            metrics=[key],
            groupby="Group",
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            layout=wr.Layout(w=8, h=6),
        )
        for title, key in bars
    ]
    shown += [
        wr.LinePlot(
            title=key,
            x="Step",
            y=[key],
            groupby="Group",
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            layout=wr.Layout(w=8, h=6),
        )
        for key in (clean(metric, 200) for metric in metrics[: _PANELS - len(bars)])
    ]
    runs = wr.Runset(
        project=project,
        entity=entity,
        name="Trainings",
        filters=f"Metric('Group') in {groups!r}" if groups else "",
        groupby=["group"],
    )
    return wr.PanelGrid(runsets=[runs], panels=shown)
