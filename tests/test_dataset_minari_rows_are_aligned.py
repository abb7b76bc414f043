"""Episode k of a Minari folder gives exactly its own rows, with its own T+1st observation as the last s'."""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from dataset_files import BOX1, BOX3, DISCRETE4, episode, minari_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_robust.datasets import check, load_dataset
from offline_robust.errors import DatasetError, MissingExtra


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 7), st.booleans(), st.booleans()), min_size=1, max_size=13))
def test_reading_equals_rows_built_by_hand(shapes: list[tuple[int, bool, bool]]) -> None:
    episodes = [
        episode(length, seed=k, terminated=term, truncated=trunc) for k, (length, term, trunc) in enumerate(shapes)
    ]
    with tempfile.TemporaryDirectory() as folder:
        dataset = load_dataset(minari_folder(Path(folder) / "x", episodes), cache=False)
    row = 0
    for number, one in enumerate(episodes):
        steps = len(one["rewards"])
        for t in range(steps):
            assert torch.equal(dataset.observations[row], torch.from_numpy(one["observations"][t]))
            assert torch.equal(dataset.next_observations[row], torch.from_numpy(one["observations"][t + 1]))
            assert torch.equal(dataset.actions[row], torch.from_numpy(one["actions"][t]))
            assert dataset.rewards[row] == np.float32(one["rewards"][t])
            assert dataset.terminated[row] == one["terminations"][t]
            last_without_flag = t == steps - 1 and not one["terminations"][t]
            assert dataset.truncated[row] == (one["truncations"][t] or last_without_flag)
            assert dataset.episode[row] == number
            row += 1
    assert row == len(dataset)
    assert bool(dataset.next_valid.all())


def test_episode_10_comes_after_episode_2(tmp_path: Path) -> None:
    episodes = [episode(2, seed=k, rewards=np.full(2, float(k))) for k in range(12)]
    dataset = load_dataset(minari_folder(tmp_path / "x", episodes), cache=False)
    assert dataset.rewards[::2].tolist() == [float(k) for k in range(12)]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_files_written_by_minari_itself_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import minari
    from minari.data_collector.episode_buffer import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    episodes = [episode(3 + k, seed=k, terminated=False, truncated=True) for k in range(11)]
    buffers = [
        EpisodeBuffer(**{key: list(values) if key == "rewards" else values for key, values in one.items()})
        for one in episodes
    ]
    minari.create_dataset_from_buffers("tests/pendulum-v3", buffers, env="Pendulum-v1")
    dataset = load_dataset("tests/pendulum-v3", cache=False)
    assert dataset.env_id == "Pendulum-v1"
    assert dataset.provenance["dataset_id"] == "tests/pendulum-v3"
    assert torch.equal(
        dataset.next_observations, torch.cat([torch.from_numpy(e["observations"][1:]) for e in episodes])
    )
    assert float(dataset.action_space.high[0]) == 2.0


def test_environment_keywords_come_from_the_spec_and_its_entry_point_is_never_imported(tmp_path: Path) -> None:
    spec = '{"id": "Pendulum-v1", "entry_point": "evil_module:Env", "kwargs": {"g": 9.5}, "additional_wrappers": []}'
    dataset = load_dataset(minari_folder(tmp_path / "x", [episode(3)], env_spec=spec), cache=False)
    assert str(dataset.environment) == "Pendulum-v1 with g=9.5"
    evil = '{"id": "evil_module:Env-v0", "kwargs": {}}'
    dataset = load_dataset(minari_folder(tmp_path / "y", [episode(3)], env_spec=evil), cache=False)
    assert dataset.env_id is None


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_discrete_actions_are_int64(tmp_path: Path, shape: tuple[int, ...]) -> None:
    one = episode(4, actions=np.array([0, 3, 1, 2], np.int32).reshape(shape))
    dataset = load_dataset(minari_folder(tmp_path / "x", [one], action_space=DISCRETE4), cache=False)
    assert dataset.actions.dtype == torch.int64
    assert dataset.actions.tolist() == [0, 3, 1, 2]
    assert dataset.action_dim == 4


def test_column_shaped_rewards_and_float64_are_flattened_and_cast(tmp_path: Path) -> None:
    one = episode(4)
    wide = {key: values.astype(np.float64) for key, values in one.items() if values.dtype.kind == "f"}
    odd = one | wide | {"rewards": one["rewards"][:, None], "terminations": one["terminations"][:, None]}
    plain = load_dataset(minari_folder(tmp_path / "x", [one]), cache=False)
    assert load_dataset(minari_folder(tmp_path / "y", [odd]), cache=False).fingerprint == plain.fingerprint


def test_an_end_flag_inside_an_episode_does_not_split_it(tmp_path: Path) -> None:
    one = episode(5, terminations=np.array([0, 0, 1, 0, 0], bool), truncations=np.array([0, 1, 0, 0, 1], bool))
    dataset = load_dataset(minari_folder(tmp_path / "x", [one]), cache=False)
    assert dataset.episode.tolist() == [0] * 5
    assert dataset.terminated.tolist() == [False, False, True, False, False]
    assert torch.equal(dataset.next_observations[2], dataset.observations[3])


def test_an_episode_without_transitions_is_skipped_with_a_warning(tmp_path: Path) -> None:
    folder = minari_folder(tmp_path / "x", [episode(2), episode(0), episode(3, seed=1)])
    assert load_dataset(folder, cache=False).episode.tolist() == [0, 0, 1, 1, 1]
    assert any("episode_1" in problem.where and problem.severity == "warning" for problem in check(folder))


def test_infos_are_passed_over(tmp_path: Path) -> None:
    one = episode(2) | {"infos": {"qpos": np.zeros((3, 2))}}
    assert len(load_dataset(minari_folder(tmp_path / "x", [one]), cache=False)) == 2


def test_the_folder_its_data_folder_and_its_file_are_the_same_source(tmp_path: Path) -> None:
    folder = minari_folder(tmp_path / "x", [episode(2)])
    sources = [folder, folder / "data", str(folder / "data" / "main_data.hdf5")]
    assert len({load_dataset(source, cache=False).fingerprint for source in sources}) == 1


DICT = f'{{"type": "Dict", "subspaces": {{"a": {BOX3}, "b": {BOX1}}}}}'


@pytest.mark.parametrize(
    ("about", "content", "said"),
    [
        ({"observation_space": DICT}, {}, "is not a group"),
        ({"observation_space": '{"type": "Tuple", "subspaces": []}'}, {}, "have 0 numbers"),
        ({"observation_space": DISCRETE4}, {}, "has shape (3,) where the space has ()"),
        ({"observation_space": '{"type":"Box","dtype":"uint8","shape":[2,2],"low":[[0,0],[0,0]],"high":[[9,9],[9,9]]}'},
         {"observations": np.zeros((3, 2, 2), np.uint8)}, "images of shape (2, 2)"),
        ({}, {"observations": {"a": np.zeros((3, 3)), "b": np.zeros((3, 1))}}, "a, b"),
        ({}, {"observations": np.zeros((3, 8, 8), np.uint8)}, "image"),
    ],
)  # fmt: skip
def test_other_kinds_of_observations_are_refused_in_one_line(
    tmp_path: Path, about: dict, content: dict, said: str
) -> None:
    folder = minari_folder(tmp_path / "x", [episode(2, **content)], **about)
    with pytest.raises(DatasetError) as caught:
        load_dataset(folder, cache=False)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arrow_data_name_the_extra_that_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "minari.dataset._storages.arrow_storage", raising=False)
    folder = minari_folder(tmp_path / "x", [episode(2)], data_format="arrow")
    with pytest.raises(MissingExtra, match=r"offline-robust\[arrow\]"):
        load_dataset(folder, cache=False)


def test_a_repeated_episode_id_is_reported(tmp_path: Path) -> None:
    folder = minari_folder(tmp_path / "x", [episode(2), episode(2, seed=1)])
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file["episode_1"].attrs["id"] = 0
    assert any("id 0" in problem.what for problem in check(folder))
