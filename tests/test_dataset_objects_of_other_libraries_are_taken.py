"""Data frames, Minari datasets and d3rlpy's buffers load, check and convert as they are; other objects are refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
import pandas as pd
import pytest
import torch
from dataset_files import columns, d4rl_file, episode, minari_folder
from toys import line_dataset

from offline_robust.baselines import read_d3rlpy, to_replay_buffer, write_d3rlpy
from offline_robust.baselines.names import require_d3rlpy
from offline_robust.datasets import TransitionDataset, check, convert, load_dataset
from offline_robust.datasets.cache import MIN_EPISODES
from offline_robust.datasets.transitions import TENSORS
from offline_robust.errors import DatasetError

d3rlpy = require_d3rlpy("these tests")


def errors(source: Any, **options: Any) -> list[str]:
    return [str(problem) for problem in check(source, **options) if problem.severity == "error"]


# --- Minari ---------------------------------------------------------------------------------------------------------


def minari_dataset(folder: Path, count: int = 5) -> tuple[minari.MinariDataset, Path]:
    path = minari_folder(folder / "x", [episode(2 + k, seed=k) for k in range(count)]) / "data"
    return minari.MinariDataset(path), path


def test_a_minari_dataset_is_the_folder_that_it_reads(tmp_path: Path) -> None:
    opened, path = minari_dataset(tmp_path)
    assert load_dataset(opened).fingerprint == load_dataset(path).fingerprint
    assert check(opened) == check(path) == []
    assert load_dataset(convert(opened, tmp_path / "x.npz")).fingerprint == load_dataset(path).fingerprint


def test_a_filtered_minari_dataset_is_no_more_than_its_episodes(tmp_path: Path) -> None:
    opened, path = minari_dataset(tmp_path)
    filtered = opened.filter_episodes(lambda one: len(one.rewards) in (3, 6))
    whole, found = load_dataset(path), load_dataset(filtered)
    rows = ((whole.episode == 1) | (whole.episode == 4)).nonzero().squeeze(1)
    assert (len(found), found.episodes) == (9, 2)
    for name in TENSORS[:-1]:
        assert torch.equal(getattr(found, name), getattr(whole, name)[rows]), name
    assert found.episode.tolist() == [0] * 3 + [1] * 6
    assert "2 of 5" in found.provenance["episodes"]
    assert load_dataset(convert(filtered, tmp_path / "y")).fingerprint == found.fingerprint
    with pytest.raises(DatasetError, match="none of the dataset's episodes"):
        load_dataset(opened.filter_episodes(lambda one: len(one.rewards) > 99))


def test_conversion_of_filtered_minari_data_keeps_float64(tmp_path: Path) -> None:
    episodes = [episode(4, seed=k, rewards=np.random.default_rng(k).normal(size=4)) for k in range(3)]
    opened = minari.MinariDataset(minari_folder(tmp_path / "x", episodes) / "data")
    with np.load(convert(opened.filter_episodes(lambda one: one.id != 1), tmp_path / "x.npz")) as written:
        np.testing.assert_array_equal(written["rewards"], np.r_[episodes[0]["rewards"], episodes[2]["rewards"]])


def test_a_minari_dataset_of_many_episodes_is_cached_as_its_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFLINE_ROBUST_CACHE", str(tmp_path / "cache"))
    opened, _ = minari_dataset(tmp_path, MIN_EPISODES)
    load_dataset(opened)
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1


# --- d3rlpy ---------------------------------------------------------------------------------------------------------


def own_buffer(**changes: Any) -> tuple[Any, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    flat = {
        "observations": rng.normal(size=(9, 2)),
        "actions": rng.uniform(-1, 1, (9, 1)),
        "rewards": rng.normal(size=9),
        "terminals": (np.arange(9) == 3).astype(float),
        "timeouts": (np.arange(9) == 8).astype(float),
    } | changes
    return d3rlpy.dataset.MDPDataset(**flat), flat


def dumped(buffer: Any, path: Path) -> Path:
    with path.open("w+b") as file:
        buffer.dump(file)
    return path


@pytest.mark.parametrize("name", ["own.h5", "own.hdf5"])
def test_d3rlpy_s_buffer_and_its_file_are_the_arrays_they_were_made_of(name: str, tmp_path: Path) -> None:
    buffer, flat = own_buffer()
    wanted = load_dataset(flat, env=None)
    path = dumped(buffer, tmp_path / name)
    for source in (buffer, path, str(path)):
        data = load_dataset(source)
        assert data.fingerprint == wanted.fingerprint
        assert data.provenance["format"] == "d3rlpy"
        assert errors(source) == []
        with np.load(convert(source, tmp_path / "x.npz", overwrite=True)) as written:
            np.testing.assert_array_equal(written["rewards"], flat["rewards"])


def test_our_buffers_and_files_lose_nothing_on_the_way(tmp_path: Path) -> None:
    data = line_dataset(episodes=3, length=5)
    assert load_dataset(write_d3rlpy(data, tmp_path / "x.h5")).fingerprint == data.fingerprint
    assert load_dataset(to_replay_buffer(data)).fingerprint == data.fingerprint


def test_a_file_without_d3rlpy_s_keys_is_d4rl_whatever_its_ending(tmp_path: Path) -> None:
    for name in ("x.h5", "x.hdf5"):
        assert load_dataset(d4rl_file(tmp_path / name, columns(8))).provenance["format"] == "d4rl"


def test_d3rlpy_1_s_ends_of_episodes_are_seen(tmp_path: Path) -> None:
    content = columns(12, ends={3: "terminal"}, next_observations=None, timeouts=None)
    content["episode_terminals"] = np.isin(np.arange(12), [3, 7, 11]).astype(np.float32)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for key, values in content.items():
            file[key] = values
        file["discrete_action"], file["version"] = False, "1.0"
    data = load_dataset(tmp_path / "x.h5")
    assert data.terminated.nonzero().flatten().tolist() == [3]
    assert data.truncated.nonzero().flatten().tolist() == [7, 11]
    assert not [p for p in check(tmp_path / "x.h5", env="Pendulum-v1") if "end" in p.what]


def test_the_environment_gives_a_buffer_its_spaces_and_the_buffer_is_the_least(tmp_path: Path) -> None:
    actions = np.array([0, 1, 1, 0, 1, 0, 0, 1, 1])
    stated = {"action_space": d3rlpy.ActionSpace.DISCRETE, "action_size": 5}
    buffer, _ = own_buffer(observations=np.eye(9, 4), actions=actions, **stated)
    assert load_dataset(buffer).action_space == gym.spaces.Discrete(5)
    counted, _ = own_buffer(observations=np.eye(9, 6), actions=actions, action_space=stated["action_space"])
    assert load_dataset(counted, env="Acrobot-v1").action_space == gym.spaces.Discrete(3)
    path = dumped(counted, tmp_path / "x.h5")
    assert load_dataset(path, env="Acrobot-v1").action_space == gym.spaces.Discrete(3)
    assert read_d3rlpy(path, env="Acrobot-v1").actions.tolist() == actions.tolist()


def test_a_buffer_that_is_written_on_leaves_the_dataset_alone() -> None:
    buffer, _ = own_buffer(observations=np.zeros((9, 2), np.float32), rewards=np.zeros(9, np.float32))
    data = load_dataset(buffer)
    before = {name: getattr(data, name).clone() for name in TENSORS}
    for one in buffer.episodes:
        one.observations[:], one.actions[:], one.rewards[:] = 7.0, 7.0, 7.0
    for name, values in before.items():
        assert torch.equal(getattr(data, name), values), name


def test_a_buffer_of_float64_says_what_is_lost() -> None:
    buffer, _ = own_buffer(observations=1.7e9 + np.arange(18.0).reshape(9, 2))
    with pytest.warns(UserWarning, match=r"d3rlpy replay buffer: float32 is too coarse for observations, dimension 0"):
        load_dataset(buffer)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"observations": (np.zeros((2, 2)), np.zeros((2, 1)))}, "episode 0: has a tuple of observations"),
        ({"observations": np.zeros((2, 3, 3), np.uint8)}, "episode 0: observations: each observation has shape"),
        ({"observations": np.zeros((4, 2))}, "episode 0: has 4 observations for 2 actions"),
        ({"observations": np.full((2, 2), np.nan)}, "NaN"),
        ({"actions": np.array([["a"], ["b"]])}, "not numbers"),
        ({"rewards": np.zeros((3, 1))}, "episode 0: has 3 rewards for 2 actions"),
    ],
)
def test_a_buffer_that_does_not_fit_is_one_line(change: dict[str, Any], said: str) -> None:
    one = {"observations": np.zeros((2, 2)), "actions": np.zeros((2, 1)), "rewards": np.zeros((2, 1)), "terminated": 0}
    buffer = SimpleNamespace(
        episodes=[SimpleNamespace(**one | change)],
        dataset_info=SimpleNamespace(action_space="ActionSpace.CONTINUOUS", action_size=1),
    )
    with pytest.raises(DatasetError, match=said) as caught:
        load_dataset(buffer)
    assert "\n" not in str(caught.value)
    assert errors(buffer)[0] in str(caught.value)


# --- Others ---------------------------------------------------------------------------------------------------------


def test_a_data_frame_that_is_written_on_leaves_the_dataset_alone() -> None:
    frame = pd.DataFrame(
        {"obs": np.zeros(6, np.float32), "act": np.zeros(6, np.float32), "rewards": np.zeros(6, np.float32), "done": 0}
    )
    memory = [frame[name].to_numpy() for name in ("obs", "act", "rewards")]
    data = load_dataset(frame)
    for array in memory:
        assert not any(np.may_share_memory(array, getattr(data, name).numpy()) for name in TENSORS)


class Polars:
    """Another library's frame."""

    def to_pandas(self) -> None:
        """It has this."""


@pytest.mark.parametrize("source", [[1, 2], np.zeros((3, 2)), torch.zeros(3), None, 7, object(), Polars(), b"x.npz"])
def test_other_objects_are_refused_with_what_is_taken(source: Any, tmp_path: Path) -> None:
    for use in (load_dataset, lambda one: convert(one, tmp_path / "x.npz")):
        with pytest.raises(DatasetError) as caught:
            use(source)
        message = str(caught.value)
        assert "\n" not in message
        for taken in ("a path", "dictionary of arrays", "DataFrame", "MinariDataset", "ReplayBuffer"):
            assert taken in message
        assert (".to_pandas()" in message) == isinstance(source, Polars)
    assert len(errors(source)) == 1


def test_a_loaded_dataset_says_that_it_is_one() -> None:
    data: TransitionDataset = line_dataset(episodes=1, length=3)
    with pytest.raises(DatasetError, match="is loaded already; write it with write_dataset"):
        load_dataset(data)
