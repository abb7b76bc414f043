"""Weights & Biases: one run per training, which a resumed training and later evaluations continue.

Nothing here can stop a training. What fails is warned of once and not asked again; metrics.jsonl, results.csv and
report.html are written in any case. Starting a run waits for the network for `START` seconds at most, ending one for
`FINISH`; what is not uploaded by then stays on disk for ``wandb sync``.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import netrc
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from offline_robust.errors import ConfigError, MissingExtra
from offline_robust.experiments.config import RunConfig, WandbConfig
from offline_robust.files import writable_home, write_json
from offline_robust.reports.trained_on import data_of
from offline_robust.untrusted import parse_json, read_regular, readable_object, within

START, FINISH = 60, 300
"""Seconds to wait for the network when a run is started and ended."""

SERVICE = 120
"""Seconds to wait for W&B's own process; its 30 are too few where many runs share the cores."""

IDENTITY = "wandb.json"
"""Keeps the W&B id in the run's folder, so that whatever comes later goes into the same run."""

_MAX_GROUP, _MAX_TAG = 128, 64
_NOT_IN_PROJECTS = "/\\#?%:"
_MAX_META_BYTES, _MAX_IDENTITY_BYTES = 1_000_000, 10_000
_FILES = (".npz", ".hdf5", ".h5")
_HASHED_APART = ("seed", "wandb", "evaluation")


class WandbRun:
    """One Weights & Biases run. Nothing in here can stop a training: a failure is warned of once.

    Args:
        config: the run's configuration; its mode is not "disabled".
        folder: the run's folder; the W&B id is kept there, so that a resumed training continues the same run.
        label: what seeds average over, in words; with the dataset and a hash of the configuration it names the group.
        env_id: the environment, the configuration's or the dataset's.
        job_type: "train", or what else happens in the run.
    """

    def __init__(
        self, config: RunConfig, folder: Path, label: str, env_id: str | None, job_type: str = "train"
    ) -> None:
        self._run: Any = None
        self._failed = False
        self._guarded(self._start, config, folder, label, env_id, job_type)

    def log(self, line: Mapping[str, Any]) -> None:
        """Logs one line of metrics at its step."""
        values = {key: value for key, value in line.items() if "/" in key}
        self._guarded(lambda: self._run.log(values, step=line["step"]))

    def log_tables(
        self, values: Mapping[str, float], frames: Mapping[str, Any], step: int, files: Mapping[str, Path]
    ) -> None:
        """Logs what is known after the training: values, also as the run's summary, tables, and files.

        Args:
            values: by metric.
            frames: pandas tables by name.
            step: of the training's last update.
            files: the artifact's content, by the names inside it; those that are not there are left out.
        """
        self._guarded(self._log_tables, values, frames, step, files)

    def finish(self, exit_code: int = 0) -> None:
        """Ends the run; with another code it counts as crashed."""
        self._guarded(lambda: self._run.finish(exit_code=exit_code))

    def _start(self, config: RunConfig, folder: Path, label: str, env_id: str | None, job_type: str) -> None:
        top = {"algo": config.learner.name, "dataset": config.dataset, "env_id": env_id, "seed": config.seed}
        self._run = begin(
            config.wandb,
            folder,
            name=f"{label}-seed{config.seed}",
            group=group_of(config, label, data_of(readable_object(folder, "meta.json", _MAX_META_BYTES))[1]),
            job_type=job_type,
            tags=[*version_tags(folder), *config.wandb.tags],
            config=top | {"run": config.to_dict()},
        )

    def _log_tables(
        self, values: Mapping[str, float], frames: Mapping[str, Any], step: int, files: Mapping[str, Path]
    ) -> None:
        import wandb

        tables = {key: wandb.Table(dataframe=frame) for key, frame in frames.items()}
        # An online run counts on from its last step; an offline one starts a file of its own.
        online = not getattr(self._run, "offline", True)
        self._run.log({**values, **tables}, step=None if online else step + 1)
        self._run.summary.update(dict(values))
        attach(self._run, f"results-{self._run.id}", "results", files)

    def _guarded(self, action: Callable[..., None], *args: Any) -> None:
        if self._failed:
            return
        try:
            action(*args)
        except Exception as error:  # W&B fails in many ways of its own; none may cost a training.
            self._failed = True
            warn(error, "training goes on, metrics.jsonl has everything")


def begin(settings: WandbConfig, folder: Path, **arguments: Any) -> Any:
    """Starts the W&B run of a folder, or goes on with it; offline where the network or the key fails.

    Args:
        settings: project, entity, mode.
        folder: where W&B writes, and where the run's id is kept.
        arguments: of ``wandb.init``.
    """
    import wandb

    os.environ.setdefault("WANDB__SERVICE_WAIT", str(SERVICE))
    within(folder, "wandb")  # what W&B writes goes there
    if writable_home() is None:  # W&B falls over where it finds none for its settings, cache and data
        for variable in ("WANDB_CONFIG_DIR", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
            os.environ.setdefault(variable, str(folder.resolve() / "wandb" / "home"))
    identity = folder / IDENTITY
    known = _known_id(identity)
    mode = ("online" if has_key() else "offline") if settings.mode == "auto" else settings.mode
    arguments |= {
        "project": settings.project,
        "entity": settings.entity,
        "dir": str(folder),
        "id": known,
        # A run of its own, whatever run the caller has open.
        "reinit": "create_new",
    }
    try:
        going_on = known is not None and mode == "online"
        run = wandb.init(mode=mode, resume="allow" if going_on else None, settings=_settings(mode), **arguments)
    except Exception as error:
        if mode != "online":
            raise
        warnings.warn(
            f"Weights & Biases cannot be reached ({type(error).__name__}: {_first_line(error)}); the run is written "
            "offline, `wandb sync` uploads it",
            stacklevel=5,
        )
        mode = "offline"
        run = wandb.init(mode=mode, resume=None, settings=_settings(mode), **arguments)
    try:
        write_json(identity, {"id": run.id, "mode": mode, "project": settings.project})
    except OSError:
        run.finish(exit_code=1)
        raise
    return run


def _settings(mode: str) -> Any:
    """Waiting is limited where a network is waited for; offline W&B only waits for its own process."""
    import wandb

    limits = {"init_timeout": START, "finish_timeout": FINISH} if mode == "online" else {}
    limits = {key: value for key, value in limits.items() if key in wandb.Settings.model_fields}
    return wandb.Settings(silent=True, **limits)


def attach(run: Any, name: str, kind: str, files: Mapping[str, Path]) -> None:
    """Logs files as an artifact, by the names they have in it; those that are not there are left out."""
    import wandb

    there = {name: path for name, path in files.items() if path.is_file()}
    if there:
        artifact = wandb.Artifact(name, type=kind)
        for inside, path in there.items():
            artifact.add_file(str(path), name=inside)
        run.log_artifact(artifact)


def group_of(config: RunConfig, label: str, fingerprint: str = "") -> str:
    """The name of what seeds average over: label, dataset, and a hash of everything but seed, logging, evaluation.

    The data's fingerprint is part of the hash where it is known: a file may change under its name.
    """
    kept = {key: value for key, value in config.to_dict().items() if key not in _HASHED_APART}
    kept |= {"fingerprint": fingerprint} if fingerprint else {}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]
    path = Path(config.dataset)  # a file by its name alone; a Minari id has slashes too, and stays whole
    dataset = path.name if path.is_absolute() or path.suffix in _FILES else config.dataset
    return f"{f'{label} {dataset}'[: _MAX_GROUP - 9]} {digest}"


def version_tags(folder: Path) -> list[str]:
    """The code's version, and its commit where meta.json knows it: "v0.1.0", "v0.1.0-g1a2b3c4"."""
    version = f"v{importlib.metadata.version('offline-robust')}"
    git = readable_object(folder, "meta.json", _MAX_META_BYTES).get("git")
    if not isinstance(git, dict) or "commit" not in git:
        return [version]
    commit = str(git["commit"])[:7]
    return [version, f"{version}-g{commit}{'-modified' if git.get('modified') else ''}"[:_MAX_TAG]]


def check_wandb(settings: WandbConfig) -> None:
    """Refuses before the start what W&B would refuse, or has not got, after it.

    Not when a configuration is read: a folder whose run W&B refused is still a run.

    Raises:
        MissingExtra: wandb is needed and not installed; names the extra.
        ConfigError: a tag or the project's name is none that W&B takes.
    """
    if settings.mode == "disabled":
        return
    if importlib.util.find_spec("wandb") is None:
        raise MissingExtra("wandb", "wandb", f"wandb.mode {settings.mode}")
    for tag in settings.tags:
        if not 1 <= len(tag) <= _MAX_TAG:
            raise ConfigError(f"wandb.tags: {tag[:80]!r} has {len(tag)} characters, W&B takes 1 to {_MAX_TAG}")
    refused = [character for character in settings.project if character in _NOT_IN_PROJECTS]
    if refused:
        raise ConfigError(
            f"wandb.project: {settings.project!r} holds {refused[0]!r}, which W&B takes in no project's name"
        )


def has_key() -> bool:
    """Whether a W&B key is there: in the environment or in the netrc, of the server in use."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    server = urlparse(os.environ.get("WANDB_BASE_URL", "")).hostname or "api.wandb.ai"
    try:
        return netrc.netrc().authenticators(server) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def online(settings: WandbConfig) -> bool:
    """Whether a run with these settings would go to a server."""
    return settings.mode == "online" or (settings.mode == "auto" and has_key())


def _known_id(identity: Path) -> str | None:
    """The id that a run's folder keeps; None where there is none, or none that W&B would take."""
    if not identity.is_file():
        return None
    try:
        known = parse_json(read_regular(within(identity.parent, identity.name), _MAX_IDENTITY_BYTES))["id"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return known if isinstance(known, str) and known.isalnum() and len(known) <= 64 else None


def warn(error: Exception, rest: str) -> None:
    """Says that W&B failed, and what goes on without it."""
    warnings.warn(f"Weights & Biases stopped ({type(error).__name__}: {error}); {rest}", stacklevel=4)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
