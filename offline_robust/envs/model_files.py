"""The files that a simulator reads for an environment: those that its arguments name, and those that they name."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_MAX_NAME, _MAX_FILES, _MAX_NAMES, _MAX_FOLDERS = 1_000, 10_000, 20_000, 50
_MAX_TEXT = 50_000_000
_MAX_HASHED = 500_000_000
_NAMED = re.compile(r"""=\s*["']([^"'<>\n]{1,1000}\.[A-Za-z]\w*)["']""")
_FOLDERS = re.compile(r"""\b(?:meshdir|texturedir|assetdir)\s*=\s*["']([^"'<>\n]{1,1000})["']""")


def model_files(env_kwargs: Mapping[str, Any]) -> list[Path]:
    """Every file that keyword arguments name, and those that XML among them names: includes, meshes, height fields,
    skins, textures, attached models, at any depth.

    Names are looked for beside the file that holds them, beside the first one, and in the asset folders that any of
    them sets; so a file more may be listed than is read, never one less. What is missing or cannot be read is left out.
    """
    found: dict[Path, None] = {}
    for text in _texts(env_kwargs):
        path = _file(Path(text)) if text[:1] != "~" else _at_home(text)
        if path is not None:
            found.update(dict.fromkeys(_reached(path)))
    return list(found)[:_MAX_FILES]


def files_stamp(env_kwargs: Mapping[str, Any]) -> str:
    """Changes when one of the `model_files` does: names, sizes and times, quickly; "" where there are none."""
    return "\n".join(f"{path} {_state(path)}" for path in model_files(env_kwargs))


def forget_assets() -> None:
    """Has MuJoCo read meshes, height fields and textures again: it keeps them, and tells their state by the second."""
    mujoco = sys.modules.get("mujoco")
    if mujoco is not None:
        mujoco.mj_clearCache(mujoco.mj_getCache())


def files_digest(files: list[Path]) -> str:
    """SHA-256 of what is in some files; beyond half a gigabyte in all their sizes and times stand for it."""
    digest, left = hashlib.sha256(), _MAX_HASHED
    for path in sorted(files):
        digest.update(f"\0{path.name}\0".encode())
        try:
            size = path.stat().st_size
            if size <= left:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
                left -= size
                continue
        except OSError:
            pass
        digest.update(_state(path).encode())
    return digest.hexdigest()


def _state(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:
        return "gone"
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"


def _texts(value: Any) -> Iterator[str]:
    """The texts in arguments, those in lists and dictionaries too."""
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if isinstance(text, str) and 0 < len(text) < _MAX_NAME:
            yield text
    elif isinstance(value, Mapping | list | tuple):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(entry)


def _at_home(text: str) -> Path | None:
    try:
        return _file(Path(text).expanduser())
    except RuntimeError:  # nobody knows where home is
        return None


def _file(path: Path) -> Path | None:
    try:
        return path.resolve() if path.is_file() else None
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, links in a circle
        return None


def _reached(first: Path) -> list[Path]:
    """A file and what it names, with what that names."""
    texts: dict[Path, str] = {}
    files: dict[Path, None] = {first: None}
    tried: set[Path] = set()
    while True:
        for path in files:
            if path not in texts:
                texts[path] = _xml(path)
        beside = {first.parent, *(path.parent for path, text in texts.items() if text)}
        assets = {match[1] for text in texts.values() for match in _FOLDERS.finditer(text)}
        folders = sorted(beside | {folder / name for folder in beside for name in assets})[:_MAX_FOLDERS]
        names = {match[1] for text in texts.values() for match in _NAMED.finditer(text)}
        # With `strippath` MuJoCo looks for the bare name.
        names = set(sorted(names | {Path(name).name for name in names})[:_MAX_NAMES])
        places = {folder / name for name in names for folder in folders} - tried
        tried |= places
        new = {path for path in map(_file, places) if path is not None and path not in files}
        if not new or len(files) > _MAX_FILES:
            return list(files)
        files.update(dict.fromkeys(sorted(new)))


def _xml(path: Path) -> str:
    """The text of a file that looks like XML, else nothing."""
    try:
        with path.open("rb") as file:
            start = file.read(1_000)
            if b"<" not in start or b"\0" in start:
                return ""
            return (start + file.read(_MAX_TEXT)).decode("utf-8", "replace")
    except OSError:
        return ""
