"""The flat cache: used when it is good, passed over when it is not, renewed when the source changes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import pytest
from dataset_files import columns, d4rl_file, episode, minari_folder
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import offline_robust.datasets.load as load
from offline_robust.datasets import cache, load_dataset
from offline_robust.errors import DatasetError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OFFLINE_ROBUST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    spec = '{"id": "Pendulum-v1", "kwargs": {"g": 9.5}}'
    return minari_folder(tmp_path / "x", [episode(2, seed=k) for k in range(70)], env_spec=spec)


def no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on reading the source fails."""

    def fail(path: Path) -> None:
        raise AssertionError("read the source again")

    monkeypatch.setitem(load._READERS, "minari", fail)


def test_the_second_load_reads_the_cache_and_gives_the_same(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_dataset(source)
    no_reader(monkeypatch)
    second = load_dataset(source)
    assert second.fingerprint == first.fingerprint
    assert str(second.environment) == "Pendulum-v1 with g=9.5"
    assert second.action_space == first.action_space
    (path,) = root.iterdir()
    assert dict(second.provenance) == {**first.provenance, "cache": str(path)}


def test_a_changed_source_is_read_again_and_its_old_cache_removed(root: Path, source: Path) -> None:
    load_dataset(source)
    about = json.loads((source / "data" / "metadata.json").read_text())
    (source / "data" / "metadata.json").write_text(json.dumps(about | {"env_spec": '{"id": "Other-v0"}'}))
    assert load_dataset(source).env_id == "Other-v0"
    assert len(list(root.iterdir())) == 1


@pytest.mark.parametrize("size", [70, 2_000])
def test_other_bytes_of_equal_number_and_time_are_read_again(size: int, root: Path, tmp_path: Path) -> None:
    """A small file is known by its content, a large one by samples, its number and the system's own time."""
    source = minari_folder(tmp_path / "y", [episode(2, seed=k) for k in range(size)])
    main = source / "data" / "main_data.hdf5"
    about = main.stat()
    first = load_dataset(source)
    with h5py.File(main, "r+") as file:
        file[f"episode_{size // 2}/rewards"][0] = 12.5
    os.utime(main, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert (main.stat().st_size, main.stat().st_mtime_ns) == (about.st_size, about.st_mtime_ns)
    second = load_dataset(source)
    assert 12.5 in second.rewards
    assert first.fingerprint != second.fingerprint
    assert "cache" not in second.provenance


def test_a_file_that_is_sampled_is_known_by_each_sample(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(2**20))
    stamps = set()
    for place in (0, 2**19 + 8, 2**20 - 1):
        content = bytearray(2**20)
        places = [place] if place in (0, 2**20 - 1) else range(2**19, 2**19 + 2**15)
        for at in places:
            content[at] = 1
        path.write_bytes(content)
        stamps.add(cache._stamp(path)[-1])
    assert len(stamps) == 3


@pytest.mark.parametrize("how", ["cut", "text", "flipped", "nan", "missing tensor"])
def test_a_damaged_cache_is_passed_over(root: Path, source: Path, how: str) -> None:
    good = load_dataset(source).fingerprint
    (path,) = root.iterdir()
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "text":
        path.write_text("hello")
    elif how == "flipped":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    else:
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
        tensors = load_file(path)
        if how == "nan":
            tensors["rewards"][3] = float("nan")
        else:
            del tensors["rewards"]
        save_file(tensors, path, about)
    with pytest.warns(UserWarning, match="damaged cache"):
        assert load_dataset(source).fingerprint == good
    # It was written anew.
    assert load_dataset(source).fingerprint == good


def test_a_cache_that_cannot_be_written_is_a_warning(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("OFFLINE_ROBUST_CACHE", str(tmp_path / "file" / "below"))
    with pytest.warns(UserWarning, match="cannot be written"):
        assert load_dataset(source).episodes == 70


def test_small_and_flat_sources_and_refusals_leave_no_cache(root: Path, tmp_path: Path, source: Path) -> None:
    load_dataset(minari_folder(tmp_path / "small", [episode(2)]))
    load_dataset(d4rl_file(tmp_path / "x.hdf5", columns(8)))
    load_dataset(source, cache=False)
    assert not root.exists()


def test_the_environment_that_the_caller_names_counts_also_from_the_cache(root: Path, source: Path) -> None:
    assert load_dataset(source).env_id == "Pendulum-v1"
    for _ in range(2):
        with pytest.raises(DatasetError, match=r"is Pendulum-v1 in .* and MountainCarContinuous-v0 in"):
            load_dataset(source, env="MountainCarContinuous-v0")
