"""`load_dataset` and `check`: the same readers and the same findings, once strict and once as a report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offline_robust.datasets.assemble import assemble, infer_spaces
from offline_robust.datasets.cache import Cache
from offline_robust.datasets.checks import findings
from offline_robust.datasets.flat_files import read_arrays, read_d4rl, read_npz
from offline_robust.datasets.logged import Logged
from offline_robust.datasets.minari_files import read_minari
from offline_robust.datasets.origins import use_environment
from offline_robust.datasets.problems import FileProblem, Problem, one_line, raise_errors
from offline_robust.datasets.sources import Location, locate
from offline_robust.datasets.transitions import TransitionDataset
from offline_robust.datasets.writers import target_format, write_dataset
from offline_robust.environment import EnvironmentChoice, EnvironmentSpec
from offline_robust.errors import DatasetError, DatasetNotFound

Origin = str | EnvironmentSpec | EnvironmentChoice
"""What a caller says of the environment that data came from."""

_READERS = {"minari": read_minari, "d4rl": read_d4rl, "npz": read_npz}


def load_dataset(
    source: str | Path | Mapping[str, Any], *, env: Origin | None = None, device: str = "cpu", cache: bool = True
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
        env: the environment the data came from, an id or a whole `EnvironmentSpec`. It gives the spaces (and an early
            D4RL file's time limit) where the source does not state them. An id alone that is the source's own leaves
            the source's keyword arguments, limit and wrappers as they are; an `EnvironmentChoice` says some of them.
        device: where the tensors shall live.
        cache: whether a folder of many episodes may be kept as one flat file in ``$OFFLINE_ROBUST_CACHE`` or
            ``~/.cache/offline-robust``, which makes the next load fast.

    Raises:
        DatasetNotFound: there is nothing of that name.
        DatasetError: the data are damaged or contradict themselves or ``env``; one line that names file, key and row.
    """
    if isinstance(source, Mapping):
        return _strict(read_arrays(source), env).to(device)
    location = locate(source)
    store = Cache(location, env) if cache else None
    dataset = store.load() if store is not None else None
    if dataset is None:
        dataset = _strict(_READERS[location.kind](location.path), env)
        if store is not None:
            store.save(dataset)
    return dataset.to(device)


def check(source: str | Path | Mapping[str, Any], *, env: Origin | None = None) -> list[Problem]:
    """Reads leniently and lists everything that is wrong or worth knowing, errors first.

    A source loads exactly when no finding is an ``error``.

    Raises:
        DatasetNotFound: there is nothing of that name.
    """
    location: Location | None = None
    try:
        if not isinstance(source, Mapping):
            location = locate(source)
        logged = read_arrays(source) if location is None else _READERS[location.kind](location.path)  # type: ignore[arg-type]
        _complete(logged, env)
    except FileProblem as error:
        return [error.problem]
    except DatasetNotFound:
        raise
    except DatasetError as error:
        return [Problem("error", str(source) if location else "arrays", one_line(str(error)))]
    return findings(logged)


def convert(
    source: str | Path,
    target: str | Path,
    *,
    env: Origin | None = None,
    to: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a dataset in another format: Minari (a folder), D4RL (.hdf5) or npz, by the target's ending or ``to``.

    There and back is exact: transitions, episodes, masks, spaces and environment. What `TransitionDataset` does not
    hold (``infos``, episode seeds, reference scores) is left behind.

    Returns:
        What was written.

    Raises:
        DatasetError: the source does not load, the target exists, or its format cannot express the data.
    """
    target_format(target, to)
    return write_dataset(load_dataset(source, env=env, cache=False), target, to=to, overwrite=overwrite)


def _strict(logged: Logged, env: Origin | None) -> TransitionDataset:
    # What the reader found comes first: spaces inferred from half the episodes would hide it.
    raise_errors(logged.problems)
    _complete(logged, env)
    raise_errors(findings(logged))
    return assemble(logged)


def _complete(logged: Logged, env: Origin | None) -> None:
    """Spaces from the environment or from the data, where the source states none."""
    use_environment(logged, env)
    infer_spaces(logged)
