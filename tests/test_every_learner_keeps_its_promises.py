"""The conformance kit: what every learner guarantees, whatever its algorithm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import line_dataset, make_learner, run_values, saved, two_way

from offline_robust.errors import CheckpointError, ConfigError, DatasetError
from offline_robust.experiments import load_run, train
from offline_robust.experiments.checkpoints import load_checkpoint, save_checkpoint
from offline_robust.learners import LEARNERS
from offline_robust.networks import load_policy

learners = pytest.mark.parametrize("name", sorted(LEARNERS))


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
    for _ in range(count):
        info = learner.update(dataset.sample(size, learner.problem.streams["sampler"]))
    return info


@learners
def test_learns_on_a_toy(name: str) -> None:
    """On the line the best policy drives the point to zero: reward per step must rise far above random's."""
    data = line_dataset(episodes=60)
    learner = make_learner(name, data, critic_learning_rate=3e-3, actor_learning_rate=3e-3, tau=0.05, discount=0.9)
    for _ in range(300 if learner.uses_model or learner.pretrains(learner.config) else 0):
        learner.pretrain(data.sample(128, learner.problem.streams["sampler"]))
    steps(learner, data, 800, 128)
    states = np.linspace(-2, 2, 41, dtype=np.float32)[:, None]
    actions = learner.policy.act(states)
    far = np.abs(states[:, 0]) > 0.6
    assert (np.sign(actions[far, 0]) == -np.sign(states[far, 0])).all()
    s = states.copy()
    for _ in range(10):
        s = s + 0.5 * learner.policy.act(s)
    assert np.abs(s).mean() < 0.35  # started at 1.0 on average; random actions leave it above 1


@learners
def test_is_deterministic_by_seed(name: str) -> None:
    data = line_dataset()
    first, second, other = (make_learner(name, data, seed=seed) for seed in (3, 3, 4))
    for learner in (first, second, other):
        steps(learner, data, 5)
    assert_same_state(first.state(), second.state())
    observations = data.observations[:20]
    assert not torch.equal(first.policy.act(observations), other.policy.act(observations))


@learners
def test_saves_and_loads_through_a_file(name: str, tmp_path) -> None:
    """A learner restored from a checkpoint file continues bit for bit."""
    data = line_dataset()
    learner, restored = make_learner(name, data, seed=0), make_learner(name, data, seed=9)
    steps(learner, data, 4)
    save_checkpoint(tmp_path / "c.safetensors", {"learner": learner.state()})
    restored.load_state(load_checkpoint(tmp_path / "c.safetensors")["learner"])
    assert_same_state(learner.state(), restored.state())
    for key, stream in learner.problem.streams.items():
        restored.problem.streams[key].set_state(stream.get_state())
    for each in (learner, restored):
        steps(each, data, 4)
    assert_same_state(learner.state(), restored.state())


@learners
def test_resumed_run_equals_an_uninterrupted_one(name: str, tmp_path) -> None:
    """A run stopped after its second checkpoint and resumed has the same weights, streams and metrics."""
    values = run_values(saved(line_dataset(), tmp_path), name)
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
    assert (whole.folder / "model.json").exists() == LEARNERS[name][1].uses_model
    untimed = [[{k: v for k, v in line.items() if "time" not in k} for line in run.metrics] for run in (whole, resumed)]
    assert untimed[0] == untimed[1]


@learners
@pytest.mark.parametrize(("episodes", "length"), [(1, 12), (1, 1)])
def test_survives_tiny_datasets(name: str, episodes: int, length: int) -> None:
    data = line_dataset(episodes=episodes, length=length)
    learner = make_learner(name, data)
    info = steps(learner, data, 3, size=8)
    assert all(torch.isfinite(value) for value in info.values()), info
    assert torch.isfinite(learner.policy.act(data.observations)).all()


@pytest.mark.parametrize("name", sorted(name for name, (_, kind) in LEARNERS.items() if not kind.takes_discrete))
def test_refuses_discrete_actions_by_name(name: str, tmp_path) -> None:
    with pytest.raises(ConfigError, match=f"{name} needs continuous actions"):
        train(run_values(saved(two_way(line_dataset()), tmp_path), name), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


discrete_learners = pytest.mark.parametrize(
    "name", sorted(name for name, (_, kind) in LEARNERS.items() if kind.takes_discrete)
)


@discrete_learners
def test_learns_discrete_actions_on_a_toy(name: str) -> None:
    """On the line, driven left or right by what the sign of the continuous action was: towards zero is best."""
    data = two_way(line_dataset(episodes=60))
    learner = make_learner(name, data, critic_learning_rate=3e-3, tau=0.05, discount=0.9)
    for _ in range(300 if learner.pretrains(learner.config) else 0):
        learner.pretrain(data.sample(128, learner.problem.streams["sampler"]))
    steps(learner, data, 800, 128)
    states = np.linspace(-2, 2, 41, dtype=np.float32)[:, None]
    actions = learner.policy.act(states)
    assert actions.dtype == np.int64
    far = np.abs(states[:, 0]) > 0.6
    assert ((actions[far] == 0) == (states[far, 0] > 0)).all()


@discrete_learners
def test_discrete_runs_resume_and_export(name: str, tmp_path) -> None:
    values = run_values(saved(two_way(line_dataset()), tmp_path), name)
    whole = train(values, out=tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop_late(phase: str, step: int, total: int, rate: float) -> None:
        if phase == "train" and step >= total - 10:
            raise Stop

    with pytest.raises(Stop):
        train(values, out=tmp_path / "cut", progress=stop_late)
    resumed = train(values, out=tmp_path / "cut", resume=True)
    assert_same_state(load_checkpoint(whole.checkpoint), load_checkpoint(resumed.checkpoint))
    actions = whole.policy.act(line_dataset().observations)
    assert torch.equal(actions, resumed.policy.act(line_dataset().observations))
    assert set(actions.tolist()) <= {0, 1}


@learners
def test_exported_policy_agrees(name: str, tmp_path) -> None:
    data = line_dataset()
    learner = make_learner(name, data)
    steps(learner, data, 3)
    learner.policy.save(tmp_path / "p.safetensors")
    observations = torch.randn(50, 1, generator=torch.Generator().manual_seed(0)) * 3
    assert torch.equal(load_policy(tmp_path / "p.safetensors").act(observations), learner.policy.act(observations))


@learners
def test_info_is_a_flat_dictionary_of_scalars_under_known_prefixes(name: str) -> None:
    data = line_dataset()
    info = steps(make_learner(name, data), data, 1)
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
    values = run_values(saved(line_dataset(), tmp_path), name)
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
