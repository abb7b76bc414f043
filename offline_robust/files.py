"""Files that are never half-written, and the bundled folders.

Everything the library writes is written aside, synced to disk and put in its place at once: a reader sees the old
content or the new. A killed process leaves at most a ``.tmp-orl-*`` beside the target, which the next one that writes
there removes; it tells by a lock that nobody writes into it any more.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from offline_robust.errors import UserError
from offline_robust.locks import try_lock

_ASIDE = re.compile(r"\.tmp-orl-[0-9a-f]{16}")
_KEPT = ".old-orl-"
_STALE = 86_400.0
"""Seconds after which a leftover is one where there are no locks to tell by."""
_ATTEMPTS = 20

_open: set[Path] = set()
"""Temporary folders of this process."""
_tidied: set[Path] = set()
"""Folders whose leftovers this process has removed."""
_AT_CWD, _EXCHANGE = -100, 2
"""Linux's AT_FDCWD and RENAME_EXCHANGE."""


@contextmanager
def replacing(path: str | Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yields a temporary path in the same folder; on success it is synced and takes the place of ``path`` at once.

    On any exception the temporary file or folder is removed and ``path`` is as it was. There is no moment at which a
    kill, or the loss of power, leaves neither the old content nor the new.

    Args:
        path: a file, or a folder.
        overwrite: whether to replace what is there by then.

    Raises:
        FileExistsError: ``path`` is there and is not to be replaced.
        OSError: it cannot be written, for want of room say; names ``path``.
    """
    target = Path(path)
    recover(target)
    if target.parent not in _tidied:
        _tidied.add(target.parent)
        remove_leftovers(target.parent)
    with _aside(target) as aside:
        inner = aside / target.name
        yield inner
        if inner.is_file():
            inner.chmod(0o644)  # some writers make private files; results are for sharing
        _sync_tree(inner)
        _put(inner, target, overwrite)
        _sync(target.parent)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes bytes atomically."""
    with replacing(path) as aside:
        aside.write_bytes(content)


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


@contextmanager
def naming(path: str | Path, inside: Path | None = None) -> Iterator[None]:
    """Gives a system's error that names no file, or one ``inside`` a temporary folder, the name of this one."""
    try:
        yield
    except OSError as error:
        named = error.filename is not None and not (inside and str(error.filename).startswith(str(inside)))
        if named or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror or os.strerror(error.errno), str(path)) from error


def recover(target: Path) -> None:
    """Puts a folder back that a killed process had set aside to replace it, where folders cannot be exchanged."""
    kept = target.with_name(_KEPT + target.name)
    if not os.path.lexists(kept):
        return
    with suppress(OSError):
        if os.path.lexists(target):
            shutil.rmtree(kept)
        else:
            os.rename(kept, target)


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary folders in a folder that this library has made and that no process writes into any more."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in [entry for entry in entries if _ASIDE.fullmatch(entry.name)]:
            if entry.is_dir(follow_symlinks=False):
                _remove_if_left(Path(entry.path))


def remove_temporaries() -> None:
    """Removes what this process is writing: for one that is about to end, whatever its other threads do."""
    for aside in list(_open):
        shutil.rmtree(aside, ignore_errors=True)


def bundled(kind: str) -> Path:
    """The folder of bundled ``datasets``, ``models`` or ``configs``.

    A wheel carries them inside the package; in a checkout they lie beside it.
    """
    package = Path(__file__).parent
    installed = package / "_bundled" / kind
    return installed if installed.is_dir() else package.parent / kind


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A temporary folder beside a target, locked for as long as it is there."""
    with naming(target, target.parent):
        aside, descriptor = _make_aside(target.parent)
    try:
        with naming(target, aside):
            yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        _open.discard(aside)
        if descriptor is not None:
            os.close(descriptor)


def _make_aside(folder: Path) -> tuple[Path, int | None]:
    for _ in range(_ATTEMPTS):
        aside = folder / f".tmp-orl-{secrets.token_hex(8)}"
        _open.add(aside)  # before it is there: whatever interrupts this, `remove_temporaries` knows of it
        with suppress(BlockingIOError, FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)  # who else wrote here may have left nothing, the folder included
            aside.mkdir(0o700)
            descriptor = _lock_folder(aside)
            if aside.is_dir():
                return aside, descriptor
            if descriptor is not None:
                os.close(descriptor)
        _open.discard(aside)  # another process took it for a leftover before it was locked
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))


def _lock_folder(path: Path) -> int | None:
    """A descriptor that holds a folder; None where there are no such locks.

    Raises:
        BlockingIOError: another descriptor holds it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return None
    try:
        if try_lock(descriptor):
            return descriptor
    except OSError:
        os.close(descriptor)
        return None
    os.close(descriptor)
    raise BlockingIOError


def _remove_if_left(aside: Path) -> None:
    with suppress(BlockingIOError, FileNotFoundError):
        descriptor = _lock_folder(aside)
        if descriptor is not None or time.time() - aside.stat().st_mtime > _STALE:
            shutil.rmtree(aside, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _put(inner: Path, target: Path, overwrite: bool) -> None:
    """Gives a finished file or folder the target's name."""
    if inner.is_dir():
        if overwrite and target.is_dir():
            if not _exchange(inner, target):
                _replace_folder(inner, target)
            return
        try:
            os.rename(inner, target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
    elif overwrite:
        os.replace(inner, target)
    else:
        try:
            os.link(inner, target)  # unlike a rename it fails where something is there
        except FileExistsError:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        except OSError:  # no links here
            os.rename(inner, target)


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two folders at once; False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, TypeError, AttributeError):  # TypeError: Windows
        return False
    return bool(renameat2(_AT_CWD, os.fsencode(one), _AT_CWD, os.fsencode(other), _EXCHANGE) == 0)


def _replace_folder(inner: Path, target: Path) -> None:
    """Replaces a folder in two renames; a kill between them leaves the old one where `recover` finds it."""
    kept = target.with_name(_KEPT + target.name)
    try:
        os.rename(target, kept)
        os.rename(inner, target)
    finally:
        recover(target)


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
