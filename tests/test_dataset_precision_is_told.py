"""What float32 is too coarse for is said, dimension by dimension, from every format; and `convert` loses nothing."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from dataset_files import BOX1, columns, d4rl_file, episode, minari_folder

from offline_robust.datasets import check, convert, load_dataset
from offline_robust.datasets.cache import MIN_EPISODES
from offline_robust.datasets.precision import losses

CLOCK = 1.7e9 + np.arange(1001.0)


def with_clock(rows: int = 1000) -> dict[str, Any]:
    """Flat columns whose second dimension is seconds since 1970."""
    content = columns(rows, ends={rows // 2: "terminal", rows - 1: "timeout"})
    for offset, key in enumerate(("observations", "next_observations")):
        content[key] = content[key].astype(np.float64)
        content[key][:, 1] = CLOCK[offset : rows + offset]
    return content


def as_arrays(_: Path) -> Any:
    return with_clock()


def as_npz(folder: Path) -> Path:
    np.savez(folder / "x.npz", **with_clock())
    return folder / "x.npz"


def as_d4rl(folder: Path) -> Path:
    return d4rl_file(folder / "x.hdf5", with_clock())


def as_minari(folder: Path) -> Path:
    episodes = [episode(20, seed=k) for k in range(MIN_EPISODES)]
    for k, one in enumerate(episodes):
        one["observations"] = one["observations"].astype(np.float64)
        one["observations"][:, 1] = CLOCK[20 * k % 900 :][:21]
    return minari_folder(folder / "x", episodes)


FORMS = {function.__name__: function for function in (as_arrays, as_npz, as_d4rl, as_minari)}


@pytest.mark.parametrize("form", FORMS)
def test_a_clock_is_a_finding_with_its_dimension_and_what_is_left(form: str, tmp_path: Path) -> None:
    source = FORMS[form](tmp_path)
    with pytest.warns(UserWarning, match=r"float32 is too coarse for observations, dimension 1: [\d,]+ distinct"):
        dataset = load_dataset(source)
    (found,) = [problem for problem in check(source) if "distinct values become" in problem.what]
    values = np.unique(CLOCK[:901] if form == "as_minari" else CLOCK[:1000])
    kept = np.unique(values.astype(np.float32))
    assert found.severity == "warning"
    assert found.where.endswith("observations")
    assert f"dimension 1: {len(values):,} distinct values become {len(kept)} in float32" in found.what
    assert "lie 128 apart near 1.7e+09" in found.what
    assert "offset" in found.mend
    assert len(dataset.provenance["rounded"]) == 1
    # The second load of many episodes comes from the cache, and says it too.
    with pytest.warns(UserWarning, match="too coarse for observations, dimension 1"):
        load_dataset(source)


def test_a_constant_that_was_none_is_not_called_harmless(tmp_path: Path) -> None:
    content = columns(50)
    content["observations"] = content["observations"].astype(np.float64)
    content["observations"][:, 2] = 1e9 + np.arange(50) / 2
    content["observations"][:, 0] = 4.0
    said = [
        (p.what, p.mend)
        for p in check(content, env="Pendulum-v1")
        if p.what.startswith("dimension") and "next" not in p.what
    ]
    assert [what.split(":")[0] for what, _ in said] == ["dimension 2", "dimension 0 is 4 in every row"]
    assert "become 1 in float32" in said[0][0]
    assert "harmless" not in said[0][1]


def test_rewards_and_actions_count_too() -> None:
    content = columns(40)
    content["rewards"] = 1e8 + np.arange(40.0)
    content["actions"] = 1e8 + np.arange(40.0)[:, None] / 7
    said = [(p.where, p.what) for p in check(content) if "become" in p.what]
    assert [where for where, _ in said] == ["arrays: actions", "arrays: rewards"]
    assert "40 distinct values become 6 in float32" in said[1][1]


def test_whole_numbers_and_tiny_ones_are_seen() -> None:
    nanoseconds = 1_700_000_000_000_000_000 + 10**6 * np.arange(500)
    (loss,) = losses([nanoseconds])
    assert (loss.distinct, loss.kept) == (500, len(np.unique(nanoseconds.astype(np.float32))))
    (loss,) = losses([1e-50 * np.arange(9.0)])
    assert (loss.distinct, loss.kept) == (9, 1)
    assert losses([np.arange(500, dtype=np.int64)]) == ()


def test_slow_variables_are_judged_by_their_change_as_well() -> None:
    """The position of a robot that went far: fine beside its spread, and yet no step of it is left."""
    position = 1e6 + 0.01 * np.arange(200_000)
    (loss,) = losses([position[:, None]])
    assert loss.std > 1e3 * loss.spacing
    assert loss.change == pytest.approx(0.01)
    assert losses([position[:, None]], chained=False) == ()


def test_ordinary_numbers_are_no_finding(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=(3000, 4)), axis=0) * [1e-3, 1, 1e3, 1]
    noise = 1.25 + 2.3e-16 * rng.integers(0, 3, (3000, 1))  # a constant that float64 rounded now up, now down
    assert losses([walk]) == ()
    assert losses([noise]) == ()
    assert losses([walk.astype(np.float32) + np.float32(1e9)]) == ()
    content = columns(50) | {"observations": walk[:50, :3], "next_observations": None, "rewards": walk[:50, 0]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset({key: values for key, values in content.items() if values is not None}, env="Pendulum-v1")


@pytest.mark.parametrize("split", [1, 3, 40, 7000])
def test_where_episodes_are_cut_changes_nothing(split: int) -> None:
    rng = np.random.default_rng(1)
    values = np.c_[1e6 + rng.normal(size=20_000), rng.normal(size=20_000), 1.7e9 + np.arange(20_000.0)]
    whole, parts = losses([values]), losses(np.split(values, range(split, 20_000, split)))
    assert [loss.dimension for loss in whole] == [0, 2]
    for one, other in zip(whole, parts, strict=True):
        assert (one.distinct, one.kept) == (other.distinct, other.kept)
        assert one.std == pytest.approx(values[:, one.dimension].std())
        assert one.change == pytest.approx(np.abs(np.diff(values[:, one.dimension])).mean())
        assert (one.std, one.change) == pytest.approx((other.std, other.change))


# --- Conversion -----------------------------------------------------------------------------------------------------


def content_of(path: Path) -> dict[str, np.ndarray]:
    """The rows in a file's own numbers, however it holds them; read with numpy and h5py only."""
    names = ("observations", "next_observations", "actions", "rewards")
    if path.is_dir():
        with h5py.File(path / "data" / "main_data.hdf5") as file:
            groups = [file[f"episode_{k}"] for k in range(len(file))]
            parts: dict[str, list[np.ndarray]] = {name: [group[name][()] for group in groups] for name in names[2:]}
            parts["observations"] = [group["observations"][:-1] for group in groups]
            parts["next_observations"] = [group["observations"][1:] for group in groups]
        return {name: np.concatenate(parts[name]) for name in names}
    if path.suffix == ".npz":
        with np.load(path) as file:
            return {name: file[name] for name in names if name in file}
    with h5py.File(path) as file:
        return {name: file[name][()] for name in names if name in file}


@pytest.mark.parametrize("form", ["as_npz", "as_d4rl", "as_minari"])
@pytest.mark.filterwarnings("ignore:.*float32 is too coarse")
def test_conversion_keeps_every_bit_of_float64_there_and_back(form: str, tmp_path: Path) -> None:
    source = FORMS[form](tmp_path)
    wanted = content_of(source)
    if form == "as_minari":
        assert wanted["rewards"].dtype == np.float64  # and random, so that float32 does not hold them
    fingerprint = load_dataset(source, cache=False).fingerprint
    for target in ("a.npz", "b.hdf5", "c", "d.npz", "e", "f.hdf5"):
        source = convert(source, tmp_path / target)
        source = source.parent if source.name == "data" else source
        found = content_of(source)
        for name, values in wanted.items():
            np.testing.assert_array_equal(found[name], values)
        assert load_dataset(source, cache=False).fingerprint == fingerprint


def test_next_observations_that_are_not_logged_follow_in_the_source_s_numbers(tmp_path: Path) -> None:
    content = with_clock()
    del content["next_observations"]
    np.savez(tmp_path / "x.npz", **content)
    with h5py.File(convert(tmp_path / "x.npz", tmp_path / "m") / "main_data.hdf5") as file:
        first, second = file["episode_0/observations"][()], file["episode_1/observations"][()]
    rows = content["observations"]
    np.testing.assert_array_equal(first, np.r_[rows[:501], rows[500:501]])  # no true one at the end: the row's own
    np.testing.assert_array_equal(second, np.r_[rows[501:], rows[-1:]])


def test_coarser_next_observations_do_not_break_the_chain(tmp_path: Path) -> None:
    content = with_clock()
    content["next_observations"] = content["next_observations"].astype(np.float32)
    np.savez(tmp_path / "x.npz", **content)
    with h5py.File(convert(tmp_path / "x.npz", tmp_path / "m") / "main_data.hdf5") as file:
        assert file["episode_0/observations"].dtype == np.float64
        np.testing.assert_array_equal(file["episode_0/observations"][:-1], content["observations"][:501])


def test_what_float32_holds_is_written_in_float32(tmp_path: Path) -> None:
    content = columns(20) | {"rewards": np.arange(20.0), "observations": columns(20)["observations"].astype(float)}
    np.savez(tmp_path / "x.npz", **content)
    found = content_of(convert(tmp_path / "x.npz", tmp_path / "y.npz"))
    assert {values.dtype for values in found.values()} == {np.dtype(np.float32)}


def test_discrete_actions_stay_whole(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **with_clock() | {"actions": np.arange(1000) % 3})
    with pytest.warns(UserWarning, match="too coarse"):
        assert load_dataset(convert(tmp_path / "x.npz", tmp_path / "y.hdf5")).discrete


def test_the_action_space_of_minari_is_kept_beside_wider_actions(tmp_path: Path) -> None:
    one = episode(30, actions=np.random.default_rng(0).uniform(-2, 2, (30, 1)))
    found = content_of(convert(minari_folder(tmp_path / "x", [one], action_space=BOX1), tmp_path / "y.npz"))
    np.testing.assert_array_equal(found["actions"], one["actions"])
