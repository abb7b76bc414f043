"""Files that are never half-written, and the bundled folders.

Everything the library writes is written aside, synced to disk and renamed: a reader sees the old content or the
new, and a killed process leaves at most a ``.tmp-*`` beside the target.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from offline_robust.errors import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder; on success it is synced and renamed to ``path``.

    On any exception the temporary file or folder is removed and ``path`` is as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".tmp-{target.name}-", dir=target.parent))
    try:
        inner = aside / target.name
        yield inner
        if inner.is_file():
            inner.chmod(0o644)  # some writers make private files; results are for sharing
        _sync_tree(inner)
        if inner.is_dir() and target.is_dir():
            # A folder cannot replace a non-empty folder in one rename: move the old one aside first.
            os.rename(target, aside / "old")
        os.replace(inner, target)
        _sync(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes text atomically."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Writes JSON atomically, indented, with a final newline."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def home() -> Path | None:
    """The user's home; None where nothing tells of one: no HOME, and a user id without an account, as in containers."""
    try:
        return Path.home()
    except (RuntimeError, KeyError):
        return None


def writable_home() -> Path | None:
    """The user's home where it can be written to; other programs' folders go elsewhere where it cannot."""
    found = home()
    return found if found is not None and os.access(found, os.W_OK | os.X_OK) else None


def expanded(path: str | Path, error: type[UserError] = UserError) -> Path:
    """The path with ``~`` and ``~user`` in front resolved; one that exists as it is written stays so.

    Raises:
        error: nothing tells of such a home.
    """
    given = Path(path)
    try:
        return given if given.exists() else given.expanduser()
    except (RuntimeError, KeyError):
        raise error(f"{given}: no home directory is known for {given.parts[0]}; write the path out") from None


def bundled(kind: str) -> Path:
    """The folder of bundled ``datasets``, ``models`` or ``configs``.

    A wheel carries them inside the package; in a checkout they lie beside it.
    """
    package = Path(__file__).parent
    installed = package / "_bundled" / kind
    return installed if installed.is_dir() else package.parent / kind


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(path: Path) -> None:
    if path.is_dir():
        for child in path.iterdir():
            _sync_tree(child)
    _sync(path)
