"""Where a dataset lies: bundled names, Minari ids and folders, files."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from offline_robust.datasets.hdf5 import open_hdf5
from offline_robust.datasets.minari_files import MAIN, METADATA
from offline_robust.datasets.problems import one_line, refusal
from offline_robust.errors import DatasetNotFound, nearest
from offline_robust.files import bundled

RECIPE = "recipe.yaml"
HDF5_SUFFIXES = (".hdf5", ".h5")

_MINARI_ID = re.compile(r"(?:[-\w]+/)*[-\w]+-v\d+")
_NAME = re.compile(r"[-\w]+")


@dataclass(frozen=True)
class Location:
    """A source that was found."""

    kind: Literal["minari", "d4rl", "npz"]
    path: Path


def locate(source: str | Path) -> Location:
    """Finds a source. An existing path wins over bundled names, and those over Minari ids.

    Raises:
        DatasetNotFound: nothing of that name, with the places searched and the ways to get it.
        DatasetError: something is there, but not in a format that is read.
    """
    text = str(source)
    if not text or "\0" in text:
        raise DatasetNotFound("the dataset's name is empty: give a bundled name, a Minari id, a folder or a file")
    path = Path(source).expanduser()
    if path.exists():
        return _at(path)
    if isinstance(source, Path) or path.suffix in (*HDF5_SUFFIXES, ".npz"):
        raise DatasetNotFound(f"{path}: no such file or folder")
    if _NAME.fullmatch(text) and (bundled("datasets") / text / RECIPE).is_file():
        folder = bundled("datasets") / text
        if not (folder / "data" / METADATA).is_file():
            raise DatasetNotFound(
                f"{text}: its data are not shipped; make them with `offline-robust data collect {text}`"
            )
        return _at(folder)
    if _MINARI_ID.fullmatch(text):
        return _minari(text)
    raise DatasetNotFound(one_line(_not_found(text)))


def bundled_names() -> list[str]:
    """Names of the bundled datasets."""
    root = bundled("datasets")
    return sorted(path.parent.name for path in root.glob(f"*/{RECIPE}")) if root.is_dir() else []


def minari_root() -> Path:
    """Minari's folder of local datasets. It is not created."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def minari_ids() -> list[str]:
    """Ids of the local Minari datasets."""
    root = minari_root()
    if not root.is_dir():
        return []
    return sorted(path.parents[1].relative_to(root).as_posix() for path in root.glob(f"**/data/{METADATA}"))


def _at(path: Path) -> Location:
    if path.is_dir():
        for folder in (path, path / "data"):
            if (folder / METADATA).is_file():
                return Location("minari", folder)
        if any((folder / MAIN).is_file() for folder in (path, path / "data")):
            raise refusal(str(path), f"holds {MAIN} but no {METADATA}", "copy the whole data folder")
        raise refusal(str(path), f"holds no {METADATA}", "pass a Minari data folder, an .hdf5 or an .npz file")
    if path.suffix == ".npz":
        return Location("npz", path)
    if path.suffix in HDF5_SUFFIXES:
        if path.name == MAIN and (path.parent / METADATA).is_file():
            return Location("minari", path.parent)
        with open_hdf5(path):
            return Location("d4rl", path)
    known = ", ".join((*HDF5_SUFFIXES, ".npz"))
    raise refusal(str(path), f"has the ending '{path.suffix}'", f"{known} files and Minari folders are read")


def _minari(dataset_id: str) -> Location:
    """A Minari dataset by id: the local copy, or else a download."""
    folder = minari_root() / dataset_id / "data"
    if (folder / METADATA).is_file():
        return Location("minari", folder)
    if importlib.util.find_spec("huggingface_hub") is None:
        raise DatasetNotFound(one_line(_not_found(dataset_id)))
    try:
        import minari

        minari.download_dataset(dataset_id)
    except Exception as error:  # Minari and its hub raise many kinds, some of them not even OSError
        reason = f"{type(error).__name__}: {error}"
        raise DatasetNotFound(one_line(_not_found(dataset_id, f"the download failed ({reason})"))) from None
    if not (folder / METADATA).is_file():
        raise DatasetNotFound(f"{dataset_id}: the download left no {folder / METADATA}")
    return Location("minari", folder)


def _not_found(name: str, reason: str = "") -> str:
    """One line: the places searched, names that are near, and how to get the data."""
    known = [*bundled_names(), *minari_ids()]
    searched = f"no such path, not bundled ({bundled('datasets')}), not a local Minari dataset ({minari_root()})"
    if _MINARI_ID.fullmatch(name):
        hub = "pip install 'offline-robust[hub]' downloads Minari ids" if not reason else "check the id and the network"
        ways = f"{hub}; or copy the dataset's folder to {minari_root() / name}"
    else:
        ways = "give a bundled name, a Minari id like namespace/name-v0, a Minari folder, an .hdf5 or an .npz file"
    hint = nearest(name, known) if known else ""
    return f"dataset '{name}' not found: {searched}{'; ' + reason if reason else ''}{hint}; {ways}"
