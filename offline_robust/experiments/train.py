"""The training loop. It knows no algorithm and no source of data: a feed gives batches, a learner phases of steps."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offline_robust.datasets import TransitionDataset, load_dataset
from offline_robust.datasets.feed import Feed, LoggedFeed
from offline_robust.errors import CheckpointError, ConfigError
from offline_robust.experiments.checkpoints import load_checkpoint, require_like, save_checkpoint
from offline_robust.experiments.config import RunConfig, load_config
from offline_robust.experiments.differences import first_difference
from offline_robust.experiments.environments import confirm
from offline_robust.experiments.metrics import MetricsFile, WandbRun, check_wandb
from offline_robust.experiments.run import POLICY, Run, environment_facts, peak_memory, save_policies
from offline_robust.files import write_json, write_text
from offline_robust.learners import LEARNERS, Learner, Phase, Problem
from offline_robust.learners.futures import future_warnings
from offline_robust.locks import writing
from offline_robust.models import MODELS, diagnose
from offline_robust.untrusted import within

STREAMS = ("init", "sampler", "policy", "model", "diagnosis")
"""Random streams by purpose; each is seeded from (seed, its place here) and saved with the checkpoint."""

TrainingProgress = Callable[[str, int, int, float], None]
"""Called with (phase, updates done, updates in all, updates per second)."""


def train(
    config: str | Path | Mapping[str, Any] | RunConfig,
    overrides: Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: TrainingProgress | None = None,
    download: bool = False,
) -> Run:
    """Trains a learner as a configuration says and returns the run.

    Args:
        config: a YAML file, a bundled name (``dr_sac/pendulum``), the values, or a `RunConfig`.
        overrides: dotted keys to values.
        out: the run's folder; ``runs/<learner>-<dataset>-seed<seed>`` when None.
        resume: go on from the folder's last checkpoint, bit for bit as if nothing had stopped it; a folder without a
            checkpoint starts from the beginning, a finished one is returned as it is.
        progress: see `TrainingProgress`.
        download: whether a Minari dataset that is not here may be downloaded; without it only one that ``overrides``
            name, for a configuration may come from anyone.

    Raises:
        ConfigError: the configuration is not valid, or the folder holds a run already.
        DatasetError: the dataset is.
        FolderInUse: another process or thread writes into the folder.
        CheckpointError: the checkpoint to resume from is damaged or belongs to another run.
    """
    resolved = config if isinstance(config, RunConfig) else load_config(config, overrides)
    folder = Path(out) if out is not None else _default_folder(resolved)
    _refuse_another(resolved, folder, resume)
    if resume and _is_finished(folder):
        return Run(folder, resolved)
    with writing(folder):
        _refuse_another(resolved, folder, resume)  # again: nobody else writes there now
        torch.set_num_threads(resolved.training.threads)
        return _Training(resolved, folder, progress, download or "dataset" in (overrides or {})).run(resume)


@dataclass
class _Training:
    config: RunConfig
    folder: Path
    progress: TrainingProgress | None
    download: bool

    def run(self, resume: bool) -> Run:
        config, settings = self.config, self.config.training
        run = Run(self.folder, config)
        if resume and _is_finished(self.folder):
            return run
        saved = load_checkpoint(run.checkpoint) if resume and run.checkpoint.is_file() else None
        dataset = load_dataset(
            config.dataset,
            env=config.environment,
            device=str(_device(settings.device)),
            download=self.download,
        )
        environment = dataset.environment
        messages = confirm(dataset, said=config.env_id is not None)
        check_wandb(config.wandb)
        training_set, held_out = split_episodes(dataset, settings.holdout)
        streams = random_streams(config.seed, dataset.device)
        feed = LoggedFeed(training_set)  # refused here when no row has a target
        learner = build_learner(config, training_set, streams)
        require_columns(learner, feed)
        learner.prepare(feed)
        parts = _Parts(learner, feed, streams, learner.phases(settings))
        step = 0
        if saved is not None:
            step = self._restore(saved, parts, dataset.fingerprint, run.checkpoint)
        # Everything that can be wrong with the input has been found by now: only here is anything written.
        messages += future_warnings(training_set, learner.model is not None) + learner.warnings(training_set)
        self._write_start(dataset, messages)
        told = None if environment is None else str(environment)
        wandb = WandbRun(config, self.folder, config.label, told) if config.wandb.mode != "disabled" else None
        metrics = MetricsFile(within(self.folder, "metrics.jsonl"), keep_until=step)
        clock = _Clock(step, _time_so_far(run) if step else 0.0)
        rows = (held_out, training_set)
        try:
            for phase, last in parts.stretches():
                if step < last and phase.begin is not None:
                    phase.begin(feed)
                sums: dict[str, Tensor] = {}
                while step < last:
                    told_by_feed = feed.advance()
                    info = phase.step(feed.sample(settings.batch_size, streams["sampler"]))
                    _accumulate(sums, {**info, **told_by_feed} if told_by_feed else info)
                    step += 1
                    if step % settings.log_every == 0 or step == last:
                        line = {"step": step, "phase": phase.name, "time": round(clock.seconds(), 3)} | _means(sums)
                        line["time/updates_per_s"] = round(clock.rate(step), 2)
                        self._log(metrics, wandb, line, parts.total)
                        if step == last < parts.total:
                            self._diagnose(learner, rows, streams)
                        if step % settings.checkpoint_every < settings.log_every or step == last:
                            save_checkpoint(run.checkpoint, self._state(parts, step, dataset.fingerprint))
            self._finish(learner, rows, streams, clock, parts.total)
        except BaseException:
            if wandb is not None:
                wandb.finish(exit_code=1)
            raise
        finally:
            metrics.close()
        if wandb is not None:
            wandb.finish()
        return run

    def _log(self, metrics: MetricsFile, wandb: WandbRun | None, line: dict[str, Any], total: int) -> None:
        bad = [key for key, value in line.items() if isinstance(value, float) and not np.isfinite(value)]
        if bad:
            raise ConfigError(
                f"training diverged at step {line['step']}: {', '.join(bad)} is not finite; "
                "lower the learning rates or scale the rewards (learner.reward_scale)"
            )
        metrics.write(line)
        if wandb is not None:
            wandb.log(line)
        if self.progress is not None:
            self.progress(line["phase"], line["step"], total, line["time/updates_per_s"])

    def _state(self, parts: _Parts, step: int, fingerprint: str) -> dict[str, Any]:
        environment = parts.learner.problem.environment
        return {
            "step": step,
            "env_id": None if environment is None else environment.id,
            "learner_name": self.config.learner.name,
            "dataset": fingerprint,
            "learner": parts.learner.state(),
            "feed": parts.feed.state(),
            "streams": {name: stream.get_state() for name, stream in parts.streams.items()},
        }

    def _restore(self, saved: dict[str, Any], parts: _Parts, fingerprint: str, where: Path) -> int:
        fresh = self._state(parts, 0, fingerprint)
        saved.setdefault("feed", {})  # checkpoints of versions that had logged rows alone
        if saved.keys() != fresh.keys():
            raise CheckpointError(f"{where}: has other parts than a checkpoint of this version")
        for key, word in (("env_id", "environment"), ("learner_name", "learner"), ("dataset", "dataset")):
            if saved[key] != fresh[key]:
                raise CheckpointError(f"{where}: belongs to another {word} ({str(saved[key])[:80]}), not {fresh[key]}")
        if type(saved["step"]) is not int or not 0 <= saved["step"] <= parts.total:
            raise CheckpointError(f"{where}: its step {saved['step']!r} is outside 0..{parts.total}")
        for key in ("learner", "feed", "streams"):
            require_like(fresh[key], saved[key], where)
        try:
            parts.learner.load_state(saved["learner"])
            parts.feed.load_state(saved["feed"])
            for name, stream in parts.streams.items():
                stream.set_state(saved["streams"][name])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{where}: does not fit this run: {str(error).splitlines()[0]}") from None
        return int(saved["step"])

    def _write_start(self, dataset: TransitionDataset, messages: list[str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        known = self.folder / "meta.json"
        started = Run(self.folder, self.config).meta.get("started") if known.is_file() else None
        write_text(self.folder / "config.yaml", self.config.to_yaml())
        facts: dict[str, Any] = {
            "format": 1,
            "learner": self.config.learner.name,
            "label": self.config.label,
            "env_id": dataset.env_id,
            "environment": None if dataset.environment is None else dataset.environment.to_dict(),
            "seed": self.config.seed,
            "dataset": {
                "name": self.config.dataset,
                "fingerprint": dataset.fingerprint,
                "transitions": len(dataset),
                "episodes": dataset.episodes,
            },
            "started": started or datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if messages:
            facts["warnings"] = messages
        write_json(self.folder / "meta.json", facts | environment_facts())
        for message in messages if started is None else []:  # once a run, not at every resumption
            warnings.warn(message, stacklevel=2)

    def _diagnose(
        self,
        learner: Learner,
        rows: tuple[TransitionDataset | None, TransitionDataset],
        streams: Mapping[str, torch.Generator],
        gap: float | None = None,
    ) -> None:
        if learner.model is None:
            return
        # A stream of its own, started anew: looking at a model never changes the training.
        stream = streams["diagnosis"].clone_state()
        held_out, training_set = rows
        unseen = held_out is not None and bool(held_out.next_valid.any())
        looked_at = held_out if unseen and held_out is not None else training_set
        if not bool(looked_at.next_valid.any()):
            return
        diagnosis = diagnose(learner.model, looked_at, stream, scales=learner.problem.scales, held_out=unseen)
        # In terms of KL, whatever the ball: None where an empty ball is no danger.
        radius = self.config.learner.kl_radius
        messages = diagnosis.warnings(radius)
        if gap is None or self.config.training.model_steps == 0:
            for message in messages:
                warnings.warn(message, stacklevel=2)
        content = diagnosis.to_dict() | {"radius": radius, "robust_gap": gap, "warnings": messages}
        content["coverage"] = {"nominal": diagnosis.levels, "observed": diagnosis.coverage}
        write_json(self.folder / "model.json", content)

    def _finish(
        self,
        learner: Learner,
        rows: tuple[TransitionDataset | None, TransitionDataset],
        streams: Mapping[str, torch.Generator],
        clock: _Clock,
        total: int,
    ) -> None:
        run = Run(self.folder, self.config)
        gaps = [line["dual/gap"] for line in run.metrics if "dual/gap" in line]
        self._diagnose(learner, rows, streams, gap=gaps[-1] if gaps else 0.0)
        finished = {"training_minutes": round(clock.seconds() / 60, 5), "updates_per_s": round(clock.rate(total), 2)}
        write_json(self.folder / "meta.json", run.meta | finished | peak_memory())
        save_policies(self.folder, learner.policies())  # last: where they are, the training is finished


@dataclass(frozen=True)
class _Parts:
    """What a checkpoint holds the state of, and how long it is trained."""

    learner: Learner
    feed: Feed
    streams: Mapping[str, torch.Generator]
    phases: Sequence[Phase]

    @property
    def total(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def stretches(self) -> Iterator[tuple[Phase, int]]:
        """Each phase with the count of steps that it ends at."""
        yield from zip(self.phases, accumulate(phase.steps for phase in self.phases), strict=True)


class _Clock:
    """Seconds of training, over all processes that worked on it, and updates a second of this one."""

    def __init__(self, step: int, before: float) -> None:
        self._start, self._first, self._before = time.perf_counter(), step, before

    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._start

    def rate(self, step: int) -> float:
        return (step - self._first) / max(time.perf_counter() - self._start, 1e-9)


def _time_so_far(run: Run) -> float:
    """Seconds of training that metrics.jsonl tells of."""
    times = [line.get("time") for line in run.metrics] if (run.folder / "metrics.jsonl").is_file() else []
    return max((float(t) for t in times if isinstance(t, int | float)), default=0.0)


def random_streams(seed: int, device: torch.device) -> dict[str, torch.Generator]:
    """One generator a purpose, independent of each other by NumPy's seed sequences."""
    streams = {}
    for place, name in enumerate(STREAMS):
        state = int(np.random.SeedSequence([seed, place]).generate_state(1, np.uint64)[0])
        # Initial weights are drawn on the CPU, so that they do not depend on the device.
        where = torch.device("cpu") if name == "init" else device
        streams[name] = torch.Generator(where).manual_seed(state & (2**63 - 1))
    return streams


def build_learner(config: RunConfig, dataset: TransitionDataset, streams: Mapping[str, torch.Generator]) -> Learner:
    """A fresh learner, with its nominal model where it has one, for a dataset."""
    problem, model = Problem.of(dataset, streams), None
    if config.model is not None:
        model = MODELS[config.model.name](  # type: ignore[call-arg] # what every model is built from
            config.model,
            problem.observation_dim,
            problem.action_dim,
            problem.scales,
            streams["init"],
            problem.device,
        )
    return LEARNERS[config.learner.name](config.learner, replace(problem, model=model))


def require_columns(learner: Learner, feed: Feed) -> None:
    """Refuses, by name, a feed that lacks columns that a learner needs."""
    if missing := sorted(learner.columns - feed.columns):
        there = ", ".join(sorted(feed.columns)) or "none"
        raise ConfigError(
            f"{learner.config.name} needs the columns {', '.join(missing)}, which the data lack (they have: {there})"
        )


def split_episodes(dataset: TransitionDataset, fraction: float) -> tuple[TransitionDataset, TransitionDataset | None]:
    """Keeps evenly spaced episodes out: (the rest, the kept-out ones or None when that would be none or all)."""
    count = round(dataset.episodes * fraction)
    if count == 0 or count >= dataset.episodes:
        return dataset, None
    chosen = torch.linspace(0, dataset.episodes - 1, count, device=dataset.device).round().long()
    out = torch.isin(dataset.episode, chosen)
    return dataset.select(~out), dataset.select(out)


def _accumulate(sums: dict[str, Tensor], info: Mapping[str, Tensor]) -> None:
    """Adds an update's figures, on the device."""
    if sums.keys() != info.keys() | {"count"}:
        sums.clear()
        sums |= {key: value.clone() for key, value in info.items()} | {"count": torch.ones(())}
        return
    keys = list(info)
    torch._foreach_add_([sums[key] for key in keys], [info[key] for key in keys])
    sums["count"] += 1


def _means(sums: dict[str, Tensor]) -> dict[str, float]:
    """Means since the last call (one host sync), and starts anew."""
    count = float(sums.pop("count"))
    values = torch.stack([value.float() for value in sums.values()]) / count
    means = {key: float(f"{value:.6g}") for key, value in zip(sums, values.tolist(), strict=True)}
    sums.clear()
    return means


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"training.device is {name} but PyTorch sees no CUDA device; use cpu")
    return device


def _default_folder(config: RunConfig) -> Path:
    path = Path(config.dataset)
    dataset = path.stem if path.exists() else config.dataset.replace("/", "-")
    return Path("runs") / f"{config.learner.name.replace(':', '-')}-{dataset}-seed{config.seed}"


def _refuse_another(config: RunConfig, folder: Path, resume: bool) -> None:
    if (folder / "config.yaml").is_file():
        if not resume:
            raise ConfigError(f"{folder}: holds a run already; go on with --resume, or choose another --out")
        _require_same(config, folder)


def _is_finished(folder: Path) -> bool:
    return within(folder, POLICY).is_file()


def _require_same(config: RunConfig, folder: Path) -> None:
    """A resumed run must be the run that was started."""
    if (differs := first_difference(folder, config)) is not None:
        raise ConfigError("{}: cannot resume: {} was {} and is now {}".format(folder, *differs))
