"""D4RL-layout files: ends, masks and types, to the row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import columns, d4rl_file

from offline_robust.datasets import TransitionDataset, check, load_dataset
from offline_robust.errors import DatasetError


def read(tmp_path: Path, content: dict, **options: object) -> TransitionDataset:
    return load_dataset(d4rl_file(tmp_path / "x.hdf5", content), **options)  # type: ignore[arg-type]


def test_terminal_and_timeout_rows_end_episodes_and_only_terminals_are_done(tmp_path: Path) -> None:
    dataset = read(tmp_path, columns(12, ends={3: "terminal", 7: "timeout", 11: "terminal"}))
    assert dataset.episode.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert dataset.terminated.nonzero().flatten().tolist() == [3, 11]
    assert dataset.truncated.nonzero().flatten().tolist() == [7]
    assert bool(dataset.next_valid.all())


def test_the_logged_next_observation_is_used_on_every_end_row(tmp_path: Path) -> None:
    content = columns(12, ends={3: "terminal", 7: "timeout"})
    dataset = read(tmp_path, content)
    assert torch.equal(dataset.next_observations, torch.from_numpy(content["next_observations"]))


def test_the_last_row_of_the_file_is_closed_as_truncated(tmp_path: Path) -> None:
    dataset = read(tmp_path, columns(6, ends={2: "terminal"}))
    assert dataset.truncated.tolist() == [False] * 5 + [True]
    assert not dataset.terminated[5]
    assert dataset.episodes == 2


def test_both_flags_at_once_are_a_true_end(tmp_path: Path) -> None:
    dataset = read(tmp_path, columns(6, ends={2: "both", 5: "terminal"}))
    assert dataset.terminated.nonzero().flatten().tolist() == [2, 5]
    assert dataset.episode.tolist() == [0, 0, 0, 1, 1, 1]


def test_an_unmarked_cut_is_seen_by_its_discontinuity(tmp_path: Path) -> None:
    dataset = read(tmp_path, columns(9, ends={3: "unmarked", 6: "terminal"}))
    assert dataset.episode.tolist() == [0] * 4 + [1] * 3 + [2] * 2
    assert dataset.truncated.nonzero().flatten().tolist() == [3, 8]


def test_a_timeout_mid_episode_ends_the_episode_and_keeps_its_next_observation(tmp_path: Path) -> None:
    content = columns(6, ends={5: "terminal"})
    content["timeouts"][2] = True
    path = d4rl_file(tmp_path / "x.hdf5", content)
    dataset = load_dataset(path)
    assert dataset.episode.tolist() == [0, 0, 0, 1, 1, 1]
    assert bool(dataset.next_valid[2])
    assert torch.equal(dataset.next_observations[2], dataset.observations[3])
    assert [p.rows for p in check(path) if "mid-episode" in p.what] == [(2,)]


def test_without_next_observations_every_end_row_is_masked_terminal_ones_included(tmp_path: Path) -> None:
    content = columns(8, ends={2: "terminal", 5: "timeout"}, next_observations=None)
    dataset = read(tmp_path, content)
    assert (~dataset.next_valid).nonzero().flatten().tolist() == [2, 5, 7]
    inside = dataset.next_valid.nonzero().flatten()
    assert torch.equal(dataset.next_observations[inside], dataset.observations[inside + 1])
    # The rows stay; what stands in their place is not the next episode's first observation.
    assert torch.equal(dataset.next_observations[~dataset.next_valid], dataset.observations[~dataset.next_valid])
    assert dataset.usable_rows is not None
    assert dataset.usable_rows.tolist() == [0, 1, 2, 3, 4, 6]


def test_an_early_file_without_timeouts_is_cut_by_terminals_alone_and_says_so(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "x.hdf5", columns(8, ends={2: "terminal"}, next_observations=None, timeouts=None))
    dataset = load_dataset(path)
    assert dataset.episode.tolist() == [0] * 3 + [1] * 5
    assert any("marks no timeouts" in problem.what for problem in check(path))


def test_an_early_file_is_cut_at_the_time_limit_of_the_environment_that_the_caller_names(tmp_path: Path) -> None:
    content = columns(450, ends={29: "terminal"}, next_observations=None, timeouts=None)
    dataset = read(tmp_path, content, env="Pendulum-v1")
    assert torch.bincount(dataset.episode).tolist() == [30, 200, 200, 20]
    assert dataset.truncated.nonzero().flatten().tolist() == [229, 429, 449]
    assert (~dataset.next_valid).nonzero().flatten().tolist() == [29, 229, 429, 449]
    assert "inferred" in dataset.provenance["timeouts"]


def test_replay_files_in_float64_with_columns_are_cast_and_flattened(tmp_path: Path) -> None:
    content = columns(8, ends={3: "terminal"})
    odd = {key: values.astype(np.float64) for key, values in content.items()}
    odd |= {key: odd[key][:, None] for key in ("rewards", "terminals", "timeouts")}
    plain, cast = load_dataset(content), read(tmp_path, odd)
    assert cast.fingerprint == plain.fingerprint
    assert cast.observations.dtype == cast.rewards.dtype == torch.float32


def test_rewards_stay_raw(tmp_path: Path) -> None:
    content = columns(5, rewards=np.array([1e4, -1e4, 0.1, 3.0, -7.5]))
    assert read(tmp_path, content).rewards.tolist() == [np.float32(value) for value in content["rewards"]]


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_whole_number_types_are_discrete_actions(tmp_path: Path, shape: tuple[int, ...]) -> None:
    dataset = read(tmp_path, columns(6, actions=np.array([0, 1, 4, 1, 0, 2], np.uint8).reshape(shape)))
    assert dataset.discrete
    assert dataset.actions.dtype == torch.int64
    assert dataset.action_dim == 5


def test_floating_actions_are_continuous_even_when_all_are_whole(tmp_path: Path) -> None:
    dataset = read(tmp_path, columns(6, actions=np.array([0, 1, 0, 1, 0, 1], np.float32)))
    assert not dataset.discrete
    assert dataset.actions.shape == (6, 1)


def test_a_known_space_decides_about_the_action_type(tmp_path: Path) -> None:
    whole = columns(6, observations=np.zeros((6, 4)), next_observations=None, actions=np.array([0.0, 1, 0, 1, 1, 0]))
    dataset = read(tmp_path, whole, env="CartPole-v1")
    assert dataset.actions.tolist() == [0, 1, 0, 1, 1, 0]
    assert dataset.action_dim == 2
    torque = columns(6, actions=np.array([0, 1, -2, 2, 1, 0]))
    assert load_dataset(torque, env="Pendulum-v1").actions.dtype == torch.float32


def test_spaces_come_from_the_environment_or_are_inferred_and_marked(tmp_path: Path) -> None:
    content = columns(6)
    dataset = read(tmp_path, content)
    np.testing.assert_array_equal(dataset.action_space.low, content["actions"].min(0))
    assert "action_space (the range of the data)" in dataset.provenance["inferred"]
    named = load_dataset(tmp_path / "x.hdf5", env="Pendulum-v1")
    assert float(named.action_space.low[0]) == -2.0
    assert "inferred" not in named.provenance


def test_an_environment_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="width 3 where the observation space has 4"):
        read(tmp_path, columns(6, actions=np.zeros(6, int)), env="CartPole-v1")
    with pytest.raises(DatasetError, match="did you mean 'Pendulum-v1'"):
        load_dataset(columns(6), env="Pendulun-v1")


def test_arrays_in_memory_and_npz_give_what_the_file_gives(tmp_path: Path) -> None:
    content = columns(12, ends={3: "terminal", 7: "timeout"})
    np.savez(tmp_path / "x.npz", **content)
    tensors = {key: torch.from_numpy(values) for key, values in content.items()}
    neorl = {"terminals": "done", "observations": "obs", "next_observations": "next_obs"}
    neorl |= {"rewards": "reward", "actions": "action"}
    np.savez_compressed(tmp_path / "y.npz", **{neorl.get(key, key): values for key, values in content.items()})
    prints = {
        read(tmp_path, content).fingerprint,
        load_dataset(tmp_path / "x.npz").fingerprint,
        load_dataset(tmp_path / "y.npz").fingerprint,
        load_dataset(tensors).fingerprint,
    }
    assert len(prints) == 1
