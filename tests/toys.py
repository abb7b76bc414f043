"""Small problems with known answers, shared by the tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from offline_robust.datasets import Batch, TransitionDataset
from offline_robust.datasets.writers import write_npz
from offline_robust.experiments.train import random_streams
from offline_robust.learners import DRSAC, LEARNERS, Learner, Problem
from offline_robust.learners.worst_case import Future
from offline_robust.models import Scales, TransitionVAE, VAEConfig

SMALL = {"hidden": [16, 16]}
"""Networks that train in a second."""

OWN: dict[str, dict[str, Any]] = {
    "fqi": {"vae_hidden": [16, 16], "act_candidates": 10, "density_hidden": [16, 16], "vae_learning_rate": 3e-3},
    # The line's rewards are negative, down to -16: the fail state of value 0 must be the worst place.
    "rfqi": {"vae_hidden": [16, 16], "act_candidates": 10, "vae_learning_rate": 3e-3, "reward_shift": 16.0, "rho": 0.1},
}
"""What small learners of a kind need beside `SMALL`."""

DEFAULT_RATES = ("sac", "dr_sac", "fqi", "rfqi")
"""Learners whose runs of a second keep the default rates, which some tests know the outcome of."""


def line_dataset(
    episodes: int = 20, length: int = 25, seed: int = 0, noise: float = 0.1, truncate: bool = True
) -> TransitionDataset:
    """A point on a line: s' = s + 0.5 a + noise * N(0, 1), reward -s'^2, random actions in [-1, 1]."""
    rng = np.random.default_rng(seed)
    s = rng.uniform(-2, 2, (episodes, 1))
    states, actions = [s], []
    for _ in range(length):
        a = rng.uniform(-1, 1, (episodes, 1))
        s = np.clip(s + 0.5 * a + noise * rng.standard_normal((episodes, 1)), -4, 4)
        states.append(s)
        actions.append(a)
    path = np.stack(states, axis=1).astype(np.float32)
    now, after = (torch.from_numpy(part.reshape(-1, 1).copy()) for part in (path[:, :-1], path[:, 1:]))
    last = torch.zeros(episodes, length, dtype=torch.bool)
    last[:, -1] = True
    end, none = last.flatten(), torch.zeros(episodes * length, dtype=torch.bool)
    return TransitionDataset(
        observations=now,
        actions=torch.from_numpy(np.stack(actions, axis=1).reshape(-1, 1).astype(np.float32)),
        rewards=-after.square().squeeze(1),
        next_observations=after,
        terminated=none if truncate else end,
        truncated=end if truncate else none,
        next_valid=torch.ones(episodes * length, dtype=torch.bool),
        episode=torch.arange(episodes).repeat_interleave(length),
        observation_space=gym.spaces.Box(-np.inf, np.inf, (1,), np.float32),
        action_space=gym.spaces.Box(-1.0, 1.0, (1,), np.float32),
    )


def saved(dataset: TransitionDataset, folder: Path) -> str:
    """Writes the dataset as .npz and returns its path."""
    path = folder / "data.npz"
    write_npz(dataset, path)
    return str(path)


def problem_of(dataset: TransitionDataset, seed: int = 0) -> Problem:
    """The problem with fresh streams."""
    return Problem.of(dataset, random_streams(seed, torch.device("cpu")))


def two_way(data: TransitionDataset) -> TransitionDataset:
    """The same rows with two actions in place of the continuous ones: 0 where they are negative, else 1."""
    return replace(data, actions=(data.actions[:, 0] > 0).long(), action_space=gym.spaces.Discrete(2))


def make_learner(name: str, dataset: TransitionDataset, seed: int = 0, model: Any = None, **fields: Any) -> Learner:
    """A learner of small networks on a dataset, with its own defaults otherwise, and a small VAE where it needs one."""
    kind, problem = LEARNERS[name], problem_of(dataset, seed)
    if kind.Config(**fields).needs_model:
        fields = {"samples": 16} | fields
        problem = replace(problem, model=model or small_vae(dataset, problem, smoothing=0.3))
    return kind(kind.Config(**(SMALL | OWN.get(name, {}) | fields)), problem)


def toy_learner(name: str, dataset: TransitionDataset, seed: int = 0) -> Learner:
    """A learner with the settings that its class chooses for toys."""
    kind, problem = LEARNERS[name], problem_of(dataset, seed)
    config = kind.Config(name=name, **kind.toy)
    if config.needs_model:
        problem = replace(problem, model=small_vae(dataset, problem, smoothing=0.3))
    return kind(config, problem)


def future_of(learner: DRSAC, batch: Batch) -> Future:
    """What follows the rows of a batch under the learner's nominal law."""
    return learner.logged_future(batch) if learner.model is None else learner.modelled_future(batch, learner.model)


def small_vae(dataset: TransitionDataset, problem: Problem, **fields: Any) -> TransitionVAE:
    """A VAE of 32-32 networks that learns fast."""
    config = VAEConfig(**({"hidden": (32, 32), "learning_rate": 2e-3} | fields))
    return TransitionVAE(
        config, dataset.observation_dim, dataset.action_dim, Scales.of(dataset), problem.streams["init"]
    )


def run_values(dataset: str, learner: str, **training: Any) -> dict[str, Any]:
    """A configuration for a run of a second."""
    kind = LEARNERS[learner]
    config = kind.Config(name=learner, **kind.toy)
    values: dict[str, Any] = {
        "dataset": dataset,
        "learner": {"name": learner, **(SMALL | OWN.get(learner, {}) if learner in DEFAULT_RATES else kind.toy)},
        "training": {"steps": 60, "log_every": 10, "checkpoint_every": 20, "batch_size": 32} | training,
    }
    if config.needs_model:
        values["learner"] |= {"samples": 8}
        values["model"] = {"name": "vae", "hidden": [16], "smoothing": 0.3}
    if config.needs_model or config.prepares:
        values["training"] = {"model_steps": 20} | values["training"]
    return values
