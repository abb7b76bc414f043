"""Metrics: a line of JSON per logged update, always; Weights & Biases beside it when asked for."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import netrc
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offline_robust.errors import MissingExtra
from offline_robust.experiments.config import RunConfig
from offline_robust.files import write_json, write_text


class MetricsFile:
    """Appends to metrics.jsonl, one flushed line at a time.

    Args:
        path: the file.
        keep_until: on resume, lines of later steps (and a line cut by a kill) are dropped.
    """

    def __init__(self, path: Path, keep_until: int = 0) -> None:
        kept = [line for line in read_metrics(path) if line["step"] <= keep_until] if path.is_file() else []
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: Mapping[str, Any]) -> None:
        """Writes one line."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; lines that are not JSON objects with a step (a killed run's last) are left out."""
    lines = []
    for text in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and type(line.get("step")) is int:
            lines.append(line)
    return lines


class WandbRun:
    """One Weights & Biases run. After the start nothing in here can stop a training: a failure is warned of once.

    Args:
        config: the run's configuration; its mode is not "disabled".
        folder: the run's folder; the W&B id is kept there, so that a resumed training continues the same run.
        label: the run's group: what seeds average over.

        env_id: the environment, the configuration's or the dataset's.
    """

    def __init__(self, config: RunConfig, folder: Path, label: str, env_id: str | None) -> None:
        self._run: Any = None
        self._failed = False
        self._guarded(self._start, config, folder, label, env_id)

    def log(self, line: Mapping[str, Any]) -> None:
        """Logs one line of metrics at its step."""
        values = {key: value for key, value in line.items() if "/" in key}
        self._guarded(lambda: self._run.log(values, step=line["step"]))

    def finish(self, exit_code: int = 0) -> None:
        """Ends the run; with another code it counts as crashed."""
        self._guarded(lambda: self._run.finish(exit_code=exit_code))

    def _start(self, config: RunConfig, folder: Path, label: str, env_id: str | None) -> None:
        import wandb

        identity = folder / "wandb.json"
        known = json.loads(identity.read_text())["id"] if identity.is_file() else None
        mode = config.wandb.mode
        if mode == "auto":
            mode = "online" if _has_key() else "offline"
        top = {"algo": config.learner.name, "dataset": config.dataset, "env_id": env_id, "seed": config.seed}
        version = importlib.metadata.version("offline-robust")
        self._run = wandb.init(
            project=config.wandb.project,
            entity=config.wandb.entity,
            mode=mode,
            dir=str(folder),
            id=known,
            resume="allow" if known and mode == "online" else None,
            name=f"{label}-seed{config.seed}",
            group=f"{label} {config.dataset}",
            job_type="train",
            tags=[f"v{version}", *config.wandb.tags],
            config=top | {"run": config.to_dict()},
            settings=wandb.Settings(silent=True),
            # A run of its own, whatever run the caller has open.
            reinit="create_new",
        )
        write_json(identity, {"id": self._run.id, "mode": mode, "project": config.wandb.project})

    def _guarded(self, action: Any, *args: Any) -> None:
        if self._failed:
            return
        try:
            action(*args)
        except Exception as error:  # W&B fails in many ways of its own; none may cost a training.
            self._failed = True
            warnings.warn(
                f"Weights & Biases stopped ({type(error).__name__}: {error}); training goes on, metrics.jsonl has "
                "everything",
                stacklevel=3,
            )


def require_wandb(mode: str) -> None:
    """Refuses a mode that needs wandb where it is not installed.

    Raises:
        MissingExtra: names the extra.
    """
    if importlib.util.find_spec("wandb") is None:
        raise MissingExtra("wandb", "wandb", f"wandb.mode {mode}")


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
