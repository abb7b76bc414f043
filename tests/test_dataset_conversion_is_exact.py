"""Minari, D4RL and npz: there and back changes nothing, and the same content gives the same bytes."""

from __future__ import annotations

import tempfile
import time
import zipfile
from itertools import permutations
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
from dataset_files import columns, d4rl_file, episode, minari_folder, short_datasets
from hypothesis import given, settings

from offline_robust.datasets import (
    TransitionDataset,
    convert,
    load_dataset,
    write_d4rl,
    write_dataset,
    write_minari,
    write_npz,
)
from offline_robust.errors import DatasetError

TARGETS = {"minari": "folder", "d4rl": "file.hdf5", "npz": "file.npz"}


def assert_same(one: TransitionDataset, other: TransitionDataset) -> None:
    assert one.fingerprint == other.fingerprint
    assert one.observation_space == other.observation_space
    assert one.action_space == other.action_space
    assert one.env_id == other.env_id
    if one.env_id is not None:
        assert one.environment == other.environment


@settings(max_examples=15, deadline=None, derandomize=True)
@given(short_datasets())
def test_there_and_back_is_exact_for_every_pair_of_formats(arrays: dict[str, Any]) -> None:
    original = load_dataset(arrays)
    with tempfile.TemporaryDirectory() as folder:
        for name in TARGETS.values():
            write_dataset(original, Path(folder) / name)
            assert_same(original, load_dataset(Path(folder) / name, cache=False))
        for source, target in permutations(TARGETS, 2):
            out = Path(folder) / f"{source}-{TARGETS[target]}"
            convert(Path(folder) / TARGETS[source], out)
            assert_same(original, load_dataset(out, cache=False))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(short_datasets())
def test_minari_opens_what_is_written_and_finds_the_same_episodes(arrays: dict[str, Any]) -> None:
    import minari

    dataset = load_dataset(arrays)
    with tempfile.TemporaryDirectory() as folder:
        opened = minari.MinariDataset(write_minari(dataset, folder, dataset_id="tests/x-v0"))
        episodes = list(opened.iterate_episodes())
        assert opened.total_steps == len(dataset)
        assert opened.action_space == dataset.action_space
    assert len(episodes) == dataset.episodes
    for number, one in enumerate(episodes):
        rows = (dataset.episode == number).nonzero().flatten()
        np.testing.assert_array_equal(one.observations[:-1], dataset.observations[rows])
        np.testing.assert_array_equal(one.actions, dataset.actions[rows])
        np.testing.assert_array_equal(one.rewards, dataset.rewards[rows])
        np.testing.assert_array_equal(one.terminations, dataset.terminated[rows])
        np.testing.assert_array_equal(one.truncations, dataset.truncated[rows])
        if dataset.next_valid[rows[-1]]:
            np.testing.assert_array_equal(one.observations[-1], dataset.next_observations[rows[-1]])


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    dataset = load_dataset(columns(12, ends={3: "terminal", 7: "timeout"}))
    first = [write_dataset(dataset, tmp_path / "a" / name) for name in TARGETS.values()]
    time.sleep(1.1)  # HDF5 would note whole seconds
    second = [write_dataset(dataset, tmp_path / "b" / name) for name in TARGETS.values()]
    for one, other in zip(first, second, strict=True):
        for file in ["main_data.hdf5", "metadata.json"] if one.is_dir() else [""]:
            assert (one / file).read_bytes() == (other / file).read_bytes()
    with zipfile.ZipFile(tmp_path / "a" / "file.npz") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_files_stay_small(tmp_path: Path) -> None:
    dataset = load_dataset(minari_folder(tmp_path / "x", [episode(200, seed=k) for k in range(50)]), cache=False)
    payload = 50 * (201 * 3 * 4 + 200 * (4 + 4 + 2))
    assert (write_minari(dataset, tmp_path / "y") / "main_data.hdf5").stat().st_size < 1.5 * payload


def test_d4rl_files_have_the_keys_that_other_readers_expect(tmp_path: Path) -> None:
    full = write_d4rl(load_dataset(columns(8, ends={3: "terminal"})), tmp_path / "x.hdf5")
    early = write_d4rl(load_dataset(columns(8, ends={3: "terminal"}, next_observations=None)), tmp_path / "y.hdf5")
    with h5py.File(full) as file, h5py.File(early) as other:
        expected = {"observations", "actions", "rewards", "terminals", "timeouts"}
        assert set(file) == expected | {"next_observations", "offline_robust"}
        # Where no next observation was logged at an end, none is made up.
        assert set(other) == expected | {"offline_robust"}
        assert file["terminals"].dtype == bool
        assert file["terminals"][()].nonzero()[0].tolist() == [3]


def test_npz_files_open_with_numpy_alone(tmp_path: Path) -> None:
    dataset = load_dataset(columns(8, ends={3: "terminal"}))
    with np.load(write_npz(dataset, tmp_path / "x.npz"), allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["next_observations"], dataset.next_observations)


def test_rows_that_do_not_chain_are_refused_for_minari_and_kept_elsewhere(tmp_path: Path) -> None:
    content = columns(6, ends={2: "unmarked"}) | {"episode": np.zeros(6, int)}
    dataset = load_dataset(content)
    assert dataset.episodes == 1
    with pytest.raises(DatasetError, match="row 2 has a next observation that is not the next row's"):
        write_minari(dataset, tmp_path / "x")
    assert not (tmp_path / "x" / "data").exists()
    for name in ("x.npz", "x.hdf5"):
        assert_same(dataset, load_dataset(write_dataset(dataset, tmp_path / name)))


@pytest.mark.parametrize("form", TARGETS)
def test_nothing_is_overwritten_without_being_asked(tmp_path: Path, form: str) -> None:
    one, other = load_dataset(columns(6)), load_dataset(columns(6, seed=1))
    target = tmp_path / TARGETS[form]
    write_dataset(one, target)
    with pytest.raises(DatasetError, match="exists already"):
        write_dataset(other, target)
    assert load_dataset(target, cache=False).fingerprint == one.fingerprint
    write_dataset(other, target, overwrite=True)
    assert load_dataset(target, cache=False).fingerprint == other.fingerprint
    assert not list(tmp_path.rglob(".tmp-*"))


def test_the_target_decides_the_format_and_an_unknown_one_is_refused_before_reading(tmp_path: Path) -> None:
    source = d4rl_file(tmp_path / "x.hdf5", columns(6))
    assert h5py.is_hdf5(convert(source, tmp_path / "odd.npz", to="d4rl"))
    with pytest.raises(DatasetError, match=r"'\.csv' says no format"):
        convert(source, tmp_path / "x.csv")
    with pytest.raises(DatasetError, match="'rlds' is not known"):
        convert(source, tmp_path / "x", to="rlds")


class OddEnv(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)


@pytest.mark.parametrize(
    ("entry_point", "kwargs"),
    [(OddEnv, {}), (lambda **_: OddEnv(), {}), ("builtins:dict", {"a": np.float32(1)}), ("builtins:dict", {"a": dict})],
    ids=["a class", "a function", "a keyword without JSON", "a keyword that is a class"],
)
def test_an_environment_without_json_is_named_all_the_same(
    entry_point: Any, kwargs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import minari

    spec = gym.envs.registration.EnvSpec("Odd-v0", entry_point=entry_point, kwargs=kwargs)
    monkeypatch.setitem(gym.registry, "Odd-v0", spec)
    dataset = load_dataset(columns(6) | {"env_id": "Odd-v0", "env_kwargs": {"size": 3}})
    with pytest.warns(UserWarning, match="Odd-v0: written without env_spec"):
        data = write_minari(dataset, tmp_path / "x")
    back = load_dataset(data, cache=False)
    assert back.fingerprint == dataset.fingerprint
    assert back.environment is not None
    assert (back.environment.id, dict(back.environment.kwargs)) == ("Odd-v0", {"size": 3})
    opened = minari.MinariDataset(data)
    assert opened.env_spec is None
    assert opened.total_steps == len(dataset)
