"""Speed, side by side in one run: these machines are noisy, so only ratios of interleaved rounds mean anything."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import torch

from offline_robust.datasets import TransitionDataset, load_dataset, write_minari
from offline_robust.errors import ConfigError, nearest
from offline_robust.experiments.train import random_streams
from offline_robust.learners import LEARNERS, DRSACConfig, Problem, SACConfig
from offline_robust.models import Scales, TransitionVAE, VAEConfig

_PARTS = ("updates", "loading")


def run(what: str, threads: int, rounds: int) -> dict[str, Any]:
    """Runs the benchmarks asked for and returns medians and ratios.

    Args:
        what: ``updates``, ``loading`` or ``all``.
        threads: CPU threads.
        rounds: interleaved rounds.

    Raises:
        ConfigError: no such benchmark.
    """
    if what not in (*_PARTS, "all"):
        raise ConfigError(f"unknown benchmark '{what}'{nearest(what, [*_PARTS, 'all'])}")
    torch.set_num_threads(threads)
    figures: dict[str, Any] = {"threads": threads, "rounds": rounds}
    if what in ("updates", "all"):
        figures["updates"] = updates(rounds)
    if what in ("loading", "all"):
        figures["loading"] = loading(rounds)
    return figures


def updates(rounds: int) -> dict[str, Any]:
    """Milliseconds an update on the bundled Pendulum data at the paper's sizes: batch 256, 256-256, m = 200.

    Sampling the minibatch counts: it is part of every update of ours and of d3rlpy's.
    """
    dataset = load_dataset("pendulum-td3")
    steps: dict[str, tuple[Callable[[], object], int]] = {
        "SAC": (_ours(dataset, SACConfig()), 60),
        "DR-SAC exact": (_ours(dataset, DRSACConfig(dual="exact")), 6),
        "DR-SAC functional": (_ours(dataset, DRSACConfig(dual="functional")), 6),
        "DR-SAC exact, float32": (_ours(dataset, DRSACConfig(sampling_precision="float32")), 4),
    }
    if importlib.util.find_spec("d3rlpy") is not None:
        steps["d3rlpy SAC"] = (_d3rlpy(dataset), 60)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step, _ in steps.values():
        for _ in range(3):
            step()
    for _ in range(rounds):
        for name, (step, count) in steps.items():
            start = time.perf_counter()
            for _ in range(count):
                step()
            times[name].append((time.perf_counter() - start) / count * 1e3)
    milliseconds = {name: statistics.median(values) for name, values in times.items()}

    def ratio(a: str, b: str) -> float | None:
        """Median over rounds of the ratio within a round."""
        if a not in times or b not in times:
            return None
        return statistics.median(x / y for x, y in zip(times[a], times[b], strict=True))

    return {
        "milliseconds": milliseconds,
        "ratios": {
            "d3rlpy SAC / SAC (at least 1.5)": ratio("d3rlpy SAC", "SAC"),
            "DR-SAC exact / SAC (at most 9)": ratio("DR-SAC exact", "SAC"),
            "DR-SAC exact / functional (at most 1.15)": ratio("DR-SAC exact", "DR-SAC functional"),
            "float32 / auto sampling": ratio("DR-SAC exact, float32", "DR-SAC exact"),
        },
    }


def loading(rounds: int, episodes: int = 1_000, length: int = 200) -> dict[str, Any]:
    """Seconds to load a Minari file of many episodes: ours first and again, and a raw h5py read of the same file."""
    dataset = _many_episodes(episodes, length)
    times: dict[str, list[float]] = {"raw h5py read": [], "load, first": [], "load, again": []}
    with tempfile.TemporaryDirectory() as folder, _cache_in(Path(folder) / "cache"):
        for index in range(rounds):
            path = Path(folder) / f"data-{index}"
            write_minari(dataset, path, dataset_id="bench/many-v0")
            times["raw h5py read"].append(_timed(partial(_raw_read, path / "data" / "main_data.hdf5")))
            times["load, first"].append(_timed(partial(load_dataset, path)))
            times["load, again"].append(_timed(partial(load_dataset, path)))
    seconds = {name: statistics.median(values) for name, values in times.items()}
    raw = seconds["raw h5py read"]
    return {
        "episodes": episodes,
        "steps each": length,
        "seconds": seconds,
        "ratios": {
            "first load / raw read": seconds["load, first"] / raw,
            "raw read / second load": raw / seconds["load, again"],
        },
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [f"{figures['rounds']} interleaved rounds, {figures['threads']} threads; medians"]
    for part in _PARTS:
        for heading in ("milliseconds", "seconds", "ratios"):
            for name, value in figures.get(part, {}).get(heading, {}).items():
                shown = "not measured" if value is None else f"{value:10.4g}"
                lines.append(f"  {part:<9} {heading:<13} {name:<42} {shown}")
    return "\n".join(lines)


def _ours(dataset: TransitionDataset, config: SACConfig) -> Callable[[], object]:
    streams = random_streams(0, dataset.device)
    problem = Problem.of(dataset, streams)
    if config.needs_model:
        vae = TransitionVAE(VAEConfig(smoothing=0.1), 3, 1, Scales.of(dataset), streams["init"])
        problem = replace(problem, model=vae)
    learner = LEARNERS[config.name](config, problem)
    return lambda: learner.update(dataset.sample(256, streams["sampler"]))


def _d3rlpy(dataset: TransitionDataset) -> Callable[[], object]:
    """d3rlpy's SAC with the same networks, batch, optimiser rates and data."""
    with contextlib.redirect_stderr(open(os.devnull, "w")):
        import d3rlpy
    rows = len(dataset) // 200 * 200
    timeouts = np.arange(rows) % 200 == 199
    data = d3rlpy.dataset.MDPDataset(
        dataset.observations[:rows].numpy(),
        dataset.actions[:rows].numpy(),
        dataset.rewards[:rows].numpy(),
        np.zeros(rows, np.float32),
        timeouts.astype(np.float32),
        action_space=d3rlpy.ActionSpace.CONTINUOUS,
    )
    algorithm = d3rlpy.algos.SACConfig(batch_size=256).create(device="cpu")
    algorithm.build_with_dataset(data)
    return lambda: algorithm.update(data.sample_transition_batch(256))


def _many_episodes(episodes: int, length: int) -> TransitionDataset:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(episodes, length + 1, 11)).astype(np.float32)
    rows = episodes * length
    last = np.zeros((episodes, length), bool)
    last[:, -1] = True
    return TransitionDataset(
        observations=torch.from_numpy(states[:, :-1].reshape(rows, 11).copy()),
        actions=torch.from_numpy(rng.uniform(-1, 1, (rows, 3)).astype(np.float32)),
        rewards=torch.from_numpy(rng.normal(size=rows).astype(np.float32)),
        next_observations=torch.from_numpy(states[:, 1:].reshape(rows, 11).copy()),
        terminated=torch.zeros(rows, dtype=torch.bool),
        truncated=torch.from_numpy(last.reshape(rows)),
        next_valid=torch.ones(rows, dtype=torch.bool),
        episode=torch.arange(episodes).repeat_interleave(length),
        observation_space=gym.spaces.Box(-np.inf, np.inf, (11,), np.float32),
        action_space=gym.spaces.Box(-1.0, 1.0, (3,), np.float32),
    )


def _raw_read(path: Path) -> None:
    """The least that any reader must do: every array of every episode, joined."""
    with h5py.File(path) as file:
        names = [f"episode_{index}" for index in range(len(file))]
        for key in ("observations", "actions", "rewards", "terminations", "truncations"):
            np.concatenate([file[name][key][()] for name in names])


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


@contextlib.contextmanager
def _cache_in(folder: Path) -> Any:
    before = os.environ.get("OFFLINE_ROBUST_CACHE")
    os.environ["OFFLINE_ROBUST_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OFFLINE_ROBUST_CACHE"]
        else:
            os.environ["OFFLINE_ROBUST_CACHE"] = before
