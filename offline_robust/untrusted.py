"""What comes from somebody else: JSON of bounded numbers, plain files only, no code, no more memory than there is.

Every reader of JSON, of a run folder's files and of an environment's name goes through here, so that each bound is in
one place; docs/reference/limits.md lists them.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from offline_robust.errors import ConfigError, UserError

MAX_JSON_DEPTH = 64
"""Levels of nesting of JSON that are read."""
MAX_NUMBER, MAX_STEP = 1e100, 2.0**53
"""Returns, levels and metrics of foreign tables up to here, and steps: their squares and sums are numbers still."""
MAX_LINE = 2**20
"""Bytes of one line of metrics.jsonl that are read."""
MEMORY = "OFFLINE_ROBUST_MEMORY"
"""Environment variable: the bytes that may be taken (8000000000, 8G), in place of what the system says is free."""

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_AMOUNT = re.compile(r"(\d{1,15})([kmgt]?)b?", re.IGNORECASE)
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
_CODE_TEXT = re.compile(r"[A-Za-z_][\w.]+:[A-Za-z_][\w./-]*")
_CODE_IDS = re.compile(r"(?:.*/)?GymV\d+\w*(?:-v\d+)?")
_CODE_KEYS = (
    "env_id", "env_fn", "make_kwargs", "entry_point", "vector_entry_point", "additional_wrappers", "module",
    "class_path", "_target_",
)  # fmt: skip


class Unreadable(UserError, OSError):
    """A file that is not opened: a pipe, a device, or a link that leads out of its folder."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class CodeRefused(UserError):
    """An environment whose name or arguments would import code."""


# --- JSON -----------------------------------------------------------------------------------------------------------


def parse_json(text: str | bytes, most: int | None = None) -> Any:
    """JSON of plain values: whole numbers of 64 bits, `MAX_JSON_DEPTH` levels, text that can be written again.

    NaN and Infinity, which Python writes, are read.

    Args:
        text: the document.
        most: its characters or bytes, at most.

    Raises:
        ValueError: it is not; one line that says what is wrong.
    """
    if most is not None and len(text) > most:
        raise ValueError(f"{len(text):,} bytes of JSON, at most {most:,} are read")
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        value = _DECODER.decode(text)
        if text.count("[") + text.count("{") > MAX_JSON_DEPTH:
            _check_depth(value)
        if _HALF_CHARACTER.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_JSON_DEPTH} levels") from None
    except UnicodeEncodeError:
        raise ValueError("holds half of a character (a lone surrogate)") from None
    return value


def readable_object(folder: Path, name: str, most: int) -> dict[str, Any]:
    """What a file inside a folder says, a JSON object; nothing where it is missing, damaged or larger than ``most``."""
    try:
        content = parse_json(read_regular(within(folder, name), most))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _whole(text: str) -> int:
    # Python would take thousands of digits, and the first float or numpy array made of them would fail far from here.
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        raise ValueError(f"holds a whole number of more than 64 bits ({text[:20]}...)")
    return int(text)


_DECODER = json.JSONDecoder(parse_int=_whole)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_JSON_DEPTH + 1):
        outers = [item for item in level if isinstance(item, dict | list)]
        if not outers:
            return
        level = [inner for outer in outers for inner in (outer.values() if isinstance(outer, dict) else outer)]
    raise ValueError(f"nested deeper than {MAX_JSON_DEPTH} levels")


# --- Files ----------------------------------------------------------------------------------------------------------


def open_regular(path: str | Path) -> BufferedReader:
    """Opens a regular file for reading; nothing waits for a pipe, and no device is read.

    Raises:
        Unreadable: something else than a file.
        OSError: it cannot be opened.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise _not_a_file(path, mode)
    return open(descriptor, "rb")


def read_regular(path: str | Path, most: int) -> bytes:
    """The content of a regular file.

    Raises:
        Unreadable: something else than a file, or larger than ``most`` bytes.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise Unreadable(errno.EFBIG, f"larger than {most:,} bytes", str(path))
    return content


def read_lines(file: BinaryIO, most: int = MAX_LINE) -> Iterator[bytes]:
    """The lines of a file, each cut at ``most`` bytes; the rest of a longer one comes as a line of its own."""
    while line := file.readline(most):
        yield line


def within(folder: str | Path, name: str) -> Path:
    """The path of a file or folder below a folder that may come from anyone, also where nothing is there.

    The folder itself may be a link; what lies in it may be a link only to something else in it.

    Raises:
        Unreadable: it leads out of the folder, or is a pipe or a device.
    """
    path = Path(folder) / name
    root, real = os.path.realpath(folder), os.path.realpath(path)
    if os.path.commonpath([root, real]) != root:
        raise Unreadable(
            errno.ELOOP,
            f"is a link to {real[:200]}, out of its folder; put the file itself there (or move the whole folder and "
            "link to that)",
            str(path),
        )
    try:
        mode = os.stat(real).st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Unreadable(errno.ELOOP, "is a link to itself", str(path)) from None
        return path
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise _not_a_file(path, mode)
    return path


def _not_a_file(path: str | Path, mode: int) -> Unreadable:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    kind = next((name for test, name in kinds if test(mode)), "a device")
    return Unreadable(errno.EISDIR if kind == "a folder" else errno.ENXIO, f"is {kind}, not a file", str(path))


# --- Code -----------------------------------------------------------------------------------------------------------


def refuse_code(env_id: object, env_kwargs: object = None) -> None:
    """Refuses an environment that a file names and that would import code: files are data.

    ``module:Env`` is imported by Gymnasium, and wrappers around older environments (``GymV21Environment-v0``) import
    what their arguments name. Files that arguments name (a MuJoCo model) are data and stay allowed.

    Args:
        env_id: as the file has it; what is not a text names nothing.
        env_kwargs: arguments for it, of any depth.

    Raises:
        CodeRefused: says what would be imported.
    """
    how = "name them in `evaluate --env`, give the id here and --import MODULE, or import it in a script of yours"
    if isinstance(env_id, str) and ":" in env_id:
        raise CodeRefused(f"module:Env ids import code: {how} (got {env_id[:80]!r})")
    if isinstance(env_id, str) and _CODE_IDS.fullmatch(env_id):
        raise CodeRefused(
            f"{env_id[:80]} imports what its arguments name: make such an environment in a script of yours"
        )
    if found := _names_code(env_kwargs):
        raise CodeRefused(
            f"env_kwargs: {found[:80]!r} names code to import; make such an environment in a script of yours"
        )


def _names_code(value: Any) -> str:
    """The first key or text that names code, else ""."""
    if isinstance(value, str):
        return value if _CODE_TEXT.fullmatch(value) else ""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in _CODE_KEYS:
                return str(key)
            if found := _names_code(inner):
                return found
    elif isinstance(value, list | tuple):
        return next((found for inner in value if (found := _names_code(inner))), "")
    return ""


# --- Memory ---------------------------------------------------------------------------------------------------------


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, of its control group and of its own limit.

    `MEMORY` says otherwise where it is set.

    Raises:
        ConfigError: `MEMORY` is not an amount.
    """
    if said := os.environ.get(MEMORY, "").strip():
        match = _AMOUNT.fullmatch(said)
        if match is None:
            raise ConfigError(f"{MEMORY}={said[:40]!r}: write bytes, or an amount such as 8G")
        return int(match[1]) * _UNITS[match[2].lower()]
    return max(0, min(_of_machine(), _of_group(), _of_process()))


def _of_machine() -> int:
    if found := re.search(r"^MemAvailable:\s+(\d+) kB", _proc("/proc/meminfo"), re.MULTILINE):
        return int(found[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # no such file: half of all
    except (AttributeError, ValueError, OSError):
        return 2**33


def _of_group() -> int:
    for limit, used, reclaimable in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        most, now = (_proc(f"/sys/fs/cgroup/{name}").strip() for name in (limit, used))
        if most.isdigit() and now.isdigit():
            cached = re.search(r"^(?:total_)?inactive_file (\d+)", _proc(f"/sys/fs/cgroup/{reclaimable}"), re.MULTILINE)
            return int(most) - int(now) + (int(cached[1]) if cached else 0)
    return 2**62


def _of_process() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 2**62
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return 2**62
    pages = _proc("/proc/self/statm").split()
    return most - (int(pages[0]) * os.sysconf("SC_PAGE_SIZE") if pages else 0)


def _proc(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(100_000)
    except OSError:
        return ""
