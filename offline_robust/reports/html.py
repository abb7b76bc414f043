"""Pieces of HTML. Cells are HTML already: whoever makes one from foreign text escapes it (`text.safe`)."""

from __future__ import annotations

from collections.abc import Sequence

from offline_robust.reports.text import safe


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str] = (), kind: str = "") -> str:
    """A table in a box of its own that scrolls sideways.

    Args:
        heads: HTML of the column heads; no head row when empty.
        rows: HTML of the cells.
        classes: a class per row, "" for none.
        kind: class of the table.
    """
    top = "<thead><tr>" + "".join(f'<th scope="col">{head}</th>' for head in heads) + "</tr></thead>" if heads else ""
    lines = []
    for k, row in enumerate(rows):
        name = f' class="{classes[k]}"' if k < len(classes) and classes[k] else ""
        lines.append(f"<tr{name}>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
    style = f' class="{kind}"' if kind else ""
    body = "\n".join(lines)
    return f'<div class="scroll" tabindex="0"><table{style}>{top}<tbody>\n{body}\n</tbody></table></div>'


def value_cell(value: str, *below: str, where: str = "") -> str:
    """A number with its interval, its score and the condition it was found at in small print under it."""
    lines = "".join(f"<small>{safe(text)}</small>" for text in below if text)
    return safe(value) + lines + (f'<small class="where">{safe(where)}</small>' if where else "")


def swatch(colour: str) -> str:
    """A square of a learner's colour, to tie a table row to its curve."""
    return f'<span class="swatch" style="background:{colour}"></span>'


def pre(text: str) -> str:
    """Preformatted text, escaped."""
    return f'<pre tabindex="0">{safe(text, 200_000)}</pre>'


def warning(lines: Sequence[str]) -> str:
    """A box of warnings, or nothing."""
    return (
        '<div class="caution">' + "".join(f"<p>{safe(line, 1_000)}</p>" for line in lines) + "</div>" if lines else ""
    )
