"""Every damaged or hostile file ends in one clear line that names the file and the place, and nothing is run."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from dataset_files import columns, d4rl_file, episode, minari_folder
from numpy.lib import format as npy

from offline_robust.datasets import check, load_dataset
from offline_robust.errors import DatasetError

RAN: list[str] = []


class Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple:
        return RAN.append, ("boom",)


def with_value(key: str, row: int, value: float) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        content = columns(8, ends={3: "terminal"})
        content[key] = np.array(content[key], np.float64)
        content[key][row] = value
        return d4rl_file(folder / "x.hdf5", content)

    return make


def flat(**changes: object) -> Callable[[Path], Path]:
    return lambda folder: d4rl_file(folder / "x.hdf5", columns(8, **changes))


def groups(*changes: dict, **about: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        return minari_folder(folder / "x", [episode(4), *(episode(4, seed=1, **one) for one in changes)], **about)

    return make


def raw(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def cut(make: Callable[[Path], Path], inner: str = "", share: float = 0.6) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        path = make(folder)
        file = path / inner if inner else path
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * share)])
        return path

    return made


def metadata(text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = groups()(folder)
        (path / "data" / "metadata.json").write_text(text)
        return path

    return make


def missing_file(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = groups()(folder)
        (path / "data" / name).unlink()
        return path

    return make


def npz(**changes: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.savez_compressed(folder / "x.npz", **columns(8, **changes))
        return folder / "x.npz"

    return make


def h5(edit: Callable[[h5py.File, Path], None]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = d4rl_file(folder / "x.hdf5", columns(8))
        d4rl_file(folder / "other.hdf5", columns(8))
        with h5py.File(path, "a") as file:
            del file["rewards"]
            edit(file, folder)
        return path

    return make


def absurd(file: h5py.File, _: Path) -> None:
    file.create_dataset("rewards", shape=(10**13,), chunks=(1000,), dtype="f4")


def external_storage(file: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(bytes(64))
    file.create_dataset("rewards", shape=(8,), dtype="f8", external=[(str(folder / "secret"), 0, 64)])


def virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((8,), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.hdf5"), "rewards", (8,))
    file.create_virtual_dataset("rewards", layout)


def external_link(file: h5py.File, _: Path) -> None:
    file["rewards"] = h5py.ExternalLink("other.hdf5", "rewards")


def soft_link(file: h5py.File, _: Path) -> None:
    file["rewards"] = h5py.SoftLink("/timeouts")


def text(file: h5py.File, _: Path) -> None:
    file["rewards"] = [b"one"] * 8


def lying_header(folder: Path) -> Path:
    """An array whose header declares a petabyte in an archive of a few hundred bytes."""
    with zipfile.ZipFile(folder / "x.npz", "w") as archive:
        for key, values in columns(8).items():
            with archive.open(f"{key}.npy", "w") as stream:
                shape = (2**47,) if key == "rewards" else values.shape
                npy.write_array_header_1_0(
                    stream, {"shape": shape, "fortran_order": False, "descr": npy.dtype_to_descr(values.dtype)}
                )
                stream.write(values.tobytes())
    return folder / "x.npz"


def zip_bomb(folder: Path) -> Path:
    """Zeros for a thousandth of their size, beyond what a source may take."""
    with zipfile.ZipFile(folder / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for key, values in columns(8).items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as stream:
                if key == "rewards":
                    values = np.zeros(5_000_000)
                npy.write_array(stream, values)
    return folder / "x.npz"


def no_rows(folder: Path) -> Path:
    np.savez(folder / "x.npz", **{key: values[:0] for key, values in columns(8).items()})
    return folder / "x.npz"


DAMAGES = {
    "actions of no width": (flat(actions=np.zeros((8, 0))), "actions: has width 0"),
    "observations of no width": (flat(observations=np.zeros((8, 0))), "observations: has width 0"),
    "actions of no width in groups": (groups({"actions": np.zeros((4, 0))}), "actions: has width 0"),
    "empty hdf5": (raw("x.hdf5", b""), "is empty"),
    "empty npz": (raw("x.npz", b""), "is empty"),
    "text named hdf5": (raw("x.hdf5", b"hello\n" * 99), "not an HDF5 file"),
    "pickle named npz": (raw("x.npz", pickle.dumps(Bomb())), "not an npz archive"),
    "pickle named hdf5": (raw("x.hdf5", pickle.dumps(Bomb())), "not an HDF5 file"),
    "unknown ending": (raw("x.pkl", pickle.dumps(Bomb())), "ending '.pkl'"),
    "cut hdf5": (cut(flat()), "cut short"),
    "cut minari": (cut(groups(), "data/main_data.hdf5"), "cut short"),
    "cut npz": (cut(npz()), "not an npz archive"),
    "objects in npz": (npz(rewards=np.array([Bomb()] * 8, object)), "rewards: holds object"),
    "lying npz header": (lying_header, "rewards: declares shape"),
    "zip bomb": (zip_bomb, "rewards: needs 40,000,000 bytes"),
    "nan reward": (with_value("rewards", 5, np.nan), "rewards: 1 row with NaN"),
    "infinite reward": (with_value("rewards", 5, np.inf), "row 5"),
    "nan observation": (with_value("observations", 6, np.nan), "observations: 1 row with NaN"),
    "nan action": (with_value("actions", 0, np.nan), "row 0"),
    "beyond float32": (with_value("rewards", 2, 1e300), "beyond float32"),
    "nan next observation": (with_value("next_observations", 7, np.nan), "next_observations"),
    "flag of 2": (with_value("terminals", 4, 2.0), "terminals: row 4 holds 2.0"),
    "missing rewards": (flat(rewards=None), "'rewards' is missing"),
    "missing terminals": (flat(terminals=None), "'terminals' is missing"),
    "short actions": (flat(actions=np.zeros((7, 1))), "actions: has 7 rows where observations has 8"),
    "wide next": (flat(next_observations=np.zeros((8, 4))), "has width 4 where observations has 3"),
    "two rewards": (flat(rewards=np.zeros((8, 2))), "rewards: has shape (8, 2)"),
    "negative action": (flat(actions=np.array([0, 1, -1, 0, 1, 0, 1, 1])), "row 2 holds -1"),
    "several discrete actions": (flat(actions=np.zeros((8, 2), int)), "2 whole numbers per action"),
    "no rows": (no_rows, "no transitions"),
    "petabyte hdf5": (h5(absurd), "declares 40,000,000,000,000 bytes but stores 0"),
    "external storage": (h5(external_storage), "rewards: keeps its values in another file"),
    "virtual": (h5(virtual), "rewards: keeps its values in another file"),
    "external link": (h5(external_link), "rewards: is a soft or external link"),
    "soft link": (h5(soft_link), "rewards: is a soft or external link"),
    "text values": (h5(text), "rewards: holds"),
    "metadata not json": (metadata("{not json"), "metadata.json: is not JSON"),
    "metadata a list": (metadata("[]"), "not an object"),
    "metadata nested": (metadata("[" * 100_000), "metadata.json: is not JSON"),
    "metadata a bad space": (groups(observation_space='{"type": "Box", "shape": "x"}'), "observation_space: is not a"),
    "metadata an unknown space": (groups(observation_space='{"type": "Foo"}'), "observation_space: is not a space"),
    "metadata a number as space": (groups(action_space=3), "action_space: is not a string"),
    "unknown back end": (groups(data_format="../x"), "data_format"),
    "no metadata": (missing_file("metadata.json"), "no metadata.json"),
    "no main file": (missing_file("main_data.hdf5"), "main_data.hdf5: cannot be read"),
    "one observation short": (groups({"observations": np.zeros((4, 3))}), "episode_1: observations: has 4 rows for 4"),
    "minari wrong width": (groups({"observations": np.zeros((5, 2))}), "episode_1: observations: is float32 of width"),
    "minari ragged": (groups({"actions": np.zeros((3, 1))}), "episode_1: actions: has 3 rows where rewards has 4"),
    "minari nan": (groups({"rewards": np.array([0, 1, np.nan, 0])}), "rewards: 1 row with NaN"),
    "minari nan at the end": (groups({"observations": np.diag([0, 0, 0, 0, np.nan])[:, 2:]}), "episode_1, row 3"),
    "minari space of another width": (groups(action_space=json.dumps(
        {"type": "Box", "dtype": "float32", "shape": [2], "low": [0, 0], "high": [1, 1]})), "action space has 2"),
    "fewer episodes than said": (groups({}, total_episodes=9), "holds 2 episodes where metadata.json says 9"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_refused_in_one_line_that_names_file_and_place(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, said = DAMAGES[name]
    path = make(tmp_path)
    if name == "zip bomb":
        monkeypatch.setattr("offline_robust.datasets.logged.MAX_BYTES", 10_000_000)
    with pytest.raises(DatasetError) as caught:
        load_dataset(path, cache=False)
    message = str(caught.value)
    assert said in message
    assert str(tmp_path) in message
    assert "\n" not in message
    assert not RAN
    # The report sees the same, and says that the source does not load.
    assert any(problem.severity == "error" for problem in check(path))


def test_a_minari_data_file_without_its_folder_says_what_to_pass(tmp_path: Path) -> None:
    folder = minari_folder(tmp_path / "x", [episode(2)])
    (folder / "data" / "main_data.hdf5").rename(tmp_path / "lonely.hdf5")
    with pytest.raises(DatasetError, match="pass the folder"):
        load_dataset(tmp_path / "lonely.hdf5")


def test_random_bytes_never_escape_as_another_error(tmp_path: Path) -> None:
    """Flips bytes of good files: either the file still loads, or it is refused in the same way."""
    rng = np.random.default_rng(0)
    flat_path = d4rl_file(tmp_path / "x.hdf5", columns(8))
    np.savez(tmp_path / "y.npz", **columns(8))
    main = minari_folder(tmp_path / "m", [episode(3), episode(2)]) / "data" / "main_data.hdf5"
    refused: list[str] = []
    for path in (flat_path, tmp_path / "y.npz", main):
        good = path.read_bytes()
        for _ in range(60):
            content = bytearray(good)
            for place in rng.integers(0, len(content), 8):
                content[place] = rng.integers(256)
            path.write_bytes(content)
            try:
                load_dataset(path, cache=False)
            except DatasetError as error:
                refused.append(str(error))
    assert len(refused) > 20
    assert not any("\n" in message for message in refused)
