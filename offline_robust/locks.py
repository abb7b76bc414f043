"""One writer a folder: a lock that the system lets go of when its process ends, however it ends.

Readers never ask for it. The file that carries it, ``.lock``, says who writes, and is removed by who lets go of it; one
that a killed process left behind holds nobody up.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import stat
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from offline_robust.errors import FULL, FolderInUse, UserError

LOCK = ".lock"
_MAX_BYTES, _MAX_COMMAND = 4_096, 160
_POLL = 0.1
_ATTEMPTS = 20
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class _Held(NamedTuple):
    thread: int
    descriptor: int | None
    made: list[Path]
    """Folders that were not there before, the innermost first."""


_held: dict[Path, _Held] = {}
"""Folders that this process writes into."""


@contextmanager
def writing(folder: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Holds a folder while the block runs; what the block calls may hold it again.

    A folder that is not there is made, and is gone again when the block has left nothing in it.

    Args:
        folder: the one to write into.
        wait: whether to wait for another writer rather than to refuse.

    Raises:
        FolderInUse: another process, or another thread of this one, writes there; says who and since when.
        UserError: the folder cannot be made or written into.
    """
    place = Path(os.path.realpath(folder))  # Path.resolve would raise on a circle of links
    if place in _held and _held[place].thread == threading.get_ident():
        yield
        return
    made = [path for path in (place, *place.parents) if not path.exists()]
    descriptor = _take(place, Path(folder), wait)
    _held[place] = _Held(threading.get_ident(), descriptor, made)
    try:
        yield
    finally:
        _let_go(place, _held.pop(place))


def let_go_of_all() -> None:
    """Lets go of every folder: for a process that is about to end."""
    for place, held in list(_held.items()):
        _let_go(place, held)


def try_lock(descriptor: int) -> bool:
    """Locks an open file or folder; False where another descriptor has it locked.

    Raises:
        OSError: there are no such locks here.
    """
    from filelock import lock_descriptor  # a twentieth of a second, for those who write

    return lock_descriptor(descriptor, blocking=False)


def _take(place: Path, named: Path, wait: bool) -> int | None:
    """The descriptor that holds the folder; None where the file system has no locks."""
    path = place / LOCK
    while True:
        try:
            descriptor = _open(place)
        except OSError as error:
            raise _unusable(named, error) from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UserError(f"{named}: its {LOCK} is not an ordinary file; remove it, or choose another folder")
            if not try_lock(descriptor):
                if not wait:
                    raise FolderInUse(f"{named}: {_holder(path)}; wait for it, stop it, or choose another folder")
                time.sleep(_POLL)
            elif _is_at(descriptor, path):  # else its last holder has removed it meanwhile
                _say_who(descriptor)
                return descriptor
        except OSError as error:
            warnings.warn(f"{named}: no locks here ({error.strerror}); two writers would not notice", stacklevel=5)
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(place: Path) -> int:
    path = place / LOCK
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError):  # who wrote here has left nothing, the folder included
            place.mkdir(parents=True, exist_ok=True)
            try:
                return os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o666)
            except PermissionError:  # another user's, left by a kill: it can be locked all the same
                if not os.path.lexists(path):
                    raise
                return os.open(path, os.O_RDONLY | _FLAGS)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place))


def _let_go(place: Path, held: _Held) -> None:
    # Removed while it is still held: who has it open by now sees that it is gone, and takes a new one.
    with suppress(OSError):
        (place / LOCK).unlink(missing_ok=True)
    if held.descriptor is not None:
        os.close(held.descriptor)
        if os.name == "nt":  # an open file cannot be removed there
            with suppress(OSError):
                (place / LOCK).unlink(missing_ok=True)
    with suppress(OSError):  # something is in it
        for path in held.made:
            path.rmdir()


def _unusable(named: Path, error: OSError) -> Exception:
    if error.errno in FULL:
        return OSError(error.errno, os.strerror(error.errno), str(named))
    return UserError(f"{named}: cannot be written ({error.strerror}); choose another folder")


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _say_who(descriptor: int) -> None:
    """Writes this process into the lock's file, for the message of who comes second."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    about = {
        "pid": os.getpid(),
        "host": platform.node(),
        "command": command[:_MAX_COMMAND],
        "since": datetime.now(UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00") + " UTC",
    }
    with suppress(OSError):  # a full disk has room for the lock, if not for the name
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 1, os.SEEK_SET)  # Windows lets nobody read the first byte, which is locked
        os.write(descriptor, json.dumps(about).encode())


def _holder(path: Path) -> str:
    """Who has a lock, in words. The file may be anybody's."""
    try:
        about = json.loads(_content(path))
        pid, host, command, since = (about[key] for key in ("pid", "host", "command", "since"))
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return "another process writes there"
    if host == platform.node() and pid == os.getpid():
        return f"another thread of this process writes there, since {str(since)[:40]}"
    where = "" if host == platform.node() else f" on {str(host)[:80]}"
    return f"process {str(pid)[:20]}{where} writes there, since {str(since)[:40]} ({str(command)[:_MAX_COMMAND]})"


def _content(path: Path) -> bytes:
    """What the holder says; it may only just have taken the lock."""
    for _ in range(5):
        descriptor = os.open(path, os.O_RDONLY | _FLAGS)
        try:
            os.lseek(descriptor, 1, os.SEEK_SET)
            if content := os.read(descriptor, _MAX_BYTES):
                return content
        finally:
            os.close(descriptor)
        time.sleep(_POLL / 2)
    return b""
