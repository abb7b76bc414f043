"""The learners' guarantees, for d3rlpy's algorithms in our loop."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from d3rlpy_toys import feed_of, fitting, make, small, steps
from test_every_learner_keeps_its_promises import assert_same_state
from toys import line_dataset, saved

from offline_robust.baselines.names import CONTINUOUS, DISCRETE, require_d3rlpy
from offline_robust.baselines.policy_files import D3RLPyPolicy
from offline_robust.datasets import TransitionDataset
from offline_robust.errors import CheckpointError, ConfigError, EvaluationError, MissingExtra
from offline_robust.evaluation import evaluate
from offline_robust.evaluation.finished import fingerprint
from offline_robust.experiments import load_config, load_run, train
from offline_robust.experiments.checkpoints import load_checkpoint, save_checkpoint
from offline_robust.experiments.config import parse_override
from offline_robust.networks import Policy, load_policy

d3rlpy = require_d3rlpy("these tests")
FOUR = ("TD3PlusBC", "IQL", "CQL", "ReBRAC")
ALL = CONTINUOUS + DISCRETE
THROUGH = ("BCQ", "BEAR", "CRR", "PLAS", "PLASWithPerturbation", "DiscreteBCQ")
"""Those whose policies are no plain networks."""
four = pytest.mark.parametrize("name", FOUR)
every = pytest.mark.parametrize("name", ALL)


def run_values(dataset: str, name: str, **fields) -> dict:
    return {
        "dataset": dataset,
        "learner": {"name": f"d3rlpy:{name}", "config": small(name, **fields)},
        "training": {"steps": 40, "log_every": 10, "checkpoint_every": 10, "batch_size": 16},
    }


def test_every_q_learning_algorithm_of_d3rlpy_is_known() -> None:
    base, unable = d3rlpy.algos.QLearningAlgoBase, {"QLearningAlgoBase", "RandomPolicy", "DiscreteRandomPolicy"}
    found = {n for n, kind in vars(d3rlpy.algos).items() if isinstance(kind, type) and issubclass(kind, base)} - unable
    assert found == set(ALL)
    for name in ALL:
        action_type = getattr(d3rlpy.algos, f"{name}Config")().create().get_action_type()
        assert (action_type == d3rlpy.ActionSpace.DISCRETE) == (name in DISCRETE)


@pytest.mark.parametrize("name", ["TD3PlusBC", "IQL"])
def test_learns_on_a_toy(name: str) -> None:
    """On the line the best action points home: far from it every action must."""
    data = line_dataset(episodes=60)
    fast = {"actor_learning_rate": 1e-2, "critic_learning_rate": 1e-2, "gamma": 0.9, "tau": 0.02}
    own = {"weight_temp": 10.0, "expectile": 0.9} if name == "IQL" else {"alpha": 10.0}
    learner = make(name, data, **fast, **own)
    steps(learner, 150, 64)
    states = np.linspace(-2, 2, 41, dtype=np.float32)[:, None]
    actions = learner.policy.act(states)
    far = np.abs(states[:, 0]) > 0.6
    assert (np.sign(actions[far, 0]) == -np.sign(states[far, 0])).all()


@four
def test_is_deterministic_by_seed(name: str) -> None:
    data = line_dataset()
    first, second, other = (make(name, data, seed=seed) for seed in (3, 3, 4))
    for learner in (first, second, other):
        torch.rand(1)  # what else draws from the global stream makes no difference
        steps(learner, 3)
    assert_same_state(first.state(), second.state())
    assert not torch.equal(first.policy.act(data.observations[:20]), other.policy.act(data.observations[:20]))


@every
def test_leaves_the_global_streams_alone(name: str) -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    learner = make(name, fitting(name, line_dataset()))
    steps(learner, 3)
    learner.policy.act(np.zeros((2, 1), np.float32))
    assert torch.equal(before, torch.get_rng_state())
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


@every
def test_saves_and_loads_through_a_file(name: str, tmp_path) -> None:
    """Restored from a checkpoint file, every algorithm continues bit for bit."""
    data = fitting(name, line_dataset())
    schedule = {"type": "adam", "lr_scheduler_factory": {"type": "cosine_annealing", "T_max": 50}}
    fields = {"actor_optim_factory": schedule} if name in FOUR else {}
    learner, restored = make(name, data, **fields), make(name, data, seed=9, **fields)
    steps(learner, 4)
    save_checkpoint(tmp_path / "c.safetensors", {"learner": learner.state()})
    restored.load_state(load_checkpoint(tmp_path / "c.safetensors")["learner"])
    assert_same_state(learner.state(), restored.state())
    for key, stream in learner.problem.streams.items():
        restored.problem.streams[key].set_state(stream.get_state())
    last = [steps(each, 3) for each in (learner, restored)]
    assert_same_state(learner.state(), restored.state())
    assert last[0] == last[1]


@four
def test_resumed_run_equals_an_uninterrupted_one(name: str, tmp_path) -> None:
    values = run_values(saved(line_dataset(), tmp_path), name, observation_scaler="standard")
    whole = train(values, out=tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop_late(phase: str, step: int, total: int, rate: float) -> None:
        if step >= total - 10:
            raise Stop

    with pytest.raises(Stop):
        train(values, out=tmp_path / "cut", progress=stop_late)
    resumed = train(load_config(tmp_path / "cut" / "config.yaml"), out=tmp_path / "cut", resume=True)
    assert_same_state(load_checkpoint(whole.checkpoint), load_checkpoint(resumed.checkpoint))
    assert (whole.folder / "policy.safetensors").read_bytes() == (resumed.folder / "policy.safetensors").read_bytes()
    untimed = [[{k: v for k, v in line.items() if "time" not in k} for line in run.metrics] for run in (whole, resumed)]
    assert untimed[0] == untimed[1]
    assert {"train/critic_loss", "train/actor_loss"} <= untimed[0][-1].keys()


@four
@pytest.mark.parametrize("length", [12, 2])
def test_survives_tiny_datasets(name: str, length: int) -> None:
    data = line_dataset(episodes=1, length=length)
    info = steps(make(name, data), 3, size=8)
    assert all(torch.isfinite(value) for value in info.values()), info


def test_rebrac_draws_only_rows_whose_next_action_is_known() -> None:
    """A cut row has none; with nothing but cut rows there is nothing to learn from."""
    data = line_dataset(episodes=5, length=3)
    learner = make("ReBRAC", data)
    batch = feed_of(learner).sample(200, learner.problem.streams["sampler"])
    last = data.observations[2::3]
    assert not torch.isin(batch.observations, last).any()
    with pytest.raises(ConfigError, match="next_actions"):
        feed_of(make("ReBRAC", line_dataset(episodes=3, length=1)))
    with pytest.raises(TypeError, match=r"a feed that learner\.prepare has seen"):
        learner.update(data.rows(torch.arange(4)))


@pytest.mark.parametrize("scalers", [{}, {"observation_scaler": "standard"}, {"observation_scaler": "min_max"}])
@pytest.mark.parametrize("name", [n for n in ALL if n not in THROUGH])
def test_the_exported_policy_is_ours_and_agrees(name: str, scalers, tmp_path) -> None:
    """Within the rounding of a scaler folded into the first layer, also where actions lie outside [-1, 1]."""
    data = line_dataset()
    wide = replace(data, actions=data.actions * 3 - 1, action_space=gym.spaces.Box(-4.0, 2.0, (1,), np.float32))
    learner = make(name, fitting(name, data if name in DISCRETE else wide), **scalers)
    steps(learner, 5)
    policy = learner.policy
    policy.save(tmp_path / "p.safetensors")
    assert type(load_policy(tmp_path / "p.safetensors")) is type(policy) is Policy
    observations = np.random.default_rng(0).normal(0, 2, (200, 1)).astype(np.float32)
    expected = learner.algorithm.predict(observations)
    found = load_policy(tmp_path / "p.safetensors").act(observations)
    assert found.shape == expected.shape
    if name in DISCRETE:
        assert (found == expected).mean() > 0.99  # a tie within rounding may fall either way
    else:
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert (policy.spec.action_low, policy.spec.action_high) == ((-4.0,), (2.0,))


def test_an_exported_sac_draws_as_d3rlpys() -> None:
    """Also the law around the mean is the same: tanh of the same Gaussian."""
    learner = make("SAC", line_dataset())
    steps(learner, 5)
    x = torch.randn(50, 1, generator=torch.Generator().manual_seed(0))
    theirs = learner.algorithm.impl.modules.policy(x)
    hidden = torch.relu(learner.policy.actor.trunk(x))
    torch.testing.assert_close(learner.policy.actor.mean(hidden), theirs.mu)
    torch.testing.assert_close(learner.policy.actor.log_std(hidden).clamp(-20, 2), theirs.logstd)


@pytest.mark.parametrize(
    ("name", "fields"), [(n, {}) for n in THROUGH] + [("TD3PlusBC", {"wide": True}), ("DQN", {"wide": True})]
)
def test_other_policies_act_through_d3rlpy_and_survive_the_disk(name: str, fields, tmp_path) -> None:
    data = fitting(name, line_dataset())
    norm = {"type": "vector", "hidden_units": [16], "use_layer_norm": True}
    if fields:
        fields = {"actor_encoder_factory": norm} if name == "TD3PlusBC" else {"encoder_factory": norm}
    learner = make(name, data, observation_scaler="standard", **fields)
    steps(learner, 4)
    policy = learner.policy
    policy.save(tmp_path / "p.safetensors")
    read = load_policy(tmp_path / "p.safetensors")
    assert type(read) is D3RLPyPolicy
    observations = torch.randn(30, 1, generator=torch.Generator().manual_seed(0))
    actions = policy.act(observations)
    assert torch.equal(actions, read.act(observations))
    assert torch.equal(actions, policy.act(observations))  # nothing is left behind by a call
    assert (policy.act(observations[0]) == policy.act(observations[:1])[0]).all()
    assert fingerprint(policy) == fingerprint(read)
    with pytest.raises(EvaluationError, match="width 1"):
        policy.act(torch.zeros(3, 2))


def test_hostile_policy_files_are_one_clear_line(tmp_path) -> None:
    import json

    from safetensors.torch import load_file, save_file

    learner = make("PLAS", line_dataset())
    learner.policy.save(tmp_path / "p.safetensors")
    tensors, about = load_file(tmp_path / "p.safetensors"), {"format": "offline-robust-d3rlpy-policy-1"}
    about |= json.loads(learner.policy.identity)
    huge = json.loads(json.dumps(about))
    huge["config"]["critic_encoder_factory"]["params"]["hidden_units"] = [8192] * 16
    alien = json.loads(json.dumps(about))
    alien["config"]["critic_encoder_factory"]["type"] = "os.system"
    broken = {key: value.clone() for key, value in tensors.items()}
    next(iter(broken.values())).fill_(float("nan"))
    cases = {
        "weights": (huge, tensors),
        "unknown type": (alien, tensors),
        "two whole numbers": (about | {"sizes": [1, 10**12]}, tensors),
        "no algorithm": (about | {"name": "__class__"}, tensors),
        "expected": (about | {"sizes": [2, 1]}, tensors),
        "NaN": (about, broken),
        "do not fit": (about, dict(list(tensors.items())[1:])),
        "import code": (about | {"environment": {"id": "os:Env-v0"}}, tensors),
        "module:Env ids": ({k: about[k] for k in about if k != "environment"} | {"env_id": "os:Env-v0"}, tensors),
    }
    for said, (description, values) in cases.items():
        save_file(values, tmp_path / "bad.safetensors", {"policy": json.dumps(description)})
        with pytest.raises(CheckpointError, match=said) as refused:
            load_policy(tmp_path / "bad.safetensors")
        assert "\n" not in str(refused.value)


def test_d3_files_are_refused(tmp_path) -> None:
    """They are pickles: reading one would run whatever its maker put in."""
    make("TD3PlusBC", line_dataset()).algorithm.save(str(tmp_path / "model.d3"))
    with pytest.raises(CheckpointError, match="pickled policies are never loaded"):
        load_policy(tmp_path / "model.d3")


def test_hostile_checkpoints_are_refused() -> None:
    learner = make("TD3PlusBC", line_dataset())
    steps(learner, 2)
    wrong = {
        "slot": lambda s: s["optimisers"]["critic_optim"]["slots"][0].update(exp_avg=torch.zeros(3)),
        "slots": lambda s: s["optimisers"]["critic_optim"]["slots"].update({99: {}}),
        "rates": lambda s: s["optimisers"]["critic_optim"].update(rates=["x"]),
        "negative": lambda s: s["optimisers"]["critic_optim"]["slots"][0]["exp_avg_sq"].fill_(-1.0),
        "schedule": lambda s: s["optimisers"]["critic_optim"].update(schedule={"__class__": 1}),
        "updates": lambda s: s.update(updates=-1),
        "losses": lambda s: s.update(losses={"a": "b"}),
        "state": lambda s: s["stream"].update(cpu=torch.zeros(5, dtype=torch.uint8)),
    }
    for said, change in wrong.items():
        state = learner.state()
        state["optimisers"]["critic_optim"]["slots"] = {
            index: {key: value.clone() for key, value in slots.items()}
            for index, slots in state["optimisers"]["critic_optim"]["slots"].items()
        }
        change(state)
        with pytest.raises((ValueError, RuntimeError, KeyError, TypeError), match=f"(?i){said}|RNG"):
            learner.load_state(state)


BAD = {
    "an unknown algorithm": ({"name": "d3rlpy:TD3PlusB"}, "did you mean 'd3rlpy:TD3PlusBC'"),
    "an algorithm in small letters": ({"name": "d3rlpy:iql"}, "did you mean 'd3rlpy:IQL'"),
    "one that is no learner": ({"name": "d3rlpy:DecisionTransformer"}, "unknown learner 'd3rlpy:DecisionTransformer'"),
    "an unknown field": ({"config": {"alhpa": 1.0}}, "unknown key 'learner.config.alhpa'.*did you mean 'alpha'"),
    "an unknown type": ({"config": {"actor_encoder_factory": "vectr"}}, "unknown type 'vectr'; did you mean 'vector'"),
    "an unknown field of a type": (
        {"config": {"actor_encoder_factory": {"type": "vector", "hiden_units": [3]}}},
        "actor_encoder_factory.hiden_units'.*did you mean 'hidden_units'",
    ),
    "a text for a number": ({"config": {"gamma": "high"}}, r"learner\.config\.gamma: .*number"),
    "infinity": ({"config": {"alpha": float("inf")}}, "finite"),
    "a batch size": ({"config": {"batch_size": 10}}, r"training\.batch_size"),
    "a network too wide": (
        {"config": {"actor_encoder_factory": {"type": "vector", "hidden_units": [9999]}}},
        "1..8,192",
    ),
    "an image encoder": ({"config": {"actor_encoder_factory": "pixel"}}, "unknown type 'pixel'"),
    "no mapping": ({"config": [1]}, "expected a mapping"),
    "a value d3rlpy refuses": ({"config": {"actor_learning_rate": -1.0}}, "d3rlpy refuses this configuration"),
    "an unknown activation": (
        {"config": {"actor_encoder_factory": {"type": "vector", "activation": "rellu"}}},
        "d3rlpy refuses this configuration",
    ),
    "a discrete algorithm on continuous data": ({"name": "d3rlpy:DQN"}, "d3rlpy:DQN needs discrete actions"),
    "a learner's field that is none": ({"confg": {}}, "unknown key 'learner.confg'; did you mean 'config'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(name: str, tmp_path) -> None:
    learner, said = BAD[name]
    values = run_values(saved(line_dataset(), tmp_path), "TD3PlusBC")
    values["learner"] = {"name": "d3rlpy:TD3PlusBC"} | learner
    with pytest.raises(ConfigError, match=said) as refused:
        train(values, out=tmp_path / "run")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_continuous_algorithm_refuses_discrete_data(tmp_path) -> None:
    path = saved(fitting("DQN", line_dataset()), tmp_path)
    with pytest.raises(ConfigError, match="d3rlpy:IQL needs continuous actions, the dataset's are Discrete"):
        train(run_values(path, "IQL"), out=tmp_path / "run")
    run = train(run_values(path, "DQN"), out=tmp_path / "run")
    assert run.policy.act(np.zeros((2, 1), np.float32)).dtype == np.int64
    data = fitting("DQN", line_dataset())
    later = replace(data, actions=data.actions + 2, action_space=gym.spaces.Discrete(3, start=2))
    with pytest.raises(ConfigError, match="d3rlpy:DQN needs actions that count from 0"):
        make("DQN", later)


def test_an_action_space_without_bounds_is_told() -> None:
    free = replace(line_dataset(), action_space=gym.spaces.Box(-np.inf, np.inf, (1,), np.float32))
    with pytest.raises(ConfigError, match=r"no bounds to scale by; set it to min_max"):
        make("TD3PlusBC", free)
    assert make("TD3PlusBC", free, action_scaler="min_max").algorithm.action_scaler is not None


def test_a_missing_extra_is_one_clear_line_and_a_finished_run_needs_none(tmp_path, monkeypatch) -> None:
    values = run_values(saved(line_dataset(), tmp_path), "TD3PlusBC")
    run = train(values, out=tmp_path / "run")
    monkeypatch.setitem(sys.modules, "d3rlpy", None)
    with pytest.raises(
        MissingExtra, match=r"learner d3rlpy:TD3PlusBC needs d3rlpy: pip install 'offline-robust\[d3rlpy\]'"
    ):
        train(values, out=tmp_path / "other")
    again = load_run(run.folder)
    assert again.config == run.config
    assert again.policy.act(np.zeros((3, 1), np.float32)).shape == (3, 1)


def test_a_run_is_evaluated_by_our_engine(tmp_path) -> None:
    """A policy of ours, and one that acts through d3rlpy, finish Pendulum's episodes with finished cells kept."""
    from offline_robust.collection import collect
    from offline_robust.datasets.writers import write_npz

    path = tmp_path / "data.npz"
    write_npz(collect(None, "Pendulum-v1", transitions=200), path)
    for name in ("TD3PlusBC", "CRR"):
        run = train(
            run_values(str(path), name, **({"n_action_samples": 2} if name == "CRR" else {})), out=tmp_path / name
        )
        results = evaluate(run.policy, "Pendulum-v1", perturb="length=0.8:1.2:2", episodes=2, cells=tmp_path / "cells")
        again = evaluate(run.policy, "Pendulum-v1", perturb="length=0.8:1.2:2", episodes=2, cells=tmp_path / "cells")
        assert (results.frame["return"] == again.frame["return"]).all()
        assert run.config.learner.version == d3rlpy.__version__
        assert not (run.folder / "model.json").exists()


def with_a_constant_action(low: float, high: float) -> TransitionDataset:
    """Two actions, the second always 0.5, in a space of these bounds; NaN stands for what the data span."""
    line = line_dataset()
    actions = torch.cat([line.actions, torch.full_like(line.actions, 0.5)], dim=1)
    ends = (actions.amin(0), actions.amax(0))
    bounds = [np.full(2, low, np.float32), np.full(2, high, np.float32)] if low == low else [e.numpy() for e in ends]
    return replace(line, actions=actions, action_space=gym.spaces.Box(*bounds, dtype=np.float32))


@pytest.mark.parametrize("scaler", ["space", "min_max"])
@pytest.mark.parametrize("bounds", [(math.nan, math.nan), (-math.inf, math.inf), (-2.0, 2.0)])
def test_what_is_advised_for_an_action_that_never_changes_works(scaler: str, bounds: tuple[float, float]) -> None:
    data = with_a_constant_action(*bounds)
    if (scaler, bounds) != ("space", (-2.0, 2.0)):
        with pytest.raises(ConfigError) as refused:
            make("TD3PlusBC", data, action_scaler=scaler)
        advice = re.search(r"; use (\w+)|(\{type.*?\})", str(refused.value))
        assert advice is not None, str(refused.value)
        scaler = advice[1] or parse_override(f"a={advice[2]}")[1]
    learner = make("TD3PlusBC", data, action_scaler=scaler)
    steps(learner, 2)
    acted = np.asarray(learner.policy.act(data.observations[:5]))
    assert np.isfinite(acted).all()
    assert (np.abs(acted[:, 1]) <= 2.0).all()
