"""`load_dataset` and `check`: the same readers and the same findings, once strict and once as a report."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offline_robust.datasets.assemble import assemble, exact_columns, infer_spaces
from offline_robust.datasets.cache import Cache
from offline_robust.datasets.checks import findings
from offline_robust.datasets.findings import FileProblem, Finding, one_line, raise_errors
from offline_robust.datasets.flat_files import read_d4rl, read_npz
from offline_robust.datasets.logged import Logged
from offline_robust.datasets.minari_files import read_minari
from offline_robust.datasets.objects import as_path, read_object
from offline_robust.datasets.origins import use_environment
from offline_robust.datasets.replay import Agreement, replay
from offline_robust.datasets.replay_buffers import read_buffer_file
from offline_robust.datasets.sources import locate
from offline_robust.datasets.table_files import read_csv, read_jsonl, read_parquet
from offline_robust.datasets.transitions import TransitionDataset
from offline_robust.datasets.writers import target_format, write_dataset
from offline_robust.environment import EnvironmentChoice, EnvironmentSpec
from offline_robust.errors import DatasetError, DatasetNotFound

Origin = str | EnvironmentSpec | EnvironmentChoice
"""What a caller says of the environment that data came from."""
Source = str | Path | Mapping[str, Any] | Any
"""A name, a path, or an object that `read_object` takes."""

_READERS = {
    "minari": read_minari,
    "d4rl": read_d4rl,
    "d3rlpy": read_buffer_file,
    "npz": read_npz,
    "csv": read_csv,
    "parquet": read_parquet,
    "jsonl": read_jsonl,
}


def load_dataset(
    source: Source,
    *,
    env: Origin | None = None,
    device: str = "cpu",
    cache: bool = True,
    download: bool = True,
) -> TransitionDataset:
    """Loads logged transitions. They share no memory with the source.

    Rewards stay as logged. An episode's last row is terminated (a true end) or truncated (cut; its value goes on).
    Terminal and cut rows are kept also where no true next observation was logged; ``next_valid`` is false there.

    Args:
        source: a bundled name (``"pendulum-td3"``), a Minari id (``"mujoco/hopper/medium-v0"``; the local copy, else
            a download), a Minari folder, a ``.hdf5`` or ``.h5`` file (D4RL's layout, or d3rlpy's replay buffer), an
            ``.npz``, ``.csv``, ``.parquet`` or ``.jsonl`` file, a dictionary of arrays (``observations``,
            ``actions``, ``rewards``, ``terminals``, and optionally ``timeouts``, ``next_observations``,
            ``next_valid``, ``episode``, ``observation_space``, ``action_space``), a pandas data frame (for the names
            of its columns see `offline_robust.datasets.tables`), a `minari.MinariDataset` or a d3rlpy replay buffer.
            An existing path wins over a name.
        env: the environment the data came from, an id or a whole `EnvironmentSpec`. It gives the spaces (and an early
            D4RL file's time limit) where the source does not state them. An id alone that is the source's own leaves
            the source's keyword arguments, limit and wrappers as they are; an `EnvironmentChoice` says some of them.
        device: where the tensors shall live.
        cache: whether a folder of many episodes may be kept as one flat file in ``$OFFLINE_ROBUST_CACHE`` or
            ``~/.cache/offline-robust``, which makes the next load fast.
        download: whether a Minari id that is not here is downloaded. Pass False for names that come from a file.

    Raises:
        DatasetNotFound: there is nothing of that name.
        DatasetError: the data are damaged or contradict themselves or ``env``; one line that names file, key and row.
        MissingExtra: a package that reads this format is not installed.
    """
    source = as_path(source)
    if not isinstance(source, str | Path):
        return _told(finish(read_object(source), env)).to(device)
    location = locate(source, download)
    store = Cache(location, env) if cache else None
    dataset = store.load() if store is not None else None
    if dataset is None:
        dataset = finish(_READERS[location.kind](location.path), env)
        if store is not None:
            store.save(dataset)
    return _told(dataset).to(device)


def check(source: Source, *, env: Origin | None = None) -> list[Finding]:
    """Reads leniently and lists everything that is wrong or worth knowing, errors first.

    A source loads exactly when no finding is an ``error``.

    Raises:
        DatasetNotFound: there is nothing of that name.
        MissingExtra: a package that reads this format is not installed.
    """
    return examine(source, env=env)[0]


def examine(source: Source, *, env: Origin | None = None) -> tuple[list[Finding], Agreement | None]:
    """What `check` finds, and how far the data agree with their environment where both are there.

    Some steps are taken again in the environment, see `offline_robust.datasets.replay`; what disagrees is a warning.
    """
    logged: Logged | None = None
    try:
        logged = _read(source)
        logged.measure()
        _complete(logged, env)
    except FileProblem as error:
        return [error.problem], None
    except DatasetNotFound:
        raise
    except DatasetError as error:
        where = str(source) if logged is None else logged.where
        return [Finding("error", where, one_line(str(error)))], None
    found = findings(logged)
    if any(problem.severity == "error" for problem in found):
        return found, None
    agreement = replay(logged)
    return found + agreement.findings, agreement


def convert(
    source: Source,
    target: str | Path,
    *,
    env: Origin | None = None,
    to: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes what `load_dataset` reads as Minari (a folder), D4RL (.hdf5) or npz, by the target's ending or ``to``.

    There and back is exact: transitions, episodes, masks, spaces and environment. Numbers that float32 does not hold,
    though learners compute in it, are written as the source has them. What `TransitionDataset` does not hold
    (``infos``, episode seeds, reference scores) is left behind.

    Returns:
        What was written.

    Raises:
        DatasetError: the source does not load, the target exists, or its format cannot express the data.
    """
    target_format(target, to)
    logged = _read(source)
    raw = dict(logged.raw)
    dataset = finish(logged, env)
    return write_dataset(dataset, target, to=to, overwrite=overwrite, exact=exact_columns(dataset, raw))


def finish(logged: Logged, env: Origin | None = None) -> TransitionDataset:
    """The dataset of what a reader found; the environment supplies what it does not say.

    Raises:
        DatasetError: for the first error among the findings.
    """
    # What the reader found comes first: spaces inferred from half the episodes would hide it.
    raise_errors(logged.problems)
    logged.measure()
    logged.raw.clear()  # of large data, the source's own numbers need not stay while the dataset is made
    _complete(logged, env)
    raise_errors(findings(logged))
    return assemble(logged)


def _read(source: Source) -> Logged:
    source = as_path(source)
    if not isinstance(source, str | Path):
        return read_object(source)
    location = locate(source, download=True)
    return _READERS[location.kind](location.path)


def _told(dataset: TransitionDataset) -> TransitionDataset:
    """Says what the numbers of a dataset have lost, also where they come from the cache."""
    if lost := dataset.provenance.get("rounded"):
        more = f"; and {len(lost) - 1} more" if len(lost) > 1 else ""
        where = dataset.provenance.get("source")
        warnings.warn(f"{where}: float32 is too coarse for {lost[0]}{more}; `data check` says more", stacklevel=3)
    return dataset


def _complete(logged: Logged, env: Origin | None) -> None:
    """Spaces from the environment or from the data, where the source states none."""
    use_environment(logged, env)
    infer_spaces(logged)
