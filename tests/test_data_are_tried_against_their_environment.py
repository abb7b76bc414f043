"""`data check` takes some logged steps again in the environment that the data name, and says how far they agree."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest

from offline_robust.collection import collect
from offline_robust.datasets import check, load_dataset, write_minari, write_npz
from offline_robust.datasets.load import examine
from offline_robust.environment import EnvironmentSpec, make_spec


def _minari(env: gym.Env[Any, Any], name: str) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collector = minari.DataCollector(env)
        collector.action_space.seed(0)
        for seed in range(3):
            collector.reset(seed=seed)
            done = False
            while not done:
                *_, terminated, truncated, _ = collector.step(collector.action_space.sample())
                done = terminated or truncated
        made = collector.create_dataset(f"{name}-v0", algorithm_name="random")
    return Path(made.storage.data_path)


@pytest.mark.parametrize(
    "name",
    ["Pendulum-v1", "CartPole-v1", "ContinuousCartPole-v0", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0",
     "Hopper-v5", "Walker2d-v5", "HalfCheetah-v5", "Ant-v5", "Swimmer-v5", "InvertedPendulum-v5"],
)  # fmt: skip
def test_good_data_agree_from_single_observations(name: str, tmp_path: Path) -> None:
    problems, agreement = examine(write_npz(collect(None, name, transitions=80), tmp_path / "x.npz"))
    assert [problem for problem in problems if "constant" not in problem.what and "every row" not in problem.what] == []
    assert agreement is not None
    assert agreement.rows >= 60
    assert "from the states" in str(agreement)
    # What float32 leaves of a state, through one step of the simulator; contacts multiply it.
    assert max(agreement.observations, agreement.rewards) < 5e-3


@pytest.mark.parametrize("name", ["LunarLander-v3", "Reacher-v5", "FrozenLake-v1"])
def test_good_data_agree_from_their_seeds(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    problems, agreement = examine(_minari(gym.make(name, max_episode_steps=12), name.lower()))
    assert [problem for problem in problems if problem.severity == "error"] == []
    assert agreement is not None
    assert "from the seeds of 3 episodes" in str(agreement)
    assert max(agreement.observations, agreement.rewards) < 1e-6  # what float32 keeps of the very same steps


def test_a_filtered_minari_dataset_keeps_each_episode_with_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    path = _minari(gym.make("Reacher-v5", max_episode_steps=12), "reacher")
    problems, agreement = examine(minari.MinariDataset(path).filter_episodes(lambda episode: episode.id > 0))
    assert [problem for problem in problems if "seed" in problem.what or "steps are taken" in problem.what] == []
    assert agreement is not None
    assert "from the seeds of 2 episodes" in str(agreement)
    assert max(agreement.observations, agreement.rewards) < 1e-6


BOUNDS = {"min_action": -1, "max_action": 1}


@pytest.mark.parametrize(
    ("made_in", "said", "words"),
    [
        (make_spec("Pendulum-v1", {"g": 2.0}), EnvironmentSpec("Pendulum-v1"), "dimension 2 of the next observation"),
        (
            make_spec("Hopper-v5", {"forward_reward_weight": 5.0}),
            EnvironmentSpec("Hopper-v5"),
            "rewards differ",
        ),
        (
            make_spec("Pendulum-v1", wrappers=[{"name": "RescaleAction", "kwargs": BOUNDS}]),
            EnvironmentSpec("Pendulum-v1"),
            "dimension 2 of the next observation",
        ),
        (EnvironmentSpec("Walker2d-v5"), EnvironmentSpec("HalfCheetah-v5"), "dimension"),
    ],
)  # fmt: skip
def test_data_of_another_environment_are_found_out(
    made_in: EnvironmentSpec, said: EnvironmentSpec, words: str, tmp_path: Path
) -> None:
    data = collect(None, made_in, transitions=200)
    found = check(write_npz(replace(data, environment=said), tmp_path / "x.npz"))
    assert any(words in problem.what and problem.severity == "warning" for problem in found), found


def test_another_simulator_behind_the_same_seeds_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    folder = _minari(gym.make("LunarLander-v3", gravity=-4.0, max_episode_steps=20), "moon")
    assert [problem for problem in check(folder) if "in every row" not in problem.what] == []
    other = load_dataset(folder)
    written = write_minari(replace(other, environment=EnvironmentSpec("LunarLander-v3")), tmp_path / "own")
    import h5py

    with h5py.File(written / "main_data.hdf5", "a") as file:
        for number in range(3):
            file[f"episode_{number}"].attrs["seed"] = number
    (found,) = (problem for problem in check(written) if "next observation" in problem.what)
    assert "from the seeds of 3 episodes" in found.what


def test_what_cannot_be_compared_is_said_and_is_no_finding(tmp_path: Path) -> None:
    data = collect(None, "Pendulum-v1", transitions=30)
    for environment, words in (
        (None, "the data name none"),
        (EnvironmentSpec("Elsewhere-v0", imports=("elsewhere",)), "give --import elsewhere"),
    ):
        problems, agreement = examine(write_npz(replace(data, environment=environment), tmp_path / f"{words[:4]}.npz"))
        assert problems == []
        assert agreement is not None
        assert words in str(agreement)


def test_a_wrapper_that_cannot_be_made_again_is_a_warning_with_its_way_out(tmp_path: Path) -> None:
    spec = make_spec("Pendulum-v1", wrappers=[{"name": "Shaped", "module": "their_code.wrappers"}])
    data = replace(collect(None, "Pendulum-v1", transitions=30), environment=spec)
    (found,) = check(write_npz(data, tmp_path / "x.npz"))
    assert "Shaped cannot be made again: it is not Gymnasium's own but of 'their_code.wrappers'" in found.what
    assert "--ignore-wrapper Shaped" in found.what
    assert "--import their_code.wrappers" in found.what


def test_an_environment_that_fails_on_its_data_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gymnasium.envs.classic_control import PendulumEnv

    def broken(self: Any, action: np.ndarray[Any, Any]) -> None:
        raise RuntimeError("no such motor")

    path = write_npz(collect(None, "Pendulum-v1", transitions=30), tmp_path / "x.npz")
    monkeypatch.setattr(PendulumEnv, "step", broken)
    (found,) = check(path)
    assert "no such motor" in found.what
