"""Logged data as a source holds them, before they are judged: the one shape that every reader returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from offline_robust.datasets.findings import Finding, refusal
from offline_robust.datasets.precision import Loss, losses, rounds
from offline_robust.datasets.spaces import OWN_PREFIX, Description, Spaces, decode_description
from offline_robust.environment import EnvironmentSpec
from offline_robust.untrusted import free_memory

Array = NDArray[Any]

MAX_BYTES = 16 * 2**30
"""Sources that declare more than this are refused before anything is allocated."""
COPIES = 3
"""What loading takes at its largest, in units of what a source declares: as read, in rows, and what follows each.
Double precision, which is kept until what float32 loses of it is measured, takes two."""
KEPT = {"f": 4, "i": 8, "u": 8, "b": 1}
"""Bytes of a number once it is kept, by numpy's kind: float32, int64, bool."""
MAX_WIDTH = 65_536
"""The widest observation or action that is read."""

ALIASES = {
    "observations": ("observations", "obs", "observation"),
    "actions": ("actions", "action", "act"),
    "rewards": ("rewards", "reward", "rew"),
    "terminated": ("terminals", "terminated", "terminations", "terminal", "dones", "done"),
    "truncated": ("timeouts", "truncated", "truncations", "timeout", "episode_terminals"),
    "next_observations": ("next_observations", "next_obs", "next_observation"),
}
"""Names under which flat sources may hold each array: D4RL's first, then Gymnasium's, NeoRL's and d3rlpy 1's."""


@dataclass
class Logged:
    """Raw arrays of one source. N rows, in the order of the source; nothing has been checked but shapes.

    Floating values are float32 already, flags are bool; actions keep an integer type where the source has one.
    """

    where: str
    observations: Array
    actions: Array
    rewards: Array
    terminated: Array
    truncated: Array
    next_observations: Array | None = None
    next_valid: Array | None = None
    starts: Array | None = None
    """First row of every episode where the source says so (Minari's groups); None for flat files."""
    labels: list[str] = field(default_factory=list)
    """The source's own name of every episode, beside `starts`."""
    seeds: list[int | None] = field(default_factory=list)
    """What the resets of the first episodes were seeded with, where the source says so."""
    has_truncated: bool = True
    """Whether the source marks time limits at all."""
    names: dict[str, str] = field(default_factory=dict)
    """The key under which the source holds each array."""
    observation_space: gym.spaces.Box | None = None
    action_space: Spaces | None = None
    recorded: dict[str, gym.Space[Any]] = field(default_factory=dict)
    """``observation_space`` and ``action_space`` as the source states them, before they are seen as vectors."""
    environment: EnvironmentSpec | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    problems: list[Finding] = field(default_factory=list)
    raw: dict[str, list[Array]] = field(default_factory=dict)
    """Stretches of those columns whose numbers float32 may not hold, as the source has them; of an episode with T+1
    observations all of them, under "observations"."""
    actions_from_zero: bool = False
    """Whether discrete actions count from 0 whatever the space says (d3rlpy's do)."""
    least_actions: int = 0
    """At least as many discrete actions there are, where no space is stated."""
    action_space_inferred: bool = False
    """Whether neither source nor environment stated the action space."""
    rounded: dict[str, tuple[Loss, ...]] = field(default_factory=dict)
    """What the columns lose in float32, once it is measured."""

    def __len__(self) -> int:
        return len(self.rewards)

    def name(self, array: str) -> str:
        """The source's key of an array, with the file, for messages."""
        return f"{self.where}: {self.names.get(array, array)}"

    def place(self, row: int) -> str:
        """A row in the words of the source: an episode and a row within it, or a row of the flat file."""
        if self.starts is None or not self.labels:
            return f"row {row:,}"
        episode = int(np.searchsorted(self.starts, row, side="right")) - 1
        return f"{self.labels[episode]}, row {row - int(self.starts[episode]):,}"

    def keep_raw(self, name: str, parts: list[Array]) -> None:
        """Keeps a column as the source has it where float32 may not hold its numbers; whole-number actions stay so."""
        if any(rounds(part.dtype) and (name != "actions" or part.dtype.kind == "f") for part in parts):
            self.raw[name] = parts

    def measure(self) -> None:
        """Finds out what was lost, and says so in the provenance."""
        self.rounded = {
            name: losses(parts, chained=name == "observations")
            for name, parts in self.raw.items()
            if name != "next_observations"
        }
        told = [f"{name}, {loss.short}" for name, found in self.rounded.items() for loss in found]
        if told:
            self.provenance["rounded"] = told

    def describe(self, description: Description) -> None:
        """Takes over what a description says and the source does not."""
        self.observation_space = self.observation_space or description.observation_space
        self.action_space = self.action_space if self.action_space is not None else description.action_space
        self.environment = self.environment or description.environment


def source_bytes() -> int:
    """Bytes that one source may declare: what `COPIES` of fit into the memory that is free, at most `MAX_BYTES`."""
    return min(MAX_BYTES, free_memory() // COPIES)


def find_keys(where: str, keys: set[str]) -> dict[str, str]:
    """Which key of a flat source holds which array.

    Raises:
        DatasetError: a needed array is missing; the message lists what is there.
    """
    found = {name: key for name, others in ALIASES.items() for key in reversed(others) if key in keys}
    for name in ("observations", "actions", "rewards", "terminated"):
        if name not in found:
            there = ", ".join(sorted(keys)[:12]) or "nothing"
            mend = "add it (all zero if no episode truly ends)" if name == "terminated" else "add it"
            raise refusal(where, f"the key '{ALIASES[name][0]}' is missing; the source holds {there}", mend)
    return found


def from_columns(where: str, columns: Mapping[str, Array], names: Mapping[str, str]) -> Logged:
    """Builds `Logged` from flat columns (D4RL's layout), whatever they came from.

    Args:
        where: the file, for messages.
        columns: arrays by our names (`ALIASES`), and our own extra keys under `OWN_PREFIX`.
        names: the source's key of each.

    Raises:
        DatasetError: shapes or types are wrong.
    """

    def at(name: str) -> str:
        return f"{where}: {names.get(name, name)}"

    lengths = {name: len(values) if values.ndim else -1 for name, values in columns.items() if name in ALIASES}
    rows = lengths["observations"]
    for name, length in lengths.items():
        if length != rows:
            said = "is a single number" if length < 0 else f"has {length:,} rows where observations has {rows:,}"
            raise refusal(at(name), said, "all arrays need one row per transition")
    if rows == 0:
        raise refusal(where, "holds no transitions (every array is empty)", "collect or copy the data again")
    truncated = columns.get("truncated")
    after = columns.get("next_observations")
    logged = Logged(
        where=where,
        observations=vectors(at("observations"), columns["observations"]),
        actions=actions(at("actions"), columns["actions"]),
        rewards=floats(column(at("rewards"), columns["rewards"])),
        terminated=flags(at("terminated"), columns["terminated"]),
        truncated=np.zeros(rows, bool) if truncated is None else flags(at("truncated"), truncated),
        next_observations=None if after is None else vectors(at("next_observations"), after),
        has_truncated=truncated is not None,
        names=dict(names),
    )
    if names.get("truncated") == "episode_terminals":  # set where an episode ends for whatever reason
        logged.truncated &= ~logged.terminated
    if logged.next_observations is not None and logged.next_observations.shape != logged.observations.shape:
        width, other = logged.observations.shape[1], logged.next_observations.shape[1]
        raise refusal(at("next_observations"), f"has width {other} where observations has {width}", "log both alike")
    for name in ("observations", "actions", "rewards", "next_observations"):
        if name in columns:
            logged.keep_raw(name, [columns[name] if name != "rewards" else column(at(name), columns[name])])
    _own_extras(logged, columns)
    return logged


def vectors(where: str, values: Array) -> Array:
    """`vector_rows` in float32."""
    return floats(vector_rows(where, values))


def vector_rows(where: str, values: Array) -> Array:
    """(N, O) from (N, O), or from (N,) as width 1, in the type it has.

    Raises:
        DatasetError: not numbers, an image or another array of more axes, or too wide.
    """
    numeric(where, values)
    if values.ndim == 0:
        raise refusal(where, "is a single number", "one row per transition is needed")
    if values.ndim > 2:
        raise refusal(
            where,
            f"each observation has shape {values.shape[1:]}, an image or a stack",
            "only vectors are supported: log features, or flatten them",
        )
    if values.ndim == 1:
        values = values[:, None]
    require_width(where, values)
    return values


def require_width(where: str, values: Array) -> None:
    """Refuses rows without a number in them, and rows that are too wide.

    Raises:
        DatasetError: names the width.
    """
    if values.ndim == 2 and not 0 < values.shape[1] <= MAX_WIDTH:
        raise refusal(where, f"has width {values.shape[1]:,}", f"widths of 1 to {MAX_WIDTH:,} are read")


def actions(where: str, values: Array) -> Array:
    """`action_rows` with floating actions in float32."""
    rows = action_rows(where, values)
    return floats(rows) if rows.dtype.kind == "f" else rows


def action_rows(where: str, values: Array) -> Array:
    """(N, A) for floating actions, in the type they have; (N,) int64 for whole-number types (discrete actions).

    The type decides, never the values: a float file whose actions are all whole numbers is continuous.

    Raises:
        DatasetError: not numbers, or of a shape that is neither.
    """
    numeric(where, values)
    if values.ndim == 0 or values.ndim > 2:
        raise refusal(where, f"has shape {values.shape}", "actions are (N, A), or (N,) whole numbers")
    require_width(where, values)
    if values.dtype.kind == "f":
        return values if values.ndim == 2 else values[:, None]
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2:
        raise refusal(
            where,
            f"holds {values.shape[1]} whole numbers per action",
            "several discrete actions at once are not supported; store them as float if they are continuous",
        )
    return values.astype(np.int64)


def column(where: str, values: Array) -> Array:
    """(N,) from (N,) or (N, 1).

    Raises:
        DatasetError: any other shape, or not numbers.
    """
    numeric(where, values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise refusal(where, f"has shape {values.shape}", "one number per transition is needed: (N,) or (N, 1)")
    return values


def flags(where: str, values: Array) -> Array:
    """(N,) bool from bool, 0/1 whole numbers or 0.0/1.0.

    Raises:
        DatasetError: a value is neither 0 nor 1; names the row.
    """
    values = column(where, values)
    if values.dtype.kind == "b":
        return values.astype(bool)
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise refusal(where, f"row {row:,} holds {values[row]}", "flags are 0 or 1")
    return np.asarray(values != 0)


def floats(values: Array) -> Array:
    """float32, contiguous. What float32 cannot hold becomes infinite, and is reported as such."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)


def numeric(where: str, values: Array) -> None:
    """Refuses anything but bool, whole and floating numbers."""
    if values.dtype.kind not in "fiub":
        raise refusal(where, f"holds {values.dtype}, not numbers", "store numbers; objects are never unpickled")


def _own_extras(logged: Logged, columns: Mapping[str, Array]) -> None:
    """Takes over what our own writers add to flat formats: episode starts, the mask, spaces and environment."""
    rows, where = len(logged), logged.where
    valid, starts = columns.get(OWN_PREFIX + "next_valid"), columns.get(OWN_PREFIX + "episode_starts")
    if valid is not None:
        logged.next_valid = flags(f"{where}: {OWN_PREFIX}next_valid", valid)
        if len(logged.next_valid) != rows:
            raise refusal(f"{where}: {OWN_PREFIX}next_valid", f"has {len(valid):,} rows, not {rows:,}")
    if starts is not None:
        logged.starts = episode_starts(f"{where}: {OWN_PREFIX}episode_starts", starts, rows)
    text = columns.get(OWN_PREFIX + "description")
    if text is not None:
        logged.describe(decode_description(where, text.tobytes()))


def episode_starts(where: str, values: Array, rows: int) -> Array:
    """(E,) int64, rising from 0 and below N.

    Raises:
        DatasetError: it is not.
    """
    starts = column(where, values)
    if starts.dtype.kind not in "iu" or len(starts) == 0 or starts[0] != 0:
        raise refusal(where, "does not start with the whole number 0", "list the first row of every episode")
    starts = starts.astype(np.int64)
    if (np.diff(starts) <= 0).any() or starts[-1] >= rows:
        raise refusal(where, f"is not rising within the {rows:,} rows", "list the first row of every episode")
    return starts
