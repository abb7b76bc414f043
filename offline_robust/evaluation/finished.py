"""Finished conditions of an evaluation, kept on disk so that one that was stopped goes on where it was.

Each is a JSON file, called a cell, named by a hash of everything that determines its numbers, with the numbers in it.
Nothing else of the suite enters, so it serves whatever suite its condition is part of.
"""

from __future__ import annotations

import hashlib
import json
import platform
import warnings
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from offline_robust.envs.identity import environment_identity
from offline_robust.errors import EvaluationError
from offline_robust.evaluation.plan import Plan
from offline_robust.files import remove_leftovers, write_text
from offline_robust.networks import Policy
from offline_robust.process import versions
from offline_robust.untrusted import parse_json, read_regular

Columns = dict[str, NDArray[Any]]
"""What one condition gave: "return" (N,) float64, "length" (N,) int64, "terminated" and "broken" (N,) bool."""

_FORMAT = "offline-robust-cell-4"
_ENDING = ".cell.json"
_KINDS: dict[str, tuple[type, type[np.generic]]] = {
    "return": (float, np.float64),
    "length": (int, np.int64),
    "terminated": (bool, np.bool_),
    "broken": (bool, np.bool_),
}
_BYTES_PER_EPISODE, _BYTES_MORE = 100, 10_000
_MAX_LENGTH = 2**53
_CODE = ("environment", "envs", "evaluation", "networks")


class FinishedConditions:
    """The finished conditions of one policy's evaluation, in a folder that several evaluations may share.

    Args:
        folder: made when the first condition is finished.
        policy: a policy of this library; others cannot be told apart by their weights.
        plan: what is evaluated; conditions are named by their position in it.

    Raises:
        EvaluationError: another kind of policy, or the folder is a file.
    """

    def __init__(self, folder: str | Path, policy: Any, plan: Plan) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise EvaluationError(f"{self.folder}: not a folder, finished conditions cannot be kept there")
        of = plan.system
        self._plan = plan
        self._common = {
            "policy": fingerprint(policy),
            "environment": {key: value for key, value in of.environment.to_dict().items() if key != "imports"},
            "made_of": environment_identity(of.environment),
            "time_limit": of.time_limit,
            "max_steps": plan.request.max_steps,
            "seed": plan.seed,
            "episodes": plan.episodes,
            "versions": versions(),
            "code": _code(),
            "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        }

    def read(self) -> dict[int, Columns]:
        """What is there already, by position; a damaged or foreign cell is left with a warning."""
        found = {}
        for position in range(len(self._plan.conditions)):
            path, key = self._place(position)
            if not path.exists():
                continue
            try:
                found[position] = _parse(path, key, self._plan.episodes)
            except (OSError, ValueError, LookupError, TypeError) as problem:
                reason = " ".join(str(problem).split())[:200]
                warnings.warn(f"{path}: not a finished condition of this run ({reason}); run again", stacklevel=3)
        return found

    def paths(self) -> tuple[Path, ...]:
        """Where the conditions lie."""
        return tuple(self._place(position)[0] for position in range(len(self._plan.conditions)))

    def write(self, position: int, columns: Columns) -> None:
        """Keeps one condition, atomically; one with a return that is not finite is not kept."""
        if not np.isfinite(columns["return"]).all():
            return
        path, key = self._place(position)
        content = {"format": _FORMAT, "key": key, **{name: columns[name].tolist() for name in _KINDS}}
        write_text(path, json.dumps({**content, "sha256": _digest(content)}) + "\n")

    def _place(self, position: int) -> tuple[Path, dict[str, Any]]:
        # The label rounds levels; the fingerprints of physics and stages do not.
        stages = list(self._plan.stages[position])
        key = {**self._common, "condition": self._plan.conditions[position].label, "stages": stages}
        # As it comes back from the file: tuples are lists there.
        key = json.loads(_text(key))
        return self.folder / (_digest(key)[:40] + _ENDING), key


def clear_cells(folder: str | Path, only: Collection[Path] | None = None) -> None:
    """Removes the cells in a folder, what a killed process left of one, and the folder where nothing else is in it.

    Args:
        folder: where they were kept.
        only: the cells of one table (`Results.cells`); those of another evaluation that was stopped stay, for it to go
            on from. None removes all.
    """
    where = Path(folder)
    if not where.is_dir():
        return
    for path in where.glob(f"*{_ENDING}") if only is None else only:
        path.unlink(missing_ok=True)
    remove_leftovers(where)
    with suppress(OSError):  # there is more in it
        where.rmdir()


def fingerprint(policy: Any) -> str:
    """SHA-256 of a policy's description, weights and kind of device.

    Raises:
        EvaluationError: not a `Policy` whose `act` is its own.
    """
    # A kind of policy of its own says by `identity` what its numbers depend on beside weights and spec.
    identity = "" if type(policy) is Policy else getattr(policy, "identity", None)
    if not isinstance(policy, Policy) or identity is None or "act" in vars(policy):
        raise EvaluationError(
            f"finished conditions are kept for policies of this library only, which their weights tell apart, not for "
            f"{type(policy).__name__}: leave out cells"
        )
    tensors = sorted(policy.actor.state_dict().items())
    devices = sorted({value.device.type for _, value in tensors})
    digest = hashlib.sha256(f"{_text([policy.spec.to_dict(), devices])}{identity}".encode())
    for name, value in tensors:
        array = value.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _parse(path: Path, key: Mapping[str, Any], episodes: int) -> Columns:
    most = len(_text(key)) + _BYTES_PER_EPISODE * episodes + _BYTES_MORE
    content = parse_json(read_regular(path, most))
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError("another format")
    if _text(content.get("key")) != _text(key):
        raise ValueError("made by another evaluation")
    if content.pop("sha256", None) != _digest(content):
        raise ValueError("damaged")
    return {name: _column(content[name], name, *kind, episodes) for name, kind in _KINDS.items()}


def _column(values: Any, name: str, kind: type, dtype: type[np.generic], episodes: int) -> NDArray[Any]:
    if not isinstance(values, list) or len(values) != episodes or not all(type(value) is kind for value in values):
        raise ValueError(f"{name} is not a list of {episodes} {kind.__name__}s")
    if name == "length" and not all(0 <= value <= _MAX_LENGTH for value in values):
        raise ValueError("a length is out of range")
    array = np.array(values, dtype)
    if name == "return" and not np.isfinite(array).all():
        raise ValueError("a return is not finite")
    return array


@lru_cache(maxsize=1)
def _code() -> str:
    """A hash of this library's own code that makes the numbers: a checkout changes without changing its version."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for folder in _CODE for path in (package / folder).rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _digest(content: Any) -> str:
    return hashlib.sha256(_text(content).encode()).hexdigest()


def _text(content: Any) -> str:
    return json.dumps(content, sort_keys=True)
