"""Blocks to Markdown, with the figures as files beside it. Everything from outside is escaped here."""

from __future__ import annotations

import re
from collections.abc import Sequence

from offline_robust.reports.blocks import Block, Box, Code, Folded, Heading, Links, Para, Picture, Sheet, SheetCell
from offline_robust.reports.text import clean

_CELL, _PARAGRAPH, _CODE = 2_000, 3_000, 200_000
_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$!])")


def document(blocks: Sequence[Block], figures: str = "figures") -> str:
    """The report as Markdown.

    Args:
        blocks: of the report.
        figures: the folder beside it that holds ``<key>.png`` and ``<key>.csv`` of every picture; "" leaves pictures
            out.
    """
    return "\n\n".join(text for text in (_block(block, figures) for block in blocks) if text) + "\n"


def escaped(text: object, limit: int = _PARAGRAPH) -> str:
    """Text on one line that Markdown, and HTML inside it, take literally."""
    line = " ".join(clean(text, limit).split())
    return _SPECIAL.sub(r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _block(block: Block, figures: str) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {escaped(block.text)}"
        case Para():
            return escaped(block.text)
        case Box():
            lines = [escaped(line) for line in block.lines]
            if lines and block.kind == "finding":
                lines[0] = f"**{lines[0]}**"
            elif lines:
                lines[0] = f"**Caution.** {lines[0]}"
            return "\n>\n".join(f"> {line}" for line in lines)
        case Sheet():
            return _table(block)
        case Code():
            # Indented, since a fence could be closed by the text.
            return "\n".join(f"    {line}" for line in clean(block.text, _CODE).splitlines())
        case Folded():
            inner = document(block.blocks, figures)
            return f"<details><summary>{escaped(block.title, 300)}</summary>\n\n{inner}\n</details>"
        case Links():
            return ""
        case Picture():
            if not figures:
                return ""
            path = f"{figures}/{block.key}"
            caption = f"{escaped(block.caption)} Numbers: [{path}.csv]({path}.csv)."
            return f"![{escaped(block.title)}]({path}.png)\n\n{caption}"


def _table(block: Sheet) -> str:
    width = max([len(block.heads), *(len(row) for row in block.rows)], default=0)
    if width == 0:
        return ""
    heads = [escaped(head, 200) or " " for head in block.heads] or [" "] * width
    left = block.kind == "words"
    lines = [_row(heads, width), _row([":--", *(["---" if left else "--:"] * (width - 1))], width)]
    for k, row in enumerate(block.rows):
        cells = [_cell(cell) for cell in row]
        if k < len(block.classes) and block.classes[k] == "total" and cells and cells[0]:
            cells[0] = f"**{cells[0]}**"
        lines.append(_row(cells, width))
    return "\n".join(lines)


def _row(cells: Sequence[str], width: int) -> str:
    return "| " + " | ".join([*cells, *([" "] * (width - len(cells)))]) + " |"


def _cell(cell: SheetCell | str) -> str:
    if isinstance(cell, str):
        return escaped(cell, _CELL) or " "
    parts = [escaped(cell.text, _CELL)]
    if cell.below:
        parts.append(f"({'; '.join(escaped(line, 200) for line in cell.below if line)})")
    if cell.where:
        parts.append(f"at {escaped(cell.where, 200)}")
    return " ".join(parts)
