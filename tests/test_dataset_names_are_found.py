"""Where a name leads: paths first, then bundled names, then Minari ids; and what is said when nothing is there."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from dataset_files import episode, minari_folder

from offline_robust.datasets import load_dataset
from offline_robust.errors import DatasetError, DatasetNotFound


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    monkeypatch.setenv("OFFLINE_ROBUST_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "root"


def test_a_bundled_name_loads() -> None:
    dataset = load_dataset("pendulum-td3")
    assert (len(dataset), dataset.episodes, dataset.env_id) == (100_000, 500, "Pendulum-v1")


def test_an_existing_path_wins_over_a_bundled_name(tmp_path: Path) -> None:
    minari_folder(tmp_path / "pendulum-td3", [episode(2)])
    assert len(load_dataset("pendulum-td3")) == 2


def test_a_local_minari_id_loads(root: Path) -> None:
    minari_folder(root / "my" / "own-space" / "small-v12", [episode(2)])
    assert len(load_dataset("my/own-space/small-v12")) == 2


def test_a_missing_id_names_the_places_and_the_ways_and_leaves_no_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DatasetNotFound) as caught:
        load_dataset("mujoco/hopper/medium-v0")
    message = str(caught.value)
    for said in ("mujoco/hopper/medium-v0", str(root), "offline-robust[hub]", "copy the dataset's folder"):
        assert said in message
    assert "\n" not in message
    assert not root.exists()


def test_near_names_are_offered(root: Path) -> None:
    minari_folder(root / "my" / "small-v1", [episode(2)])
    with pytest.raises(DatasetNotFound, match="did you mean 'pendulum-td3'"):
        load_dataset("pendulum-td")
    with pytest.raises(DatasetNotFound, match="did you mean 'my/small-v1'"):
        load_dataset("my/smal-v1")


class NetworkDown(Exception):
    """Not an OSError, as the hub's own."""


@pytest.mark.parametrize("fails", [True, False])
def test_a_download_is_tried_only_for_what_is_not_local(
    root: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    import minari

    asked = []

    def download(dataset_id: str) -> None:
        asked.append(dataset_id)
        if fails:
            raise NetworkDown("no route\nto host")
        minari_folder(root / dataset_id, [episode(3)])

    monkeypatch.setitem(sys.modules, "huggingface_hub", ModuleType("huggingface_hub"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(minari, "download_dataset", download)
    if fails:
        with pytest.raises(DatasetNotFound, match=r"the download failed \(NetworkDown: no route to host\)"):
            load_dataset("far/away-v0")
    else:
        assert len(load_dataset("far/away-v0")) == 3
        assert len(load_dataset("far/away-v0")) == 3
    assert asked == ["far/away-v0"]


@pytest.mark.parametrize("name", ["", "../../etc/passwd-v0", "/nowhere/x.hdf5", "x.npz", "a b", "a\nb", "a\0b"])
def test_odd_names_are_not_found_in_one_line(name: str, root: Path) -> None:
    with pytest.raises(DatasetNotFound) as caught:
        load_dataset(name)
    assert "\n" not in str(caught.value)


def test_a_folder_without_data_says_what_to_pass(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"holds no metadata\.json; pass a Minari data folder"):
        load_dataset("empty")
