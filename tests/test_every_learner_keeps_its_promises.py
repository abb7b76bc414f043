"""The conformance kit: what every learner guarantees, whatever its algorithm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import line_dataset, run_values, saved, toy_learner, two_way

from offline_robust.baselines import PREFIX
from offline_robust.datasets import TransitionDataset
from offline_robust.datasets.feed import LoggedFeed
from offline_robust.errors import CheckpointError, ConfigError, DatasetError
from offline_robust.experiments import load_run, train
from offline_robust.experiments.checkpoints import load_checkpoint, save_checkpoint
from offline_robust.experiments.config import TrainingConfig
from offline_robust.learners import LEARNERS
from offline_robust.networks import load_policy

NAMES = sorted(name for name in LEARNERS if not name.startswith(PREFIX))
"""The d3rlpy bridge has tests of its own."""

learners = pytest.mark.parametrize("name", NAMES)
kinds = pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in NAMES for kind in sorted(LEARNERS[name].actions)]
)


def data_of(kind: str, **fields) -> TransitionDataset:
    """The line, with actions of a kind."""
    return two_way(line_dataset(**fields)) if kind == "discrete" else line_dataset(**fields)


def some_data(name: str, **fields) -> TransitionDataset:
    """The line, with actions of a kind that the learner takes."""
    return data_of(min(LEARNERS[name].actions), **fields)


def tensors_of(state, path=""):
    """Every tensor of a nested state by path."""
    if isinstance(state, torch.Tensor):
        return {path: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else ()
    return {k: v for key, value in items for k, v in tensors_of(value, f"{path}/{key}").items()}


def assert_same_state(a, b) -> None:
    left, right = tensors_of(a), tensors_of(b)
    assert left.keys() == right.keys()
    assert len(left) > 10
    for path in left:
        assert torch.equal(left[path], right[path]), path


def steps(learner, dataset, count, size=64):
    feed = LoggedFeed(dataset)
    learner.prepare(feed)
    for _ in range(count):
        info = learner.update(feed.sample(size, learner.problem.streams["sampler"]))
    return info


def train_through(learner, dataset, model_steps, count, size):
    """All phases of a training, without the loop."""
    prepares = learner.config.needs_model or learner.config.prepares
    feed = LoggedFeed(dataset)
    learner.prepare(feed)
    for phase in learner.phases(TrainingConfig(model_steps=model_steps if prepares else 0, steps=count)):
        if phase.begin is not None:
            phase.begin(feed)
        for _ in range(phase.steps):
            phase.step(feed.sample(size, learner.problem.streams["sampler"]))


@kinds
def test_learns_on_a_toy(name: str, kind: str) -> None:
    """On the line the best policy drives the point to zero; one that imitates is given a log of that policy."""
    data = data_of(kind, episodes=60)
    if LEARNERS[name].imitates:
        towards_zero = -data.observations.sign() * data.actions.abs() if kind == "box" else None
        actions = (data.observations[:, 0] < 0).long() if towards_zero is None else towards_zero
        data = replace(data, actions=actions)
    learner = toy_learner(name, data)
    train_through(learner, data, 300, 800, 128)
    states = np.linspace(-2, 2, 41, dtype=np.float32)[:, None]
    actions = learner.policy.act(states)
    far = np.abs(states[:, 0]) > 0.6
    if kind == "discrete":
        assert actions.dtype == np.int64
        assert ((actions[far] == 0) == (states[far, 0] > 0)).all()
        return
    assert (np.sign(actions[far, 0]) == -np.sign(states[far, 0])).all()
    s = states.copy()
    for _ in range(10):
        s = s + 0.5 * learner.policy.act(s)
    assert np.abs(s).mean() < 0.35  # started at 1.0 on average; random actions leave it above 1


@learners
def test_is_deterministic_by_seed(name: str) -> None:
    data = some_data(name)
    first, second, other = (toy_learner(name, data, seed=seed) for seed in (3, 3, 4))
    for learner in (first, second, other):
        steps(learner, data, 5)
    assert_same_state(first.state(), second.state())
    observations = data.observations[:20]
    assert not torch.equal(first.policy.act(observations), other.policy.act(observations))


@learners
def test_saves_and_loads_through_a_file(name: str, tmp_path) -> None:
    """A learner restored from a checkpoint file continues bit for bit."""
    data = some_data(name)
    learner, restored = toy_learner(name, data, seed=0), toy_learner(name, data, seed=9)
    steps(learner, data, 4)
    save_checkpoint(tmp_path / "c.safetensors", {"learner": learner.state()})
    restored.load_state(load_checkpoint(tmp_path / "c.safetensors")["learner"])
    assert_same_state(learner.state(), restored.state())
    for key, stream in learner.problem.streams.items():
        restored.problem.streams[key].set_state(stream.get_state())
    for each in (learner, restored):
        steps(each, data, 4)
    assert_same_state(learner.state(), restored.state())


@kinds
def test_resumed_run_equals_an_uninterrupted_one(name: str, kind: str, tmp_path) -> None:
    """A run stopped after its second checkpoint and resumed has the same weights, streams and metrics."""
    values = run_values(saved(data_of(kind), tmp_path), name)
    whole = train(values, out=tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop_late(phase: str, step: int, total: int, rate: float) -> None:
        if phase == "train" and step >= total - 10:
            raise Stop

    with pytest.raises(Stop):
        train(values, out=tmp_path / "cut", progress=stop_late)
    assert not (tmp_path / "cut" / "policy.safetensors").exists()
    with pytest.raises(CheckpointError, match="not finished"):
        _ = load_run(tmp_path / "cut").policy
    resumed = train(values, out=tmp_path / "cut", resume=True)
    assert_same_state(load_checkpoint(whole.checkpoint), load_checkpoint(resumed.checkpoint))
    assert (whole.folder / "policy.safetensors").read_bytes() == (resumed.folder / "policy.safetensors").read_bytes()
    assert (whole.folder / "model.json").exists() == whole.config.learner.needs_model
    untimed = [[{k: v for k, v in line.items() if "time" not in k} for line in run.metrics] for run in (whole, resumed)]
    assert untimed[0] == untimed[1]
    actions = whole.policy.act(data_of(kind).observations)
    assert actions.shape == data_of(kind).actions.shape
    assert torch.equal(actions, resumed.policy.act(data_of(kind).observations))


@learners
@pytest.mark.parametrize(("episodes", "length"), [(1, 12), (1, 1)])
def test_survives_tiny_datasets(name: str, episodes: int, length: int) -> None:
    data = some_data(name, episodes=episodes, length=length)
    learner = toy_learner(name, data)
    info = steps(learner, data, 3, size=8)
    assert all(torch.isfinite(value) for value in info.values()), info
    assert torch.isfinite(learner.policy.act(data.observations)).all()


@learners
def test_refuses_the_wrong_kind_of_actions_by_name(name: str, tmp_path) -> None:
    for kind in {"box", "discrete"} - LEARNERS[name].actions:
        wanted = "continuous" if kind == "discrete" else "discrete"
        with pytest.raises(ConfigError, match=f"{name} needs {wanted} actions"):
            train(run_values(saved(data_of(kind), tmp_path), name), out=tmp_path / "run")
        assert not (tmp_path / "run").exists()


@learners
def test_every_exported_policy_agrees(name: str, tmp_path) -> None:
    data = some_data(name)
    learner = toy_learner(name, data)
    steps(learner, data, 3)
    observations = torch.randn(50, 1, generator=torch.Generator().manual_seed(0)) * 3
    assert "policy" in learner.policies()
    for known_as, policy in learner.policies().items():
        policy.save(tmp_path / f"{known_as}.safetensors")
        exported = load_policy(tmp_path / f"{known_as}.safetensors")
        assert torch.equal(exported.act(observations), policy.act(observations)), known_as


@learners
def test_info_is_a_flat_dictionary_of_scalars_under_known_prefixes(name: str) -> None:
    data = some_data(name)
    info = steps(toy_learner(name, data), data, 1)
    for key, value in info.items():
        assert key.split("/")[0] in ("train", "dual", "model")
        assert value.ndim == 0
        assert not value.requires_grad


def test_radius_zero_trains(tmp_path) -> None:
    values = run_values(saved(line_dataset(), tmp_path), "dr_sac")
    values["learner"] |= {"delta": 0.0}
    run = train(values, out=tmp_path / "run")
    assert run.metrics[-1]["dual/gap"] == pytest.approx(0.0, abs=1e-6)


@learners
def test_a_finished_run_is_left_alone(name: str, tmp_path) -> None:
    values = run_values(saved(some_data(name), tmp_path), name)
    run = train(values, out=tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()}
    train(values, out=tmp_path / "run", resume=True)
    assert before == {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()}


def test_data_without_a_single_target_are_refused(tmp_path) -> None:
    data = line_dataset(episodes=1, length=3)
    useless = replace(data, next_valid=torch.zeros(3, dtype=torch.bool))
    with pytest.raises(DatasetError, match="nothing to learn from"):
        train(run_values(saved(useless, tmp_path), "sac"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
