"""Reader of Minari data folders (https://minari.farama.org): HDF5 directly, arrow and parquet through Minari.

An episode of T transitions holds T+1 observations: row i goes from ``observations[i]`` to ``observations[i + 1]``,
and the last one is a true next observation also where the episode ended or was cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from offline_robust.datasets.findings import FileProblem, Finding, refusal
from offline_robust.datasets.hdf5 import Budget, is_group, links, open_hdf5, open_object, read_array, read_attribute
from offline_robust.datasets.logged import Array, Logged, action_rows, column, flags, floats, vector_rows
from offline_robust.datasets.spaces import MAX_JSON, OWN_PREFIX, flat_space, own_environment, parse_json, read_space
from offline_robust.environment import flat_actions, flat_observations, flatten, from_gymnasium
from offline_robust.errors import EvaluationError, MissingExtra
from offline_robust.untrusted import read_regular

METADATA, MAIN = "metadata.json", "main_data.hdf5"
MASK = OWN_PREFIX.replace("/", "_") + "next_valid"
"""Our own dataset in an episode's group, written only where a next observation is not a true one."""

_SEEDS = 8
"""Episodes whose seeds are read: enough to compare the data with their environment."""
_KEYS = ("observations", "actions", "rewards", "terminations", "truncations")
_EPISODE = re.compile(r"episode_(0|[1-9]\d{0,17})")


_LET_GO = np.zeros((0, 0), np.float32)


@dataclass
class _Episode:
    """T transitions with T+1 observations, numbers in the file's own types."""

    label: str
    observations: Array
    actions: Array
    rewards: Array
    terminations: Array
    truncations: Array
    next_valid: Array | None
    seed: int | None = None


@dataclass
class _Read:
    """Collects good episodes and the findings about the others."""

    where: str
    episodes: list[_Episode] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)

    def warn(self, where: str, what: str, mend: str = "") -> None:
        self.problems.append(Finding("warning", where, what, mend))


def read_minari(folder: Path) -> Logged:
    """Reads a data folder: the one that holds ``metadata.json``.

    Episodes come in the order of their numbers. An episode that cannot be read becomes a finding of severity
    ``error``; the others are returned, so that `data check` sees all of them.

    Raises:
        DatasetError: metadata or data file are missing or damaged, spaces are not supported, or no episode is good.
    """
    about = parse_json(str(folder / METADATA), _text(folder / METADATA))
    logged = _spaces(folder, about)
    read = _Read(str(folder))
    form = about.get("data_format", "hdf5")
    if form == "hdf5":
        read.where = str(folder / MAIN)
        with open_hdf5(folder / MAIN) as root:
            _read_groups(read, root, about, logged.recorded)
    elif form in ("arrow", "parquet"):
        for label, fields in _foreign(folder, about, form, logged.recorded.get("observation_space")):
            _keep(read, label, fields, None, logged.recorded)
    else:
        raise refusal(f"{folder / METADATA}: data_format", f"is {form!r}", "hdf5, arrow and parquet are read")
    if not read.episodes:
        if read.problems:
            raise FileProblem(next((p for p in read.problems if p.severity == "error"), read.problems[0]))
        raise refusal(read.where, "holds no episodes", "collect or copy the data again")
    _concatenate(logged, read)
    _compare(logged, about, folder)
    return logged


def _spaces(folder: Path, about: dict[str, Any]) -> Logged:
    """An empty `Logged` with the spaces and the environment that metadata.json states."""
    where = str(folder / METADATA)
    empty = np.zeros(0)
    logged = Logged(str(folder), empty, empty, empty, empty, empty)
    for key in ("observation_space", "action_space"):
        text = about.get(key)
        if text is None:
            continue
        if not isinstance(text, str):
            raise refusal(f"{where}: {key}", "is not a string of JSON", "restore metadata.json from its source")
        space = read_space(f"{where}: {key}", text)
        flat = flat_space(f"{where}: {key}", space, flat_observations if key == "observation_space" else flat_actions)
        setattr(logged, key, flat)
        logged.recorded[key] = space
    own = about.get("offline_robust")
    own = own if isinstance(own, dict) else {}
    text = about.get("env_spec")
    # Plain data only: entry points and wrappers named by the file are never imported.
    if own.get("env_id") is not None or not isinstance(text, str):
        logged.environment = own_environment(where, own)
    else:
        parse_json(f"{where}: env_spec", text)
        try:
            logged.environment = from_gymnasium(text, f"{where}: env_spec") or own_environment(where, own)
        except EvaluationError as error:
            raise refusal(f"{where}: env_spec", str(error).removeprefix(f"{where}: env_spec: ")) from None
    logged.provenance = {"source": str(folder), "format": f"minari-{about.get('data_format', 'hdf5')}"}
    for key in ("dataset_id", "minari_version", "algorithm_name", "description"):
        if isinstance(about.get(key), str):
            logged.provenance[key] = about[key]
    for key in ("ref_min_score", "ref_max_score"):
        if isinstance(about.get(key), int | float) and not isinstance(about.get(key), bool):
            logged.provenance[key] = float(about[key])
    if isinstance(own.get("collection"), dict):
        logged.provenance["collection"] = own["collection"]
    return logged


def _read_groups(read: _Read, root: Any, about: dict[str, Any], spaces: Mapping[str, gym.Space[Any]]) -> None:
    """Reads every ``episode_<k>`` group, by number: HDF5 lists `episode_10` before `episode_2`."""
    matches = [(_EPISODE.fullmatch(name), name) for name in links(root)]
    numbers = sorted(int(match[1]) for match, _ in matches if match)
    for name in sorted(name for match, name in matches if not match):
        read.warn(read.where, f"'{name}' is not an episode", "it is ignored")
    total = about.get("total_episodes")
    if isinstance(total, int) and total > len(numbers):
        what = f"holds {len(numbers):,} episodes where metadata.json says {total:,}"
        read.problems.append(Finding("error", read.where, what, "the copy is not complete: copy or download it again"))
    elif isinstance(total, int) and total < len(numbers):
        read.warn(read.where, f"holds {len(numbers):,} episodes where metadata.json says {total:,}", "all are read")
    if numbers and numbers[-1] != len(numbers) - 1:
        missing = next(number for number, k in enumerate(numbers) if number != k)
        read.warn(read.where, f"episode_{missing} is missing between the others", "the others are read, in order")
    budget, seen = Budget(read.where), dict[int, int]()
    for number in numbers:
        label = f"episode_{number}"
        where = f"{read.where}: {label}"
        try:
            group = open_object(read.where, root, label)
            if not is_group(group):
                raise refusal(where, "is not a group", "collect the data again")
            fields: dict[str, Any] = {key: read_array(where, group, key, budget) for key in _KEYS[1:]}
            fields["observations"] = _observations(where, group, budget, spaces.get("observation_space"))
            mask = read_array(where, group, MASK, budget) if group.links.exists(MASK.encode()) else None
        except FileProblem as error:
            if "a source may take" in error.problem.what:
                raise
            read.problems.append(error.problem)
            continue
        own = read_attribute(group, "id")
        if own is not None and np.ndim(own) == 0 and isinstance(own, int | np.integer):
            if int(own) in seen:
                read.warn(where, f"has the id {own}, as episode_{seen[int(own)]} has", "group names count")
            seen.setdefault(int(own), number)
        kept = len(read.episodes)
        _keep(read, label, fields, mask, spaces)
        if kept < min(len(read.episodes), _SEEDS):
            seed = read_attribute(group, "seed")
            read.episodes[-1].seed = int(seed) if isinstance(seed, int | np.integer) and seed >= 0 else None


def _observations(where: str, group: Any, budget: Budget, space: gym.Space[Any] | None) -> Array:
    """An episode's observations (T + 1, O): an array, or a group for each dictionary and tuple of the space."""

    def read(path: tuple[str, ...]) -> Array:
        here, at = group, where
        for name in ("observations", *path[:-1]) if path else ():
            here = open_object(at, here, _stored(here, name))
            at = f"{at}: {name}"
            if not is_group(here):
                raise refusal(at, "is not a group, where the space has several parts", "collect the data again")
        if not path:
            return read_array(at, here, "observations", budget)
        return read_array(at, here, _stored(here, path[-1]), budget)

    if space is None or _is_vector(space):
        return read(())
    try:
        return flatten(f"{where}: observations", space, read)
    except EvaluationError as error:
        raise refusal(f"{where}: observations", str(error).removeprefix(f"{where}: observations: ")) from None


def _stored(group: Any, name: str) -> str:
    """What Minari calls a part: as the dictionary does, or by its number in a tuple."""
    return name if group.links.exists(name.encode()) else f"_index_{name}"


def _is_vector(space: gym.Space[Any]) -> bool:
    return isinstance(space, gym.spaces.Box) and len(space.shape) == 1


def _flat_actions(where: str, values: Array, space: gym.Space[Any] | None) -> Array:
    """Actions as they are seen: a row of numbers each, or a whole number that counts from 0."""
    if isinstance(space, gym.spaces.Discrete) and space.start != 0 and values.dtype.kind in "iu":
        return np.asarray(values.astype(np.int64) - int(space.start))
    if isinstance(space, gym.spaces.Box) and (len(space.shape) != 1 or values.dtype.kind != "f"):
        if values.shape[1:] != space.shape:
            raise refusal(where, f"has shape {values.shape[1:]} where the space has {space.shape}", "collect it again")
        flat = values.reshape(len(values), -1)
        return flat if flat.dtype.kind == "f" else flat.astype(np.float32)
    return values


def _keep(
    read: _Read, label: str, fields: dict[str, Array], mask: Array | None, spaces: Mapping[str, gym.Space[Any]]
) -> None:
    """Shapes one episode and keeps it; findings take the place of an episode that is not one."""
    where = f"{read.where}: {label}"
    try:
        rewards = column(f"{where}: rewards", fields["rewards"])
        steps = len(rewards)
        episode = _Episode(
            label,
            vector_rows(f"{where}: observations", fields["observations"]),
            action_rows(
                f"{where}: actions", _flat_actions(f"{where}: actions", fields["actions"], spaces.get("action_space"))
            ),
            rewards,
            flags(f"{where}: terminations", fields["terminations"]),
            flags(f"{where}: truncations", fields["truncations"]),
            None if mask is None else flags(f"{where}: {MASK}", mask),
        )
        lengths = {"actions": len(episode.actions), "terminations": len(episode.terminations)}
        lengths |= {"truncations": len(episode.truncations)}
        lengths |= {} if episode.next_valid is None else {MASK: len(episode.next_valid)}
        for key, length in lengths.items():
            if length != steps:
                what = f"has {length:,} rows where rewards has {steps:,}"
                raise refusal(f"{where}: {key}", what, "the episode is ragged: collect it again or delete its group")
        if len(episode.observations) != steps + 1:
            what = f"has {len(episode.observations):,} rows for {steps:,} transitions, Minari needs {steps + 1:,}"
            mend = "append the final observation, or store the data in D4RL's layout, which needs none"
            raise refusal(f"{where}: observations", what, mend)
        if read.episodes:
            _alike(where, episode, read.episodes[0])
    except FileProblem as error:
        read.problems.append(error.problem)
        return
    if steps == 0:
        read.warn(where, "has no transitions", "it is skipped")
        return
    read.episodes.append(episode)


def _alike(where: str, episode: _Episode, first: _Episode) -> None:
    """Refuses an episode whose widths differ from the first one's, or whose actions are of another kind."""
    for key in ("observations", "actions"):
        ours, theirs = (
            (array.shape[1:], "int64" if key == "actions" and array.dtype.kind == "i" else "float32")
            for array in (getattr(episode, key), getattr(first, key))
        )
        if ours != theirs:
            what = f"is {ours[1]} of width {ours[0]}, {first.label} has {theirs[1]} {theirs[0]}"
            raise refusal(f"{where}: {key}", what, "all episodes need one shape: delete the group or convert it")


def _concatenate(logged: Logged, read: _Read) -> None:
    """Joins the episodes; each one's T+1 observations give its T observations and T next observations."""
    episodes = read.episodes
    lengths = np.array([len(episode.rewards) for episode in episodes])
    starts = np.cumsum(lengths) - lengths
    observations = np.empty((int(lengths.sum()), episodes[0].observations.shape[1]), np.float32)
    after = np.empty_like(observations)
    for name in ("observations", "actions", "rewards"):
        logged.keep_raw(name, [getattr(episode, name) for episode in episodes])
    with np.errstate(over="ignore", invalid="ignore"):  # as in `floats`
        for begin, steps, episode in zip(starts.tolist(), lengths.tolist(), episodes, strict=True):
            observations[begin : begin + steps] = episode.observations[:-1]
            after[begin : begin + steps] = episode.observations[1:]
            if "observations" not in logged.raw:
                episode.observations = _LET_GO  # or there would be three copies at a time
    logged.where = read.where
    logged.observations, logged.next_observations = observations, after
    actions = np.concatenate([episode.actions for episode in episodes])
    logged.actions = floats(actions) if actions.dtype.kind == "f" else actions
    logged.rewards = floats(np.concatenate([episode.rewards for episode in episodes]))
    logged.terminated = np.concatenate([episode.terminations for episode in episodes])
    logged.truncated = np.concatenate([episode.truncations for episode in episodes])
    if any(episode.next_valid is not None for episode in episodes):
        masks = [np.ones(len(e.rewards), bool) if e.next_valid is None else e.next_valid for e in episodes]
        logged.next_valid = np.concatenate(masks)
    logged.starts = starts
    logged.labels = [episode.label for episode in episodes]
    logged.seeds = [episode.seed for episode in episodes[:_SEEDS]]
    logged.names = {"terminated": "terminations", "truncated": "truncations", "next_observations": "observations"}
    logged.problems += read.problems


def _compare(logged: Logged, about: dict[str, Any], folder: Path) -> None:
    """Compares the sum of transitions with metadata.json's."""
    total = about.get("total_steps")
    if isinstance(total, int) and total != len(logged) and not any(p.severity == "error" for p in logged.problems):
        what = f"says {total:,} steps, the episodes hold {len(logged):,}"
        logged.problems.append(Finding("warning", f"{folder / METADATA}: total_steps", what, "the episodes count"))


def _foreign(
    folder: Path, about: dict[str, Any], form: str, space: gym.Space[Any] | None
) -> Iterator[tuple[str, dict[str, Array]]]:
    """Episodes of an arrow or parquet folder, through Minari's own storage."""
    total = about.get("total_episodes")
    where = str(folder / METADATA)
    if not isinstance(total, int) or total < 0:
        raise refusal(f"{where}: total_episodes", f"is {total!r}", "restore metadata.json from its source")
    if space is None or not isinstance(about.get("action_space"), str):
        # Minari would import the entry point that the file names to find them.
        raise refusal(where, "does not state its spaces", "restore metadata.json from its source")
    try:
        from minari.dataset.minari_storage import MinariStorage

        storage = MinariStorage.read(folder)
    except ImportError:
        raise MissingExtra("pyarrow", "arrow", f"reading {form} data ({folder})") from None
    except Exception as error:  # the file decides what goes wrong in here
        raise refusal(str(folder), f"cannot be read by minari ({type(error).__name__}: {error})") from None
    try:
        for number, episode in zip(range(total), storage.get_episodes(range(total)), strict=True):
            fields = {key: np.asarray(episode[key]) for key in _KEYS[1:]}
            fields["observations"] = _nested(f"{folder}: episode_{number}", episode["observations"], space)
            yield f"episode_{number}", fields
    except FileProblem:
        raise
    except Exception as error:
        raise refusal(str(folder), f"is damaged ({type(error).__name__}: {error})", "copy it again") from None


def _nested(where: str, values: Any, space: gym.Space[Any]) -> Array:
    """Observations (T + 1, O) of what Minari gives: an array, or dictionaries and tuples of them."""

    def read(path: tuple[str, ...]) -> Array:
        here = values
        for name in path:
            here = here[name] if isinstance(here, Mapping) else here[int(name)]
        return np.asarray(here)

    if _is_vector(space):
        return np.asarray(values)
    try:
        return flatten(where, space, read)
    except EvaluationError as error:
        raise refusal(where, str(error).removeprefix(f"{where}: ")) from None


def _text(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_JSON)
    except OSError as error:
        raise refusal(str(path), f"cannot be read ({error.strerror})", "copy the folder again") from None
