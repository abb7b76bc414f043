"""Where a dataset lies: bundled names, Minari ids and folders, files."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from offline_robust.datasets.findings import one_line, refusal
from offline_robust.datasets.hdf5 import links, open_hdf5
from offline_robust.datasets.minari_files import MAIN, METADATA
from offline_robust.datasets.replay_buffers import is_buffer_file
from offline_robust.errors import ConfigError, DatasetNotFound, nearest
from offline_robust.files import bundled, expanded, home, recover
from offline_robust.plain_yaml import read_yaml

SourceKind = Literal["minari", "d4rl", "d3rlpy", "npz", "csv", "parquet", "jsonl"]

RECIPE = "recipe.yaml"
POLICY = "policy.safetensors"
HDF5_SUFFIXES = (".hdf5", ".h5")
FLAT_SUFFIXES: dict[str, SourceKind] = {
    ".npz": "npz",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
FILES = ".hdf5, .h5, .npz, .csv, .parquet and .jsonl files"
"""What is read, in words."""
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".p", ".ckpt", ".joblib", ".dill")

_MINARI_ID = re.compile(r"(?:[-\w]+/)*[-\w]+-v\d+")
_NAME = re.compile(r"[-\w]+")
_SIZED = re.compile(r"(.+)-(\d+[km])")
_MAX_RECIPE = 2**16
_NO_MINARI = "no home directory; MINARI_DATASETS_PATH names their folder"
_TEXTS = ("description", "notes", "larger")
"""Keys of a recipe that change nothing in the data."""


@dataclass(frozen=True)
class Location:
    """A source that was found."""

    kind: SourceKind
    path: Path


def locate(source: str | Path, download: bool = False) -> Location:
    """Finds a source. An existing path wins over bundled names, and those over Minari ids.

    Args:
        source: a path or a name.
        download: whether a Minari dataset that is not here may be downloaded: where a person asked for it, never
            because a file names it.

    Raises:
        DatasetNotFound: nothing of that name, with the places searched and the ways to get it.
        DatasetError: something is there, but not in a format that is read.
    """
    text = str(source)
    if not text or "\0" in text:
        raise DatasetNotFound("the dataset's name is empty: give a bundled name, a Minari id, a folder or a file")
    path = expanded(source, DatasetNotFound)
    if path.exists():
        return _at(path)
    if isinstance(source, Path) or path.suffix.lower() in (*HDF5_SUFFIXES, *FLAT_SUFFIXES, *_PICKLES):
        raise DatasetNotFound(f"{path}: no such file or folder")
    if find_recipe(text) is not None:
        return _at(_with_data(text))
    if _MINARI_ID.fullmatch(text):
        return _minari(text, download)
    raise DatasetNotFound(one_line(_not_found(text)))


def bundled_names() -> list[str]:
    """Names of the bundled recipes, with their larger sizes; `bundled_data` and `made_folder` tell where data lie."""
    found = {path.parent.name: path for path in bundled("datasets").glob(f"*/{RECIPE}")}
    larger = [f"{name}-{size}" for name, path in found.items() for size in _sizes(path)]
    return sorted([*found, *larger])


def find_recipe(name: str) -> tuple[Path, str] | None:
    """The file of a bundled recipe, and which of its larger sizes the name means ("" for none); None: no such name."""
    if not _NAME.fullmatch(name):
        return None
    path = bundled("datasets") / name / RECIPE
    if path.is_file():
        return path, ""
    match = _SIZED.fullmatch(name)
    path = bundled("datasets") / match[1] / RECIPE if match else path
    return (path, match[2]) if match and path.is_file() and match[2] in _sizes(path) else None


def read_recipe(path: Path) -> dict[str, Any]:
    """The keys of a recipe file, not checked yet.

    Raises:
        ConfigError: it is not YAML of plain values.
    """
    content = read_yaml(path, "a recipe", _MAX_RECIPE, ConfigError)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: holds no keys; a recipe has at least name, env_id, seed and description")
    return content


def policy_path(policy: str, beside: Path) -> Path:
    """The file of a behaviour policy: of a bundled model, or at a path seen from the folder ``beside``."""
    if _NAME.fullmatch(policy):
        return bundled("models") / policy / POLICY
    path = beside / expanded(policy, ConfigError)
    return path / POLICY if path.is_dir() else path


def bundled_data(name: str) -> Path | None:
    """The folder of a dataset that is shipped with its data."""
    folder = bundled("datasets") / name
    return folder if (folder / "data" / METADATA).is_file() else None


def made_folder(name: str) -> Path | None:
    """Where the data of a bundled recipe lie once they are made, below `cache_root`; None where there is none.

    The folder's name changes with everything in the recipe that matters and with the policies, so that data of an
    older recipe are never taken for the new one's.

    Raises:
        DatasetNotFound: no such recipe.
        ConfigError: the recipe is not YAML.
    """
    found = find_recipe(name)
    if found is None:
        raise DatasetNotFound(one_line(_not_found(name)))
    path, size = found
    recipe = read_recipe(path)
    essence = [size, {key: value for key, value in recipe.items() if key not in _TEXTS}]
    essence += [recipe["larger"][size]] if size else []
    digest = hashlib.sha256(json.dumps(essence, sort_keys=True, default=str).encode())
    parts = recipe.get("parts")
    for part in (recipe, *(parts if isinstance(parts, list) else ())):
        policy = part.get("policy") if isinstance(part, dict) else None
        if policy and (file := policy_path(str(policy), path.parent)).is_file():
            digest.update(file.read_bytes())
    root = cache_root()
    return None if root is None else root / "datasets" / f"{name}-{digest.hexdigest()[:8]}"


def folder_to_make(name: str) -> Path:
    """As `made_folder`, where there must be one.

    Raises:
        DatasetNotFound: no such recipe, or no home directory and no other place named.
    """
    folder = made_folder(name)
    if folder is None:
        raise DatasetNotFound(
            f"{name}: its data are made on demand, and there is no home directory to keep them in: name a folder in "
            "the environment variable OFFLINE_ROBUST_CACHE"
        )
    return folder


def cache_root() -> Path | None:
    """``$OFFLINE_ROBUST_CACHE``, or ``~/.cache/offline-robust``; None where there is no home: nothing is kept then."""
    return _root("OFFLINE_ROBUST_CACHE", ".cache", "offline-robust")


def minari_root() -> Path | None:
    """Minari's folder of local datasets, None where there is no home. It is not created."""
    return _root("MINARI_DATASETS_PATH", ".minari", "datasets")


def _root(variable: str, *below: str) -> Path | None:
    if os.environ.get(variable):
        return Path(os.environ[variable])
    own = home()
    return None if own is None else own.joinpath(*below)


def minari_ids() -> list[str]:
    """Ids of the local Minari datasets."""
    root = minari_root()
    if root is None or not root.is_dir():
        return []
    return sorted(path.parents[1].relative_to(root).as_posix() for path in root.glob(f"**/data/{METADATA}"))


def _at(path: Path) -> Location:
    if path.is_dir():
        if not (path / "data").exists():
            recover(path / "data")
        for folder in (path, path / "data"):
            if (folder / METADATA).is_file():
                return Location("minari", folder)
        if any((folder / MAIN).is_file() for folder in (path, path / "data")):
            raise refusal(str(path), f"holds {MAIN} but no {METADATA}", "copy the whole data folder")
        raise refusal(str(path), f"holds no {METADATA}", f"pass a Minari data folder; {FILES} are read too")
    suffix = path.suffix.lower()
    if suffix in FLAT_SUFFIXES:
        return Location(FLAT_SUFFIXES[suffix], path)
    if suffix in HDF5_SUFFIXES:
        if path.name == MAIN and (path.parent / METADATA).is_file():
            return Location("minari", path.parent)
        with open_hdf5(path) as root:
            return Location("d3rlpy" if is_buffer_file(links(root)) else "d4rl", path)
    what = f"has the ending '{path.suffix[:20]}'"
    if suffix in _PICKLES:
        what += ", which is a pickle: opening it could run any code, and it is never opened"
        mend = "open it where you trust it, and save its arrays with numpy.savez('data.npz', observations=..., actions="
        raise refusal(str(path), what, mend + "..., rewards=..., terminals=...)")
    raise refusal(str(path), what, f"{FILES} and Minari folders are read")


def _sizes(recipe: Path) -> list[str]:
    larger = read_recipe(recipe).get("larger")
    return [str(size) for size in larger] if isinstance(larger, dict) else []


def _with_data(name: str) -> Path:
    """The folder of a recipe's data: shipped, or made on this computer."""
    folder = bundled_data(name) or folder_to_make(name)
    if not (folder / "data").exists():
        recover(folder / "data")
    if not (folder / "data" / METADATA).is_file():
        raise DatasetNotFound(
            f"{name}: its data are made on demand, in minutes, and are not here yet; make them with `offline-robust "
            f"data collect {name}`, or in Python with offline_robust.collection.make_dataset('{name}')"
        )
    return folder


def _minari(dataset_id: str, download: bool) -> Location:
    """A Minari dataset by id: the local copy, or else a download where that is asked for."""
    root = minari_root()
    if root is None:
        raise DatasetNotFound(one_line(_not_found(dataset_id)))
    folder = root / dataset_id / "data"
    if (folder / METADATA).is_file():
        return Location("minari", folder)
    if not download:
        reason = "a file names it, and no file makes this computer download: allow it with --download (download=True)"
        raise DatasetNotFound(one_line(_not_found(dataset_id, reason)))
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
    known, root = [*bundled_names(), *minari_ids()], minari_root()
    searched = f"no such path, not bundled ({bundled('datasets')}), not a local Minari dataset ({root or _NO_MINARI})"
    if _MINARI_ID.fullmatch(name):
        hub = "pip install 'offline-robust[hub]' downloads Minari ids" if not reason else "check the id and the network"
        ways = f"{hub}; or copy the dataset's folder to {root / name}" if root else "give the path of its folder"
    else:
        ways = f"give a bundled name, a Minari id like namespace/name-v0, a Minari folder or a path; {FILES} are read"
    hint = nearest(name, known) if known else ""
    return f"dataset '{name}' not found: {searched}{'; ' + reason if reason else ''}{hint}; {ways}"
