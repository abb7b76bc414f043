"""Writers of the three formats, and `convert` between them: there and back is exact.

The same content gives the same bytes. What a format has no place for (environment, spaces, the mask of true next
observations, episode starts) goes under our own prefix, which other readers pass over.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import h5py
import numpy as np
from numpy.typing import NDArray

from offline_robust.datasets.minari_files import MAIN, MASK, METADATA
from offline_robust.datasets.spaces import OWN_PREFIX, Description, encode_description
from offline_robust.datasets.transitions import TransitionDataset
from offline_robust.environment import WrapperSpec, encode_space
from offline_robust.errors import DatasetError
from offline_robust.files import recover, replacing
from offline_robust.locks import writing

Format = Literal["minari", "d4rl", "npz"]
ExactColumns = Mapping[str, NDArray[Any]] | None

# Readable by every HDF5 from 1.10 on, and a fifth smaller than the oldest layout for many small groups.
_LIBVER = ("v108", "v110")
_MINARI_VERSION = "0.5.4"
_MOMENT = (1980, 1, 1, 0, 0, 0)
_BLOCK = 2**22


def write_minari(
    dataset: TransitionDataset,
    folder: str | Path,
    *,
    dataset_id: str | None = None,
    description: str | None = None,
    overwrite: bool = False,
    collection: Mapping[str, Any] | None = None,
    exact: ExactColumns = None,
    **metadata: Any,
) -> Path:
    """Writes ``folder/data`` in Minari's HDF5 layout; ``minari.MinariDataset(folder / "data")`` opens it.

    Args:
        dataset: what to write. Within an episode every true next observation must be the next row's observation.
        folder: the dataset's folder; other files in it are left alone.
        dataset_id: ``namespace/name-vN``; the one it was read under, or one made from the folder's name, when None.
        description: free text for Minari's listing.
        overwrite: replace an existing ``folder/data``.
        collection: how the data were made, as plain values; it is read back into the provenance.
        exact: arrays to write in place of the dataset's, which float32 does not hold (`assemble.exact_columns`).
        metadata: further fields of metadata.json (``author``, ``algorithm_name``, ``code_permalink``, ...).

    Returns:
        The data folder.

    Raises:
        DatasetError: the target exists, or rows do not chain, which T+1 observations per episode cannot express.
    """
    data = Path(folder) / "data"
    about = {"dataset_id": dataset_id, "description": description, "collection": collection, **metadata}
    with writing(folder), new_target(data, overwrite) as aside:
        fill_minari(dataset, aside, Path(folder), about, exact)
    return data


def fill_minari(
    dataset: TransitionDataset, data: Path, folder: Path, about: Mapping[str, Any], exact: ExactColumns = None
) -> None:
    """Makes the data folder that `write_minari` puts in place.

    Args:
        dataset: as there.
        data: the folder to make.
        folder: the dataset's; its name gives the id where there is no other.
        about: the arguments of `write_minari` that say what the data are.
        exact: as there.

    Raises:
        DatasetError: rows do not chain.
    """
    metadata = dict(about)
    dataset_id, description, collection = (metadata.pop(key) for key in ("dataset_id", "description", "collection"))
    arrays, environment = _arrays(dataset, exact), dataset.environment
    arrays["actions"] = _logged_actions(dataset, arrays["actions"])
    action_space = environment.action_space if environment is not None else None
    starts = _starts(arrays["episode"])
    jump = _jumps(arrays)
    if jump is not None:
        raise DatasetError(
            f"{folder / 'data'}: row {jump:,} has a next observation that is not the next row's observation, which "
            "Minari's layout cannot hold: write .hdf5 or .npz instead"
        )
    spec = _env_spec(dataset)
    content = {
        "total_episodes": len(starts),
        "total_steps": len(dataset),
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": encode_space(dataset.observation_space),
        "action_space": encode_space(action_space or dataset.action_space),
        **({"env_spec": spec} if spec else {}),
        "dataset_id": dataset_id or dataset.provenance.get("dataset_id") or f"{Path(folder).resolve().name}-v0",
        "minari_version": _MINARI_VERSION,
        **({"description": description} if description else {}),
        **metadata,
        "offline_robust": {
            "env_id": dataset.env_id,
            "env_kwargs": {} if environment is None else dict(environment.kwargs),
            **({"environment": environment.to_dict()} if environment is not None and not environment.only_id else {}),
            **({"collection": dict(collection)} if collection else {}),
        },
    }
    data.mkdir()
    with new_hdf5(data / MAIN, libver=_LIBVER) as file:
        for number, (begin, end) in enumerate(zip(starts, [*starts[1:], len(dataset)], strict=True)):
            _write_episode(file.create_group(f"episode_{number}"), number, arrays, int(begin), int(end))
    content["dataset_size"] = round((data / MAIN).stat().st_size / 1e6, 1)
    (data / METADATA).write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


def write_d4rl(
    dataset: TransitionDataset, path: str | Path, *, overwrite: bool = False, exact: ExactColumns = None
) -> Path:
    """Writes one HDF5 file in D4RL's layout; ``exact`` as in `write_minari`.

    ``next_observations`` is left out where it would say no more than the rows that follow, as in early D4RL files.

    Raises:
        DatasetError: the target exists.
    """
    path = Path(path)
    with new_target(path, overwrite) as aside, new_hdf5(aside, libver=_LIBVER) as file:
        for name, values in _flat_columns(dataset, exact).items():
            file.create_dataset(name, data=values, track_times=False)
    return path


def write_npz(
    dataset: TransitionDataset, path: str | Path, *, overwrite: bool = False, exact: ExactColumns = None
) -> Path:
    """Writes one npz archive with D4RL's names; ``numpy.load`` reads it without pickle; ``exact`` as in `write_minari`.

    Raises:
        DatasetError: the target exists.
    """
    path = Path(path)
    with new_target(path, overwrite) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        for name, values in _flat_columns(dataset, exact).items():
            buffer = BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(values), allow_pickle=False)
            # A fixed moment: the archive's bytes depend on nothing but the data.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _MOMENT), buffer.getvalue())
    return path


def target_format(target: str | Path, to: str | None = None) -> Format:
    """The format of a target: ``to`` where given, else by its ending (.npz, .hdf5 or .h5, a folder for Minari).

    Raises:
        DatasetError: the ending or ``to`` is not known.
    """
    formats: dict[str, Format] = {"minari": "minari", "d4rl": "d4rl", "npz": "npz"}
    endings: dict[str, Format] = {".npz": "npz", ".hdf5": "d4rl", ".h5": "d4rl", "": "minari"}
    if to is not None:
        if to not in formats:
            raise DatasetError(f"format '{to}' is not known: minari, d4rl and npz are")
        return formats[to]
    suffix = Path(target).suffix
    if suffix not in endings:
        raise DatasetError(f"{target}: the ending '{suffix}' says no format: use .hdf5, .npz, a folder, or --to minari")
    return endings[suffix]


def write_dataset(
    dataset: TransitionDataset,
    target: str | Path,
    *,
    to: str | None = None,
    overwrite: bool = False,
    exact: ExactColumns = None,
) -> Path:
    """Writes a dataset in the format that the target's ending or ``to`` names (`target_format`)."""
    form = target_format(target, to)
    if form == "minari":
        return write_minari(dataset, target, overwrite=overwrite, exact=exact)
    return (write_d4rl if form == "d4rl" else write_npz)(dataset, target, overwrite=overwrite, exact=exact)


def _write_episode(group: h5py.Group, number: int, arrays: Mapping[str, NDArray[Any]], begin: int, end: int) -> None:
    rows = slice(begin, end)
    group.attrs["id"] = number
    group.attrs["total_steps"] = end - begin
    last = arrays["next_observations"][end - 1 : end]
    columns = {
        "observations": np.concatenate([arrays["observations"][rows], last]),
        "actions": arrays["actions"][rows],
        "rewards": arrays["rewards"][rows],
        "terminations": arrays["terminated"][rows],
        "truncations": arrays["truncated"][rows],
    }
    if not arrays["next_valid"][rows].all():
        columns[MASK] = arrays["next_valid"][rows]
    for name, values in columns.items():
        group.create_dataset(name, data=values, track_times=False)


def _flat_columns(dataset: TransitionDataset, exact: ExactColumns) -> dict[str, NDArray[Any]]:
    """D4RL's arrays and our own additions, by key."""
    arrays = _arrays(dataset, exact)
    valid = arrays["next_valid"]
    last = np.r_[np.diff(arrays["episode"]) != 0, True]
    columns = {
        "observations": arrays["observations"],
        "actions": arrays["actions"],
        "rewards": arrays["rewards"],
        "terminals": arrays["terminated"],
        "timeouts": arrays["truncated"],
    }
    if (valid & last).any() or _jumps(arrays) is not None:
        columns["next_observations"] = arrays["next_observations"]
    if not valid.all():
        columns[OWN_PREFIX + "next_valid"] = valid
    columns[OWN_PREFIX + "episode_starts"] = _starts(arrays["episode"])
    about = Description(dataset.observation_space, dataset.action_space, dataset.environment)
    columns[OWN_PREFIX + "description"] = np.frombuffer(encode_description(about).encode(), np.uint8)
    return columns


def _arrays(dataset: TransitionDataset, exact: ExactColumns) -> dict[str, NDArray[Any]]:
    """The tensors as arrays; fillers become the row's own observation, so that equal data give equal bytes."""
    if dataset.extras:
        raise DatasetError(f"files have no place for the further columns {', '.join(sorted(dataset.extras))}")
    names = ("observations", "actions", "rewards", "terminated", "truncated", "next_valid", "episode")
    arrays = {name: getattr(dataset, name).cpu().numpy() for name in names} | dict(exact or {})
    after = arrays.get("next_observations", dataset.next_observations.cpu().numpy())
    arrays["next_observations"] = np.where(arrays["next_valid"][:, None], after, arrays["observations"])
    return arrays


def _starts(episode: NDArray[Any]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.flatnonzero(np.diff(episode)) + 1]).astype(np.int64)


def _jumps(arrays: Mapping[str, NDArray[Any]]) -> int | None:
    """The first row within an episode whose true next observation is not the next row's observation."""
    differs = (arrays["next_observations"][:-1] != arrays["observations"][1:]).any(axis=1)
    inside = np.diff(arrays["episode"]) == 0
    rows = np.flatnonzero(differs & inside & arrays["next_valid"][:-1])
    return int(rows[0]) if len(rows) else None


def _env_spec(dataset: TransitionDataset) -> str | None:
    """Gymnasium's JSON for a registered environment, which is what `recover_environment` of Minari needs.

    Observations that are kept flat say so by a FlattenObservation around the environment. None, with a warning, where
    the environment has no JSON (it was registered with a class or a function, or with keywords that JSON does not
    hold): `offline_robust` in metadata.json names it all the same.
    """
    environment = dataset.environment
    if environment is None or environment.id not in gym.registry:
        return None
    try:
        content = json.loads(gym.spec(environment.id).to_json())
    except Exception as error:  # Gymnasium raises several kinds, for whatever it meets in the registration
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        warnings.warn(
            f"{environment.id}: written without env_spec, for Gymnasium cannot put its registration into JSON "
            f"({reason}); register it as 'module:Class', and Minari's recover_environment works too",
            stacklevel=3,
        )
        return None
    content["kwargs"] = {**content.get("kwargs", {}), **environment.kwargs}
    if environment.step_limit is not None:
        content["max_episode_steps"] = environment.step_limit or None
    wrappers = list(environment.wrappers)
    if environment.observation_space not in (None, dataset.observation_space):
        wrappers.append(WrapperSpec("FlattenObservation"))
    content["additional_wrappers"] = [
        {
            "name": wrapper.name,
            "entry_point": f"{wrapper.module}:{wrapper.name}",
            "kwargs": dict(wrapper.kwargs) if wrapper.recorded else None,
        }
        for wrapper in wrappers
    ]
    return json.dumps(content)


def _logged_actions(dataset: TransitionDataset, actions: NDArray[Any]) -> NDArray[Any]:
    """Actions as the environment takes them: in its shape and type, counted from its first number."""
    space = dataset.environment.action_space if dataset.environment is not None else None
    if isinstance(space, gym.spaces.Discrete):
        return np.asarray(actions + int(space.start))
    if isinstance(space, gym.spaces.Box) and space != dataset.action_space:
        shaped = actions.reshape(len(actions), *space.shape)
        wider = shaped.dtype == np.float64 and space.dtype is not None and space.dtype.kind == "f"
        return shaped if wider else np.asarray(shaped.astype(space.dtype))
    return actions


@contextmanager
def new_target(path: Path, overwrite: bool) -> Iterator[Path]:
    """`replacing` for a dataset's file or folder, which is not replaced unasked.

    Raises:
        DatasetError: it exists, by now or by the time that the block is done.
    """
    recover(path)
    exists = DatasetError(f"{path}: exists already; choose another name, or overwrite it (overwrite=True, --overwrite)")
    if path.exists() and not overwrite:
        raise exists
    try:
        with replacing(path, overwrite=overwrite) as aside:
            yield aside
    except FileExistsError as error:
        if str(error.filename) != str(path):
            raise
        raise exists from None


@contextmanager
def new_hdf5(path: Path, libver: tuple[str, str] | None = None) -> Iterator[h5py.File]:
    """A new HDF5 file, made in memory and written when the block is done.

    HDF5 itself does not survive a disk that fills: closing the file fails, and the process dies of it later.
    """
    with h5py.File(path.name, "w", libver=libver, driver="core", backing_store=False, block_size=_BLOCK) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    path.write_bytes(image)
