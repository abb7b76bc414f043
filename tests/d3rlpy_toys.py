"""Small d3rlpy learners and awkward datasets for the tests of the bridge."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from hypothesis import strategies as st
from toys import problem_of

from offline_robust.baselines import D3RLPyConfig, D3RLPyLearner
from offline_robust.baselines.names import DISCRETE, require_d3rlpy
from offline_robust.datasets import TransitionDataset
from offline_robust.datasets.feed import LoggedFeed
from offline_robust.environment import EnvironmentSpec

WIDTHS = {"type": "vector", "hidden_units": [16, 16]}


def small(name: str, **fields: Any) -> dict[str, Any]:
    """A configuration of networks that train in a second."""
    kind = getattr(require_d3rlpy("a test").algos, f"{name}Config")
    encoders = {f.name: WIDTHS for f in dataclasses.fields(kind) if f.name.endswith("encoder_factory")}
    early = {"PLAS": {"warmup_steps": 2}, "PLASWithPerturbation": {"warmup_steps": 2}, "BEAR": {"warmup_steps": 2}}
    return encoders | early.get(name, {}) | fields


def make(name: str, dataset: TransitionDataset, seed: int = 0, **fields: Any) -> D3RLPyLearner:
    """A small learner on a dataset, with fresh streams."""
    config = D3RLPyConfig(name=f"d3rlpy:{name}", config=small(name, **fields))
    return D3RLPyLearner(config, problem_of(dataset, seed))


def feed_of(learner: D3RLPyLearner) -> LoggedFeed:
    """The learner's own dataset with the columns that it looks at."""
    assert learner.problem.dataset is not None
    feed = LoggedFeed(learner.problem.dataset)
    learner.prepare(feed)
    return feed


def fitting(name: str, dataset: TransitionDataset) -> TransitionDataset:
    """The dataset with actions of the algorithm's kind."""
    if name not in DISCRETE:
        return dataset
    actions = (dataset.actions[:, 0] > 0).long() + (dataset.actions[:, 0] > 0.5).long()
    return replace(dataset, actions=actions, action_space=gym.spaces.Discrete(3))


def steps(learner: D3RLPyLearner, count: int, size: int = 32) -> dict[str, torch.Tensor]:
    info: dict[str, torch.Tensor] = {}
    feed = feed_of(learner)
    for _ in range(count):
        info = learner.update(feed.sample(size, learner.problem.streams["sampler"]))
    return info


@st.composite
def datasets(draw: Any, discrete: bool | None = None) -> TransitionDataset:
    """Short episodes with true ends, cuts, both at once, flags inside an episode, and gaps; no two values are equal."""
    rows: dict[str, list[Any]] = {name: [] for name in ("after", "terminated", "truncated", "valid", "episode")}
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    number = 0
    for episode, length in enumerate(lengths):
        for row in range(length):
            last = row == length - 1
            terminated = draw(st.booleans()) if last else draw(st.integers(0, 9)) == 0
            jumps = last or draw(st.integers(0, 5)) == 0
            rows["after"].append(1_000.0 + number if jumps else float(number + 1))
            rows["terminated"].append(terminated)
            rows["truncated"].append((last and not terminated) or draw(st.integers(0, 9)) == 0)
            rows["valid"].append(draw(st.integers(0, 3)) > 0)
            rows["episode"].append(episode)
            number += 1
    observations = torch.arange(number, dtype=torch.float32)[:, None] * torch.tensor([1.0, -1.0])
    is_discrete = draw(st.booleans()) if discrete is None else discrete
    start = draw(st.integers(0, 3))
    space = gym.spaces.Discrete(4, start=start) if is_discrete else gym.spaces.Box(-2.0, 3.0, (2,), np.float32)
    actions = torch.from_numpy(np.random.default_rng(number).uniform(-1, 1, (number, 2)).astype(np.float32))
    if not is_discrete and draw(st.booleans()):
        actions = actions.round()  # whole numbers are no discrete actions
    valid = torch.tensor(rows["valid"])
    after = torch.tensor(rows["after"])[:, None] * torch.tensor([1.0, -1.0])
    return TransitionDataset(
        observations=observations,
        actions=torch.arange(number) % 4 + start if is_discrete else actions,
        rewards=torch.arange(number, dtype=torch.float32) / 7,
        next_observations=torch.where(valid[:, None], after, observations),
        terminated=torch.tensor(rows["terminated"]),
        truncated=torch.tensor(rows["truncated"]),
        next_valid=valid,
        episode=torch.tensor(rows["episode"]),
        observation_space=gym.spaces.Box(-np.inf, np.inf, (2,), np.float32),
        action_space=space,
        environment=EnvironmentSpec("Toy-v0", {"mass": 2.0}),
    )
