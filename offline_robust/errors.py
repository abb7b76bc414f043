"""Errors made for people: each says what is wrong, where, and how to mend it, in one line.

The command line prints the message of any `UserError` and leaves with exit status 2. A file that cannot be written for
want of room is an `OSError` that names it, one line too and status 1. Anything else is a bug of ours and shows its
traceback.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a disk, a quota or a file-size limit that is full."""


class UserError(Exception):
    """Bad input: the message is one clear line (what, where, how to mend)."""


class DatasetError(UserError):
    """A data file or array is malformed."""


class DatasetNotFound(DatasetError):
    """No dataset of that name; the message names the places searched."""


class ConfigError(UserError):
    """A configuration value is unknown, of the wrong type or out of range."""


class CheckpointError(UserError):
    """A checkpoint or policy file is damaged, of another format or of another environment."""


class EvaluationError(UserError):
    """A perturbation, suite or policy does not fit the environment."""


class FolderInUse(UserError):
    """Another process or thread writes into the folder; the message says which, and since when."""


class MissingExtra(UserError):
    """An optional dependency is needed; the message names the extra to install."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}: pip install 'offline-robust[{extra}]'")


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def readable(text: str) -> str:
    """Anyone's text as one line of printable characters: Gymnasium colours its warnings, file names hold anything."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(_COLOUR.sub("", text).split()))


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """A half-sentence that offers the known names nearest to a mistyped one.

    Returns ``"; did you mean 'a' or 'b'?"`` or, when nothing is close, ``"; known: a, b, c"``.
    """
    names = sorted(known)
    folded = {other.casefold(): other for other in names}  # 'iql' is nearer to 'IQL' than to 'sac'
    close = difflib.get_close_matches(name.casefold(), folded, n=count, cutoff=0.6)
    if close:
        return "; did you mean " + " or ".join(f"'{folded[other]}'" for other in close) + "?"
    return "; known: " + ", ".join(names)
