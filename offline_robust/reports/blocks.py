"""A report as blocks that know no format; `html` and `markdown` write them out.

All text is plain: whoever writes it out escapes it. Names of runs and learners come from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure


@dataclass(frozen=True)
class SheetCell:
    """One cell of a table.

    Attributes:
        text: what it says.
        below: lines in small print under it: an interval, a score.
        where: the condition the value was found at.
        colour: of the learner it names; "" for none.
        code: whether it is set in a typewriter face.
        long: whether it holds a list or a sentence, which is broken into lines.
    """

    text: str
    below: tuple[str, ...] = ()
    where: str = ""
    colour: str = ""
    code: bool = False
    long: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        heads: of the columns; none where the first column names the rows.
        rows: cells, or their text.
        classes: a class per row ("total" for one that stands out), "" for none.
        kind: "words" where cells hold sentences.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[SheetCell | str]]
    classes: Sequence[str] = ()
    kind: str = ""


@dataclass(frozen=True)
class Heading:
    """A heading of level 1 to 4; ``anchor`` is what a link inside the page can name."""

    text: str
    level: int = 2
    anchor: str = ""


@dataclass(frozen=True)
class Para:
    """A paragraph; ``kind`` is "", "note" (small print) or "facts"."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Box:
    """Lines that stand out: "finding", whose first line is the main one, or "caution"."""

    kind: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Preformatted text."""

    text: str


@dataclass(frozen=True)
class Folded:
    """Blocks that are folded away behind a title."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Links:
    """Titles and the anchors in the page that they lead to."""

    targets: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        key: unique in the report; names its files.
        title: in a few words.
        caption: what it shows.
        figure: as drawn.
        data: the numbers behind it, tidy.
        narrow: the same for a small screen, where it needs drawing anew.
        wide: whether it needs the whole width.
        command: what makes it again.
    """

    key: str
    title: str
    caption: str
    figure: Figure
    data: pd.DataFrame
    narrow: Figure | None = None
    wide: bool = False
    command: str = field(default="")


Block = Sheet | Heading | Para | Box | Code | Folded | Links | Picture


def pictures(blocks: Sequence[Block]) -> list[Picture]:
    """All pictures, in order, folded ones too."""
    found: list[Picture] = []
    for block in blocks:
        if isinstance(block, Picture):
            found.append(block)
        elif isinstance(block, Folded):
            found += pictures(block.blocks)
    return found
