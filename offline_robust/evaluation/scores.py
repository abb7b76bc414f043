"""Scores: returns on the scale of a named reference, 0 at its low end and 100 at its high end.

A score is shown only where a reference is named, and a reference is never guessed: one that was not made for an
environment is refused there. `ours` is measured by ``models/measure.py`` and kept in ``configs/scores.yaml``;
that file, or one of your own in the same form, holds

    environments:
      Pendulum-v1:
        random: {mean: -1224.0, std: 270.1, episodes: 100, seed: 1000}
        policies:
          pendulum-td3: {mean: -150.2, std: 86.0, episodes: 100, seed: 1000}
        versions: {gymnasium: 1.2.2, mujoco: 3.3.7}
        command: python models/measure.py

``random`` is the policy that draws actions uniformly, the low end. The high end is the policy with the highest mean.
``versions`` and ``command`` say what measured them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offline_robust.errors import EvaluationError, nearest
from offline_robust.evaluation.statistics import Array
from offline_robust.files import bundled
from offline_robust.plain_yaml import read_yaml

SCORE_NAMES = ("d4rl-v2", "ours")
"""The references that are known by name; a YAML file is another."""

_D4RL = {
    "Hopper": (-20.272305, 3234.3),
    "HalfCheetah": (-280.178953, 12135.0),
    "Walker2d": (1.629008, 4592.3),
    "Ant": (-325.6, 3879.7),
}
_D4RL_ENVS = re.compile(r"(Hopper|HalfCheetah|Walker2d|Ant)-v([45])")
_MAX_BYTES, _MAX_NAMES, _MAX_TEXT = 1_000_000, 1_000, 500


@dataclass(frozen=True)
class ScoreReference:
    """The returns that count as 0 and as 100 in one environment.

    Attributes:
        name: what it is called where scores are shown.
        env_id: the environment it is for.
        low: the return of score 0.
        high: the return of score 100.
        source: where both come from.
        note: what a reader of the scores must know; "" for nothing.
    """

    name: str
    env_id: str
    low: float
    high: float
    source: str
    note: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            ends = f"{self.low} and {self.high}"
            raise EvaluationError(
                f"score reference '{self.name}' for {self.env_id}: needs finite low < high, got {ends}"
            )

    def score(self, returns: Array | float) -> Array:
        """Scores (...) of returns (...): 100 (return - low) / (high - low), not clipped."""
        return np.asarray(100.0 * (np.asarray(returns, np.float64) - self.low) / (self.high - self.low))

    def spread(self, width: Array | float) -> Array:
        """A standard deviation, a half-width or a difference of returns, in points of score: scaled, never shifted."""
        return np.asarray(100.0 * np.asarray(width, np.float64) / (self.high - self.low))


def score_reference(name: str, env_id: str) -> ScoreReference:
    """The reference of that name for an environment.

    Args:
        name: one of `SCORE_NAMES`, or a YAML file in the form that this module describes.
        env_id: the environment whose returns are to be scored.

    Raises:
        EvaluationError: no such reference, none for this environment, or a damaged file.
    """
    if name == "d4rl-v2":
        return _d4rl(env_id)
    if name == "ours":
        return _measured(bundled("configs") / "scores.yaml", name, env_id)
    if Path(name).suffix in (".yaml", ".yml"):
        return _measured(Path(name), Path(name).name, env_id)
    raise EvaluationError(f"no score reference {name!r}{nearest(name, SCORE_NAMES)} (or a YAML file)")


def read_scores(path: Path) -> dict[str, dict[str, Any]]:
    """The content of a file of measured references by environment, checked.

    Raises:
        EvaluationError: unreadable, or not in the form that this module describes; one line that says where.
    """
    content = read_yaml(path, "a file of score references", _MAX_BYTES, EvaluationError)
    found = _mapping(content, f"{path}", ("environments",))["environments"]
    if not isinstance(found, dict) or len(found) > _MAX_NAMES:
        raise EvaluationError(f"{path}: environments must be a mapping from environment ids")
    for env_id, entry in found.items():
        where = f"{path}: {str(env_id)[:100]}"
        if not isinstance(env_id, str):
            raise EvaluationError(f"{where}: not an environment id")
        _mapping(entry, where, ("random", "policies", "versions", "command"))
        _measurement(entry["random"], f"{where}: random")
        if not isinstance(entry["policies"], dict) or not 1 <= len(entry["policies"]) <= _MAX_NAMES:
            raise EvaluationError(f"{where}: policies must name at least one policy")
        for policy, measured in entry["policies"].items():
            _measurement(measured, f"{where}: {str(policy)[:100]}")
        texts = [*(entry["versions"].values() if isinstance(entry["versions"], dict) else [None]), entry["command"]]
        if not all(isinstance(text, str) and len(text) <= _MAX_TEXT for text in texts):
            raise EvaluationError(f"{where}: versions must be a mapping to texts, and command a text")
    return found


def _d4rl(env_id: str) -> ScoreReference:
    match = _D4RL_ENVS.fullmatch(env_id)
    if match is None:
        made = ", ".join(f"{name}-v4 and -v5" for name in _D4RL)
        raise EvaluationError(f"score reference 'd4rl-v2' is for {made}, not for {env_id}")
    low, high = _D4RL[match[1]]
    note = f"D4RL measured these in {match[1]}-v2, whose simulator is older"
    if match[2] == "5":
        note = f"D4RL measured these in {match[1]}-v2, not in v5, whose rewards and dynamics differ"
    note += "; scores here must not be compared with published ones on D4RL's datasets"
    return ScoreReference("d4rl-v2", env_id, low, high, "random and expert returns of D4RL (infos.py)", note)


def _measured(path: Path, name: str, env_id: str) -> ScoreReference:
    known = read_scores(path)
    if env_id not in known:
        raise EvaluationError(
            f"score reference '{name}' has nothing for {env_id}; it has {', '.join(known) or 'nothing'}"
        )
    entry = known[env_id]
    policy = max(entry["policies"], key=lambda policy: float(entry["policies"][policy]["mean"]))
    low, high = entry["random"], entry["policies"][policy]
    source = (
        f"0 is the uniformly random policy over {low['episodes']} episodes, 100 is {policy} over {high['episodes']} "
        f"({entry['command']})"
    )
    return ScoreReference(name, env_id, float(low["mean"]), float(high["mean"]), source)


def _measurement(entry: Any, where: str) -> None:
    _mapping(entry, where, ("mean", "std", "episodes", "seed"))
    for key, kinds, least in (
        ("mean", (int, float), -math.inf), ("std", (int, float), 0), ("episodes", (int,), 1), ("seed", (int,), 0)
    ):  # fmt: skip
        value = entry[key]
        if type(value) not in kinds or not least <= value <= 1e15 or not math.isfinite(value):
            raise EvaluationError(f"{where}: {key} is {str(value)[:40]!r}")


def _mapping(entry: Any, where: str, keys: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(entry, dict):
        raise EvaluationError(f"{where}: must be a mapping with the keys {', '.join(keys)}")
    for key in entry:
        if key not in keys:
            raise EvaluationError(f"{where}: unknown key {str(key)[:40]!r}{nearest(str(key), keys)}")
    for key in keys:
        if key not in entry:
            raise EvaluationError(f"{where}: lacks the key {key!r}")
    return entry
