"""`load_dataset` and `check`: the same readers and the same findings, once strict and once as a report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offline_robust.datasets.assemble import assemble, infer_spaces
from offline_robust.datasets.cache import Cache
from offline_robust.datasets.checks import findings
from offline_robust.datasets.flat_files import read_arrays, read_d4rl, read_npz, use_environment
from offline_robust.datasets.logged import Logged
from offline_robust.datasets.minari_files import read_minari
from offline_robust.datasets.problems import FileProblem, Problem, raise_errors
from offline_robust.datasets.sources import Location, locate
from offline_robust.datasets.transitions import TransitionDataset
from offline_robust.datasets.writers import target_format, write_dataset

_READERS = {"minari": read_minari, "d4rl": read_d4rl, "npz": read_npz}


def load_dataset(
    source: str | Path | Mapping[str, Any],
    *,
    env_id: str | None = None,
    device: str = "cpu",
    cache: bool = True,
    download: bool = True,
) -> TransitionDataset:
    """Loads logged transitions.

    Rewards stay as logged. An episode's last row is terminated (a true end) or truncated (cut; its value goes on).
    Terminal and cut rows are kept also where no true next observation was logged; ``next_valid`` is false there.

    Args:
        source: a bundled name (``"pendulum-td3"``), a Minari id (``"mujoco/hopper/medium-v0"``; the local copy, else
            a download), a Minari folder, a D4RL-layout ``.hdf5`` file, an ``.npz`` file, or a dictionary of arrays
            (``observations``, ``actions``, ``rewards``, ``terminals``, and optionally ``timeouts``,
            ``next_observations``, ``next_valid``, ``episode``, ``observation_space``, ``action_space``). An existing
            path wins over a name.
        env_id: the Gymnasium environment the data came from. It wins over what the source says, and gives the
            spaces (and an early D4RL file's time limit) where the source does not state them.
        device: where the tensors shall live.
        cache: whether a folder of many episodes may be kept as one flat file in ``$OFFLINE_ROBUST_CACHE`` or
            ``~/.cache/offline-robust``, which makes the next load fast.
        download: whether a Minari id that is not here is downloaded. Pass False for names that come from a file.

    Raises:
        DatasetNotFound: there is nothing of that name.
        DatasetError: the data are damaged or contradict themselves; one line that names file, key and row.
    """
    if isinstance(source, Mapping):
        return _strict(read_arrays(source), env_id).to(device)
    location = locate(source, download)
    store = Cache(location, env_id) if cache else None
    dataset = store.load() if store is not None else None
    if dataset is None:
        dataset = _strict(_READERS[location.kind](location.path), env_id)
        if store is not None:
            store.save(dataset)
    return dataset.to(device)


def check(source: str | Path | Mapping[str, Any], *, env_id: str | None = None) -> list[Problem]:
    """Reads leniently and lists everything that is wrong or worth knowing, errors first.

    A source loads exactly when no finding is an ``error``.

    Raises:
        DatasetNotFound: there is nothing of that name.
    """
    location: Location | None = None
    try:
        if not isinstance(source, Mapping):
            location = locate(source, download=True)
        logged = read_arrays(source) if location is None else _READERS[location.kind](location.path)  # type: ignore[arg-type]
        _complete(logged, env_id)
    except FileProblem as error:
        return [error.problem]
    return findings(logged)


def convert(source: str | Path, target: str | Path, *, to: str | None = None, overwrite: bool = False) -> Path:
    """Writes a dataset in another format: Minari (a folder), D4RL (.hdf5) or npz, by the target's ending or ``to``.

    There and back is exact: transitions, episodes, masks, spaces and environment. What `TransitionDataset` does not
    hold (``infos``, episode seeds, reference scores) is left behind.

    Returns:
        What was written.

    Raises:
        DatasetError: the source does not load, the target exists, or its format cannot express the data.
    """
    target_format(target, to)
    return write_dataset(load_dataset(source, cache=False), target, to=to, overwrite=overwrite)


def _strict(logged: Logged, env_id: str | None) -> TransitionDataset:
    # What the reader found comes first: spaces inferred from half the episodes would hide it.
    raise_errors(logged.problems)
    _complete(logged, env_id)
    raise_errors(findings(logged))
    return assemble(logged)


def _complete(logged: Logged, env_id: str | None) -> None:
    """Spaces from the environment or from the data, where the source states none."""
    if env_id is not None:
        use_environment(logged, env_id)
    infer_spaces(logged)
