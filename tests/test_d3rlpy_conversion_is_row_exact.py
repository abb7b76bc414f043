"""Our datasets and d3rlpy's buffers and files hold the same rows, whatever the episodes look like."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import h5py
import numpy as np
import pytest
import torch
from d3rlpy_toys import datasets
from hypothesis import HealthCheck, assume, given, settings
from toys import line_dataset

from offline_robust.baselines import from_replay_buffer, read_d3rlpy, to_replay_buffer, write_d3rlpy
from offline_robust.baselines.conversion import TrueNextPicker
from offline_robust.baselines.names import require_d3rlpy
from offline_robust.baselines.segments import Segment, segment_ends
from offline_robust.errors import DatasetError

d3rlpy = require_d3rlpy("these tests")
many = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def usable(data):
    return (data.next_valid | data.terminated).nonzero().squeeze(1).tolist()


def transitions(buffer):
    return [buffer.transition_picker(*buffer.buffer[i]) for i in range(buffer.transition_count)]


def assert_is_row(transition, data, row) -> None:
    """A transition of d3rlpy's says what the row says."""
    start = getattr(data.action_space, "start", 0)
    np.testing.assert_array_equal(transition.observation, data.observations[row])
    np.testing.assert_array_equal(transition.action, np.atleast_1d(data.actions[row] - start))
    assert transition.reward == data.rewards[row]
    assert transition.terminal == float(data.terminated[row])
    if data.next_valid[row]:
        np.testing.assert_array_equal(transition.next_observation, data.next_observations[row])
    else:
        assert not transition.next_observation.any()


@many
@given(datasets())
def test_every_usable_row_is_a_transition(data) -> None:
    assume(usable(data))
    buffer = to_replay_buffer(data)
    found = transitions(buffer)
    assert len(found) == len(usable(data))
    for transition, row in zip(found, usable(data), strict=True):
        assert_is_row(transition, data, row)
    assert buffer.dataset_info.action_size == data.action_dim
    assert (buffer.dataset_info.action_space == d3rlpy.ActionSpace.DISCRETE) == data.discrete


@many
@given(datasets())
def test_next_actions_are_the_next_rows_or_left_out(data) -> None:
    ends = segment_ends(data)
    kept = (~ends | data.terminated).nonzero().squeeze(1).tolist()
    if not usable(data):
        return
    if not kept:
        with pytest.raises(DatasetError, match="next action"):
            to_replay_buffer(data, next_actions=True)
        return
    found = transitions(to_replay_buffer(data, next_actions=True))
    start = getattr(data.action_space, "start", 0)
    assert len(found) == len(kept)
    for transition, row in zip(found, kept, strict=True):
        assert_is_row(transition, data, row)
        following = np.zeros_like(transition.action) if ends[row] else np.atleast_1d(data.actions[row + 1] - start)
        np.testing.assert_array_equal(transition.next_action, following)


@many
@given(datasets())
def test_there_and_back_through_a_buffer(data) -> None:
    assume(usable(data))
    spaces = {"observation_space": data.observation_space, "action_space": data.action_space}
    back = from_replay_buffer(to_replay_buffer(data), **spaces)
    assert back.fingerprint == data.fingerprint
    assert back.action_space == data.action_space


@many
@given(datasets())
def test_there_and_back_through_a_file(tmp_path_factory, data) -> None:
    path = write_d3rlpy(data, tmp_path_factory.mktemp("file") / "buffer.h5")
    back = read_d3rlpy(path)
    assert back.fingerprint == data.fingerprint
    assert (back.action_space, back.observation_space) == (data.action_space, data.observation_space)
    assert back.environment == data.environment


@many
@given(datasets())
def test_d3rlpy_reads_our_file_and_sees_true_transitions_only(tmp_path_factory, data) -> None:
    """By its own reader it loses what it has no place for, and never makes up a transition across a gap."""
    ends, path = segment_ends(data), tmp_path_factory.mktemp("file") / "buffer.h5"
    write_d3rlpy(data, path)
    expected = [row for row in range(len(data)) if data.terminated[row] or not ends[row]]
    assume(expected)
    spaces = d3rlpy.ActionSpace
    stated = {
        "action_space": spaces.DISCRETE if data.discrete else spaces.CONTINUOUS,
        "action_size": data.action_dim,
    }
    with path.open("rb") as file:
        episodes = d3rlpy.dataset.io.load(d3rlpy.dataset.Episode, file)
    native = d3rlpy.dataset.ReplayBuffer(d3rlpy.dataset.InfiniteBuffer(), episodes=episodes, **stated)
    found = transitions(native)
    assert len(found) == len(expected)
    blind = replace(data, next_valid=data.next_valid & ~data.terminated)  # d3rlpy forgets terminal observations
    for transition, row in zip(found, expected, strict=True):
        assert_is_row(transition, blind, row)
    with path.open("rb") as file:
        whole = d3rlpy.dataset.io.load(Segment, file)
    buffer = d3rlpy.dataset.ReplayBuffer(
        d3rlpy.dataset.InfiniteBuffer(), episodes=whole, transition_picker=TrueNextPicker(), **stated
    )
    for transition, row in zip(transitions(buffer), usable(data), strict=True):
        assert_is_row(transition, data, row)


@pytest.mark.parametrize("through", ["buffer", "file"])
def test_d3rlpys_own_episodes_keep_every_row(through: str, tmp_path) -> None:
    rng = np.random.default_rng(0)
    observations, rewards = rng.normal(size=(9, 2)), rng.normal(size=9)
    actions = rng.uniform(-1, 1, (9, 1))
    terminals, timeouts = np.zeros(9), np.zeros(9)
    terminals[3], timeouts[8] = 1, 1
    buffer = d3rlpy.dataset.MDPDataset(observations, actions, rewards, terminals, timeouts)
    if through == "file":
        with (tmp_path / "own.h5").open("w+b") as file:
            buffer.dump(file)
        data = read_d3rlpy(tmp_path / "own.h5")
    else:
        data = from_replay_buffer(buffer)
    np.testing.assert_array_equal(data.observations, observations.astype(np.float32))
    np.testing.assert_array_equal(data.actions, actions.astype(np.float32))
    np.testing.assert_array_equal(data.rewards, rewards.astype(np.float32))
    assert data.next_valid.tolist() == [True] * 3 + [False] + [True] * 4 + [False]
    assert data.terminated.nonzero().tolist() == [[3]]
    assert data.truncated.nonzero().tolist() == [[8]]
    assert data.episode.tolist() == [0] * 4 + [1] * 5


def test_d3rlpys_discrete_actions_stay_discrete(tmp_path) -> None:
    """Also where its file holds them as floating numbers: the environment says what they are."""
    actions = np.array([0, 1, 1, 0, 1])
    flat = (np.eye(5, 4), actions.astype(np.float32), np.ones(5), np.array([0, 0, 1, 0, 0]), np.array([0, 0, 0, 0, 1]))
    buffer = d3rlpy.dataset.MDPDataset(*flat, action_space=d3rlpy.ActionSpace.DISCRETE, action_size=2)
    assert from_replay_buffer(buffer).actions.tolist() == actions.tolist()
    with (tmp_path / "own.h5").open("w+b") as file:
        buffer.dump(file)
    data = read_d3rlpy(tmp_path / "own.h5", env="CartPole-v1")
    assert data.actions.tolist() == actions.tolist()
    assert data.action_space == gym.spaces.Discrete(2)


def test_an_episode_of_one_more_observation_keeps_its_last_transition() -> None:
    episode = d3rlpy.dataset.Episode(np.arange(8.0).reshape(4, 2), np.ones((3, 1)), np.zeros((3, 1)), False)
    buffer = d3rlpy.dataset.ReplayBuffer(
        d3rlpy.dataset.InfiniteBuffer(), episodes=[episode], action_space=d3rlpy.ActionSpace.CONTINUOUS, action_size=1
    )
    data = from_replay_buffer(buffer)
    assert data.next_valid.all()
    assert data.next_observations[-1].tolist() == [6.0, 7.0]


def damaged(path, change):
    write_d3rlpy(line_dataset(episodes=2, length=3), path)
    with h5py.File(path, "a") as file:
        change(file)
    return path


def put(file, name, values) -> None:
    del file[name]
    file[name] = values


HOSTILE = {
    "no version of d3rlpy": (lambda f: put(f, "version", "2.0"), "format version '2.0'"),
    "a number for a version": (lambda f: put(f, "version", 2.1), "format version"),
    "more episodes than it holds": (lambda f: put(f, "num_episodes", 10**12), "number of episodes"),
    "fewer than none": (lambda f: put(f, "num_episodes", -1), "number of episodes"),
    "an episode is missing": (lambda f: f.__delitem__("rewards_1"), "'rewards_1' is missing"),
    "NaN": (lambda f: put(f, "observations_1", np.full((3, 1), np.nan, np.float32)), "observations: 3 rows"),
    "lengths that differ": (lambda f: put(f, "rewards_0", np.zeros((2, 1))), "3 actions and 2 rewards"),
    "widths that differ": (lambda f: put(f, "actions_1", np.zeros((3, 2))), "differ in width"),
    "images": (lambda f: put(f, "observations_0", np.zeros((3, 4, 4))), "an image or a stack"),
    "text": (lambda f: put(f, "actions_0", ["a", "b", "c"]), "not numbers"),
    "a flag of two": (lambda f: put(f, "terminated_0", 2), "holds 2"),
    "a link to another file": (lambda f: put(f, "actions_0", h5py.ExternalLink("/etc/hostname", "x")), "external link"),
    "an end of another width": (lambda f: put(f, "last_observation_0", np.zeros(7)), "width 7"),
    "no replay buffer": (lambda f: f.__delitem__("num_episodes"), "not a replay buffer"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_damaged_file_is_one_clear_line(name: str, tmp_path) -> None:
    change, said = HOSTILE[name]
    path = damaged(tmp_path / "buffer.h5", change)
    with pytest.raises(DatasetError, match=said) as refused:
        read_d3rlpy(path)
    assert "\n" not in str(refused.value)


def test_an_existing_file_is_not_overwritten(tmp_path) -> None:
    data = line_dataset(episodes=1, length=2)
    path = write_d3rlpy(data, tmp_path / "buffer.h5")
    with pytest.raises(DatasetError, match="exists already"):
        write_d3rlpy(data, path)
    assert read_d3rlpy(write_d3rlpy(data, path, overwrite=True)).fingerprint == data.fingerprint


def test_data_without_a_target_are_refused() -> None:
    data = line_dataset(episodes=1, length=3)
    with pytest.raises(DatasetError, match="nothing to learn from"):
        to_replay_buffer(replace(data, next_valid=torch.zeros(3, dtype=torch.bool)))
