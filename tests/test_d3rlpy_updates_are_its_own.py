"""An update through the bridge is d3rlpy's own update: same networks, same minibatch, same draws, same bits after."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from d3rlpy_toys import feed_of, fitting, make, small
from toys import line_dataset, problem_of

from offline_robust.baselines import D3RLPyConfig, to_replay_buffer
from offline_robust.baselines.modules import networks_of
from offline_robust.baselines.names import CONTINUOUS, DISCRETE, require_d3rlpy

d3rlpy = require_d3rlpy("these tests")
SCALERS = {"observation_scaler": "standard", "reward_scaler": "min_max", "action_scaler": "min_max"}


def data_for(name: str):
    """True ends and cuts, so that both kinds of last rows are in the batches."""
    ended, cut = line_dataset(8, 6, truncate=False), line_dataset(8, 6, seed=1)
    tensors = {
        key: torch.cat([getattr(ended, key), getattr(cut, key)])
        for key in ("observations", "actions", "rewards", "next_observations", "terminated", "truncated", "next_valid")
    }
    tensors["episode"] = torch.cat([ended.episode, cut.episode + 8])
    return fitting(
        name, type(ended)(**tensors, observation_space=ended.observation_space, action_space=cut.action_space)
    )


def assert_same_networks(one, other, tolerance=None) -> None:
    left, right = networks_of(one.algorithm.impl), networks_of(other.algorithm.impl)
    assert left.keys() == right.keys()
    for name in left:
        for (key, a), b in zip(left[name].state_dict().items(), right[name].state_dict().values(), strict=True):
            if tolerance is None:
                assert torch.equal(a, b), f"{name}.{key}"
            else:
                torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=f"{name}.{key}")


def compare(name: str, updates: int, tolerance=None, **fields) -> None:
    """Trains one learner through the bridge, and its twin by d3rlpy's `update` on minibatches that d3rlpy makes."""
    data = data_for(name)
    ours, theirs = make(name, data, **fields), make(name, data, **fields)
    buffer = to_replay_buffer(data, next_actions=name == "ReBRAC")
    feed = feed_of(ours)
    usable = torch.arange(len(data)) if feed.usable is None else feed.usable
    assert len(usable) == buffer.transition_count
    assert_same_networks(ours, theirs)
    generator = torch.Generator().manual_seed(0)
    for _ in range(updates):
        index = torch.randint(len(usable), (16,), generator=generator)
        picked = [buffer.transition_picker(*buffer.buffer[i]) for i in index.tolist()]
        batch = d3rlpy.dataset.TransitionMiniBatch.from_transitions(picked)
        with theirs._stream.active():
            expected = theirs.algorithm.update(batch)
        found = ours.update(feed.rows(usable[index]))
        for key, value in expected.items():
            assert float(found[f"train/{key}"]) == pytest.approx(
                value, rel=tolerance or 0, abs=tolerance or 0, nan_ok=True
            )
    assert_same_networks(ours, theirs, tolerance)


@pytest.mark.parametrize("name", [n for n in CONTINUOUS + DISCRETE if n != "CalQL"])
def test_bit_for_bit(name: str) -> None:
    compare(name, 5)


@pytest.mark.parametrize("name", ["TD3PlusBC", "IQL", "ReBRAC", "PRDC"])
def test_bit_for_bit_with_scalers(name: str) -> None:
    compare(name, 5, **SCALERS)


def test_cal_ql_within_rounding() -> None:
    """Its returns to go are summed in float64 here and in float32 there."""
    compare("CalQL", 3, tolerance=2e-5)
    compare("CalQL", 3, tolerance=2e-5, reward_scaler="return")


def test_the_start_is_what_d3rlpy_makes_of_the_seed() -> None:
    """A learner's networks are those of d3rlpy's plain `create`, given the same values and the same global seed."""
    data, vector = line_dataset(), d3rlpy.models.VectorEncoderFactory([16, 16])
    config = d3rlpy.algos.TD3PlusBCConfig(
        actor_encoder_factory=vector, critic_encoder_factory=vector, actor_learning_rate=1e-3, alpha=1.5
    )
    learner = make("TD3PlusBC", data, seed=3, actor_learning_rate=1e-3, alpha=1.5)
    stream = problem_of(data, 3).streams["init"]
    before = torch.get_rng_state()
    torch.manual_seed(int(torch.randint(2**62, (1,), generator=stream)))
    plain = config.create(device="cpu")
    plain.create_impl((1,), 1)
    torch.set_rng_state(before)
    assert plain.config == learner.algorithm.config
    for (key, a), b in zip(
        plain.impl.modules.policy.state_dict().items(),
        learner.algorithm.impl.modules.policy.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(a, b), key


@pytest.mark.parametrize("name", CONTINUOUS + DISCRETE)
def test_defaults_are_d3rlpys_own(name: str) -> None:
    """What the YAML leaves out is what d3rlpy would take, except that actions are scaled to the action space."""
    from offline_robust.baselines.fields import build, resolve

    kind = getattr(d3rlpy.algos, f"{name}Config")
    resolved, version = resolve(name, {} if name in DISCRETE else {"action_scaler": "none"})
    assert version == d3rlpy.__version__
    assert build(kind, resolved) == kind()
    assert resolve(name, resolved)[0] == resolved


@pytest.mark.parametrize(
    "scalers",
    [
        {"observation_scaler": "standard", "action_scaler": "min_max", "reward_scaler": "standard"},
        {"observation_scaler": "min_max", "reward_scaler": "min_max"},
        {"reward_scaler": "return"},
    ],
)
def test_scalers_are_fitted_as_d3rlpy_fits_them(scalers) -> None:
    from d3rlpy.algos.utility import build_scalers_with_transition_picker

    from offline_robust.baselines.fields import build, plain, resolve

    data = data_for("TD3PlusBC")
    ours = make("TD3PlusBC", data, **scalers).algorithm
    resolved, _ = resolve("TD3PlusBC", {"action_scaler": "none", **small("TD3PlusBC", **scalers)})
    theirs = build(d3rlpy.algos.TD3PlusBCConfig, resolved).create()
    build_scalers_with_transition_picker(theirs, to_replay_buffer(data))
    for name in scalers:
        left, right = plain(getattr(ours, name)), plain(getattr(theirs, name))
        assert left["type"] == right["type"]
        for key, value in right["params"].items():
            np.testing.assert_allclose(left["params"][key], value, rtol=1e-6, err_msg=f"{name}.{key}")


def test_rewards_are_shaped_before_d3rlpy_sees_them() -> None:
    data = line_dataset()
    learner = make("TD3PlusBC", data)
    shaped = D3RLPyConfig(name="d3rlpy:TD3PlusBC", config=small("TD3PlusBC"), reward_shift=8.0, reward_scale=0.125)
    learner.config = shaped
    batch = data.rows(torch.arange(10))
    assert torch.equal(learner.torch_batch(batch).rewards, (batch.rewards[:, None] + 8.0) * 0.125)
