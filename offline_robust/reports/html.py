"""Blocks to HTML: one page that carries everything it shows. Everything from outside is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from offline_robust.reports.blocks import Block, Box, Code, Folded, Heading, Links, Para, Picture, Sheet, SheetCell
from offline_robust.reports.canvas import svg
from offline_robust.reports.style import CSS
from offline_robust.reports.text import clean, safe

_CELL, _PARAGRAPH, _CODE = 2_000, 3_000, 200_000


def page(title: str, blocks: Sequence[Block], beside: bool = False) -> str:
    """A whole page.

    Args:
        title: of the window.
        blocks: of the body.
        beside: whether the numbers behind the figures lie beside the page, to be named below each.
    """
    body = "\n".join(_block(block, beside) for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n"
        "</html>\n"
    )


def _block(block: Block, beside: bool) -> str:
    match block:
        case Heading():
            anchor = f' id="{safe(block.anchor)}"' if block.anchor else ""
            return f"<h{block.level}{anchor}>{safe(block.text)}</h{block.level}>"
        case Para():
            kind = f' class="{block.kind}"' if block.kind else ""
            return f"<p{kind}>{safe(block.text, _PARAGRAPH)}</p>"
        case Box():
            return _box(block)
        case Sheet():
            return _table(block)
        case Code():
            return f'<pre tabindex="0">{safe(block.text, _CODE)}</pre>'
        case Folded():
            inner = "".join(_block(inner, beside) for inner in block.blocks)
            return f"<details><summary>{safe(block.title, 300)}</summary>{inner}</details>"
        case Links():
            links = "".join(f'<li><a href="#{safe(to)}">{safe(text)}</a></li>' for text, to in block.targets)
            return f'<ul class="links">{links}</ul>'
        case Picture():
            return _figure(block, beside)


def _box(block: Box) -> str:
    lines = [safe(line, _PARAGRAPH) for line in block.lines]
    if not lines:
        return ""
    if block.kind == "finding":
        lines[0] = f"<strong>{lines[0]}</strong>"
    return f'<div class="{block.kind}">' + "".join(f"<p>{line}</p>" for line in lines) + "</div>"


def _table(block: Sheet) -> str:
    """A table in a box of its own that scrolls sideways."""
    top = ""
    if block.heads:
        first = block.rows[0] if block.rows else ()
        heads = [f'<th scope="col"{_kind(cell)}>{safe(head)}</th>' for head, cell in zip_longest(block.heads, first)]
        top = f"<thead><tr>{''.join(heads)}</tr></thead>"
    lines = []
    for k, row in enumerate(block.rows):
        name = f' class="{block.classes[k]}"' if k < len(block.classes) and block.classes[k] else ""
        lines.append(f"<tr{name}>" + "".join(_td(cell) for cell in row) + "</tr>")
    style = f' class="{block.kind}"' if block.kind else ""
    body = "\n".join(lines)
    return f'<div class="scroll" tabindex="0"><table{style}>{top}<tbody>\n{body}\n</tbody></table></div>'


def _td(cell: SheetCell | str) -> str:
    return f"<td{_kind(cell)}>{_cell(cell)}</td>"


def _kind(cell: SheetCell | str | None) -> str:
    return ' class="long"' if isinstance(cell, SheetCell) and cell.long else ""


def _cell(cell: SheetCell | str) -> str:
    if isinstance(cell, str):
        return safe(cell, _CELL)
    swatch = f'<span class="swatch" style="background:{cell.colour}"></span>' if cell.colour else ""
    text = safe(cell.text, _CELL)
    lines = "".join(f"<small>{safe(line)}</small>" for line in cell.below if line)
    where = f'<small class="where">{safe(cell.where)}</small>' if cell.where else ""
    return swatch + (f"<code>{text}</code>" if cell.code else text) + lines + where


def _figure(block: Picture, beside: bool) -> str:
    kind = ' class="wide"' if block.wide or len(block.figure.axes) > 1 else ""
    screens = ' class="scroll large"' if block.narrow else ' class="scroll"'
    body = f'<div{screens} tabindex="0">{svg(block.figure, block.title, block.key)}</div>'
    if block.narrow is not None:
        body += f'<div class="small">{svg(block.narrow, block.title, block.key + "-narrow")}</div>'
    caption = block.caption + (f" Numbers: figures/{clean(block.key)}.csv." if beside else "")
    return f"<figure{kind}>{body}<figcaption>{safe(caption, 600)}</figcaption></figure>"
