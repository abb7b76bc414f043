"""A run's folder: what is in it, and reading it back."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from offline_robust.environment import EnvironmentSpec
from offline_robust.errors import CheckpointError, EvaluationError
from offline_robust.experiments.config import RunConfig, load_config
from offline_robust.experiments.metrics import read_metrics
from offline_robust.networks import Policy, load_policy
from offline_robust.process import MISSING, versions
from offline_robust.untrusted import CodeRefused, Unreadable, parse_json, read_regular, refuse_code, within

_PACKAGES = ("offline-robust", "torch", "numpy", "gymnasium", "mujoco", "minari", "h5py", "d3rlpy", "wandb")
_MAX_META_BYTES, _MAX_NAME = 1_000_000, 200


POLICY, POLICIES = "policy.safetensors", "policies"
"""The deployed policy's file in a run's folder, and the folder of the others, one file each by name."""

_POLICY_NAME = re.compile(r"(?!policy$)[a-z][a-z0-9_]{0,40}")
_MAX_POLICIES = 100


@dataclass(frozen=True)
class Run:
    """One training: a folder with config.yaml, meta.json, metrics.jsonl, policy.safetensors, checkpoints/, and,
    once evaluated, results.csv and report.html.
    """

    folder: Path
    config: RunConfig

    @property
    def name(self) -> str:
        """What tables and reports call it: its folder's own name, whether it was opened as ``.``, ``..`` or a link."""
        return self.folder.resolve().name

    @cached_property
    def policy(self) -> Policy:
        """The deployed policy at the end of training (the checkpoint rule is ``last``)."""
        path = within(self.folder, POLICY)
        if not path.is_file():
            raise CheckpointError(
                f"{self.folder}: the training is not finished: offline-robust train --resume --out {self.folder}"
            )
        return load_policy(path)

    @cached_property
    def policies(self) -> Mapping[str, Policy]:
        """All policies of the run by name: ``policy``, the deployed one, and those that were trained beside it.

        Raises:
            CheckpointError: the training is not finished, or a file is damaged.
        """
        files = sorted(within(self.folder, POLICIES).glob("*.safetensors"))
        if len(files) > _MAX_POLICIES or not all(_POLICY_NAME.fullmatch(file.stem) for file in files):
            raise CheckpointError(f"{self.folder / POLICIES}: not the policies of a run")
        beside = {file.stem: load_policy(within(self.folder, f"{POLICIES}/{file.name}")) for file in files}
        return {"policy": self.policy, **beside}

    @cached_property
    def meta(self) -> dict[str, Any]:
        """meta.json: label, environment, dataset, versions, hardware, command, time.

        Raises:
            CheckpointError: it is damaged.
        """
        return _read_meta(within(self.folder, "meta.json"))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return read_metrics(within(self.folder, "metrics.jsonl"))

    @cached_property
    def environment(self) -> EnvironmentSpec | None:
        """The environment of its data, whole; in folders of earlier versions what configuration and meta.json name.

        Raises:
            CheckpointError: what the folder says of it is damaged, or names code to be imported.
        """
        known = self.meta.get("environment")
        try:
            if known is not None:
                return EnvironmentSpec.from_dict(known, str(self.folder / "meta.json"))
            named = self.meta.get("env_id")
            choice = self.config.environment if self.config.env_id else replace(self.config.environment, id=named)
            return choice.on(None)
        except EvaluationError as error:
            raise CheckpointError(str(error)) from None

    @property
    def env_id(self) -> str | None:
        """The id of the environment of its data."""
        return self.environment.id if self.environment is not None else None

    @property
    def checkpoint(self) -> Path:
        """Where the newest checkpoint lies."""
        return within(self.folder, "checkpoints/last.safetensors")


def load_run(folder: str | Path) -> Run:
    """Opens a run's folder.

    Raises:
        CheckpointError: it is not one.
        ConfigError: its configuration is not valid.
    """
    path = Path(folder)
    for name in ("config.yaml", "meta.json"):
        if not within(path, name).is_file():
            raise CheckpointError(f"{path}: not a run's folder (no {name})")
    run = Run(path, load_config(within(path, "config.yaml")))
    _ = run.meta, run.environment  # read once, here, so that damage shows before any work
    return run


def save_policies(folder: Path, policies: Mapping[str, Policy]) -> None:
    """Writes the policies of a run; the deployed one last: where it is, the training is finished.

    Args:
        folder: the run's.
        policies: by name, one of them ``policy``; the others' names are lower case, digits and underscores.

    Raises:
        ValueError: a name is not one.
    """
    beside = {name: policy for name, policy in policies.items() if name != "policy"}
    for name in beside:
        if not _POLICY_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a policy: lower case letters, digits and underscores")
    if beside:
        within(folder, POLICIES).mkdir(exist_ok=True)
    for name, policy in beside.items():
        policy.save(within(folder, f"{POLICIES}/{name}.safetensors"))
    policies["policy"].save(folder / POLICY)


def environment_facts() -> dict[str, Any]:
    """Versions, hardware and code version of this process."""
    installed = {name: version for name, version in versions(_PACKAGES).items() if version != MISSING}
    return {"versions": installed, "hardware": _hardware(), "git": _git(), "command": _command()}


def peak_memory() -> dict[str, float]:
    """``peak_memory_mib``: the most memory this process has had; empty where the system does not say.

    Linux tells it of the program itself; getrusage there also counts what the process was started from.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        kibibytes = float(status.partition("VmHWM:")[2].split()[0])
    except (OSError, ValueError, IndexError):
        try:
            import resource
        except ImportError:  # Windows
            return {}
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kibibytes = most / 1024 if sys.platform == "darwin" else most
    return {"peak_memory_mib": round(kibibytes / 1024, 1)}


def _read_meta(path: Path) -> dict[str, Any]:
    """A folder may come from anyone: what is used of its meta.json is checked."""
    try:
        meta = parse_json(read_regular(path, _MAX_META_BYTES))
    except Unreadable as error:
        raise CheckpointError(f"{error}: not a run's meta.json") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged: not JSON ({str(error)[:200]})") from None
    if not isinstance(meta, dict):
        raise CheckpointError(f"{path}: damaged: expected an object, got {type(meta).__name__}")
    if not _is_name(meta.get("label")):
        raise CheckpointError(f"{path}: damaged: label is not a short line of text")
    env_id = meta.get("env_id")
    if env_id is not None and not _is_name(env_id):
        raise CheckpointError(f"{path}: damaged: env_id is not an environment's name")
    try:
        refuse_code(env_id)
    except CodeRefused as error:
        raise CheckpointError(f"{path}: {error}") from None
    return meta


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_NAME and value.isprintable()


def _command() -> str:
    """What was typed, without the folder of the program."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _hardware() -> dict[str, Any]:
    facts: dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _git() -> dict[str, Any]:
    """Commit of the checkout that the package lies in, if it is one."""
    here = Path(__file__).parent

    def ask(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "modified": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return {}
