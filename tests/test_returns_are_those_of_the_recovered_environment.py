"""Data made by Minari's own collector are evaluated in their own environment: keyword arguments, limit and wrappers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium import wrappers
from numpy.typing import NDArray

from offline_robust.collection import collect
from offline_robust.datasets import load_dataset, write_minari
from offline_robust.environment import EnvironmentSpec, WrapperSpec, make_spec
from offline_robust.envs import make_batch, system
from offline_robust.envs.batched import GymnasiumBatch
from offline_robust.envs.layers import LayeredBatch
from offline_robust.evaluation import evaluate


def _pendulum() -> gym.Env[Any, Any]:
    return wrappers.RescaleAction(gym.make("Pendulum-v1", g=2.0, max_episode_steps=50), -1, 1)


def _stacked_pendulum() -> gym.Env[Any, Any]:
    return wrappers.FlattenObservation(wrappers.FrameStackObservation(_pendulum(), 3, padding_type="zero"))


def _cartpole() -> gym.Env[Any, Any]:
    env = gym.make("CartPole-v1", sutton_barto_reward=True, max_episode_steps=30)
    return wrappers.FlattenObservation(wrappers.FrameStackObservation(env, 2))


def _hopper() -> gym.Env[Any, Any]:
    env = gym.make("Hopper-v5", forward_reward_weight=2.0, healthy_reward=0.5, max_episode_steps=60)
    env = wrappers.ClipAction(wrappers.RescaleAction(env, -2, 2))
    return wrappers.ClipReward(wrappers.FrameStackObservation(env, 2), -1.0, 3.0)


def _ant() -> gym.Env[Any, Any]:
    return gym.make("Ant-v5", include_cfrc_ext_in_observation=False, max_episode_steps=20)


def _car() -> gym.Env[Any, Any]:
    env = gym.make("MountainCarContinuous-v0", goal_velocity=0.01, max_episode_steps=40)
    return wrappers.TimeAwareObservation(wrappers.RescaleAction(env, -0.5, 0.5))


def _twice_limited() -> gym.Env[Any, Any]:
    return wrappers.TimeLimit(gym.make("Pendulum-v1", g=3.0), 25)


MADE = {
    "pendulum": (_pendulum, LayeredBatch),
    "stacked-pendulum": (_stacked_pendulum, LayeredBatch),
    "cartpole": (_cartpole, LayeredBatch),
    "hopper": (_hopper, LayeredBatch),
    "ant": (_ant, None),
    "car": (_car, GymnasiumBatch),
    "twice-limited": (_twice_limited, None),
}


def _act(observations: NDArray[Any], space: gym.Space[Any]) -> NDArray[Any]:
    """A fixed policy that reads every observation alike, however many there are."""
    seen = np.asarray(observations, np.float64).reshape(len(observations), -1)
    mixed = np.zeros(len(seen))
    for k in range(seen.shape[1]):  # in this order, so that no sum depends on how many rows there are
        mixed = mixed + np.sin((k + 1.0) * seen[:, k])
    if isinstance(space, gym.spaces.Discrete):
        return (mixed > 0).astype(np.int64)
    assert isinstance(space, gym.spaces.Box)
    share = np.stack([np.sin(mixed + j) for j in range(space.shape[0])], 1)
    low, high = np.maximum(space.low, -3.0), np.minimum(space.high, 3.0)
    return (low + (share + 1.0) / 2.0 * (high - low)).astype(np.float32)


def _logged(env: gym.Env[Any, Any], name: str, episodes: int = 2) -> Path:
    """A dataset by Minari's collector, with random actions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collector = minari.DataCollector(env)
        env.action_space.seed(0)
        for seed in range(episodes):
            collector.reset(seed=seed)
            done = False
            while not done:
                _, _, terminated, truncated, _ = collector.step(env.action_space.sample())
                done = terminated or truncated
        made = collector.create_dataset(f"{name}-v0", algorithm_name="random")
    collector.close()
    return Path(made.storage.data_path)


def _returns(env: gym.Env[Any, Any], seeds: list[int]) -> tuple[list[float], list[int]]:
    """Gymnasium's own loop."""
    returns, lengths = [], []
    for seed in seeds:
        seen, total, steps, done = env.reset(seed=seed)[0], 0.0, 0, False
        while not done:
            seen, reward, terminated, truncated, _ = env.step(_act(np.asarray(seen)[None], env.action_space)[0])
            total, steps, done = total + float(reward), steps + 1, terminated or truncated
        returns.append(total)
        lengths.append(steps)
    return returns, lengths


@pytest.fixture(autouse=True)
def own_minari_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


@pytest.mark.parametrize("name", MADE)
def test_episode_by_episode(name: str) -> None:
    make, engine = MADE[name]
    folder = _logged(make(), name)
    data = load_dataset(folder)
    assert data.environment is not None
    of = system(data.environment)
    batch = make_batch(of, [()])
    assert engine is None or type(batch) is engine
    batch.close()

    space = of.action_space
    results = evaluate(lambda seen: _act(seen, space), data.environment, episodes=4, seed=3)

    recovered = minari.MinariDataset(folder).recover_environment()
    returns, lengths = _returns(recovered, results.frame["episode_seed"].tolist())
    assert results.frame["length"].tolist() == lengths
    assert results.frame["return"].tolist() == returns
    recovered.close()


def test_engines_in_layers_equal_the_generic_loop_step_by_step() -> None:
    for name in ("stacked-pendulum", "cartpole", "hopper"):
        spec = load_dataset(_logged(MADE[name][0](), name)).environment
        assert spec is not None
        of = system(spec)
        fast, slow = make_batch(of, [()] * 3), GymnasiumBatch(of, [()] * 3)
        one, other = fast.reset([1, 2, 3]), slow.reset([1, 2, 3])
        while slow.live.any():
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
            actions = _act(one, of.action_space)
            (one, *ours), (other, *theirs) = fast.step(actions), slow.step(actions)
            for mine, its in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(mine, its)
            np.testing.assert_array_equal(fast.live, slow.live)
        fast.close()
        slow.close()


def test_perturbations_reach_the_system_inside_its_wrappers() -> None:
    spec = make_spec("Pendulum-v1", {"g": 2.0}, step_limit=30, wrappers=[{"name": "RescaleAction", "kwargs": BOUNDS}])
    space = system(spec).action_space
    results = evaluate(lambda seen: _act(seen, space), spec, perturb="gravity=absolute@2,5", episodes=3)
    two, five = (results.frame[results.frame["condition"] == label]["return"].tolist()
                 for label in dict.fromkeys(results.frame["condition"]))  # fmt: skip
    heavier = wrappers.RescaleAction(gym.make("Pendulum-v1", g=5.0, max_episode_steps=30), -1, 1)
    assert five == _returns(heavier, results.frame["episode_seed"].tolist()[:3])[0]
    assert two != five
    assert bool(results.frame["nominal"].iloc[0])


BOUNDS = {"min_action": -1.0, "max_action": 1.0}


def test_our_own_collections_and_files_keep_it_whole(tmp_path: Path) -> None:
    spec = make_spec(
        "Pendulum-v1", {"g": 2.0}, step_limit=20, wrappers=[WrapperSpec("RescaleAction", BOUNDS)], source="test"
    )
    data = collect(None, spec, transitions=50)
    assert data.environment == spec
    assert data.action_space == gym.spaces.Box(-1.0, 1.0, (1,))
    assert data.episodes == 3
    folder = write_minari(data, tmp_path / "own")
    again = load_dataset(folder)
    assert again.environment is not None
    assert str(again.environment) == str(spec)
    recovered = minari.MinariDataset(folder).recover_environment()
    space = recovered.action_space
    results = evaluate(lambda seen: _act(seen, space), again.environment, episodes=2)
    assert results.frame["return"].tolist() == _returns(recovered, results.frame["episode_seed"].tolist())[0]


def test_results_of_different_environments_are_never_pooled() -> None:
    specs = [EnvironmentSpec("Pendulum-v1", step_limit=5), EnvironmentSpec("Pendulum-v1", {"g": 2.0}, step_limit=5)]
    labels = {str(spec) for spec in specs}
    space = system("Pendulum-v1").action_space
    frames = [evaluate(lambda seen: _act(seen, space), spec, episodes=1).frame for spec in specs]
    assert {frame["env_id"].iloc[0] for frame in frames} == labels
    assert len(labels) == 2
