"""Data frames, CSV, Parquet and JSON lines: a column is what its name says, in any order, and numbers only."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from dataset_files import columns
from toys import run_values

from offline_robust.baselines import write_d3rlpy
from offline_robust.cli import main
from offline_robust.datasets import TransitionDataset, check, convert, load_dataset
from offline_robust.errors import DatasetError, MissingExtra

ENDS = {3: "terminal", 7: "timeout"}


def wanted(**changes: Any) -> TransitionDataset:
    return load_dataset(columns(12, ends=ENDS) | changes)


def frame_of(names: dict[str, Callable[[int], str]], content: dict[str, Any] | None = None) -> pd.DataFrame:
    """A column for each dimension, named by array and dimension."""
    content = content or columns(12, ends=ENDS)
    found = {}
    for name, values in content.items():
        if values.ndim == 1:
            found[names.get(name, lambda _, name=name: name)(0)] = values
        else:
            found |= {names[name](d): values[:, d] for d in range(values.shape[1])}
    return pd.DataFrame(found)


def prefixed(form: str, observations: str = "observations", actions: str = "actions", after: str = "next_observations"):
    return {
        name: lambda d, base=base: form.format(base, d)
        for name, base in (("observations", observations), ("actions", actions), ("next_observations", after))
    }


SINGULAR = {"observations": "observation", "actions": "action", "next_observations": "next_observation"}
LETTERS = {name: lambda d, base=base: f"{base}.{'xyz'[d]}" for name, base in SINGULAR.items()}
NAMES = {
    "counted": prefixed("{}_{}"),
    "counted from one": {k: lambda d, f=f: f(d + 1) for k, f in prefixed("{}_{}").items()},
    "in brackets": prefixed("{}[{}]"),
    "after a dot": prefixed("{}.{}", "obs", "act", "next_obs"),
    "without anything": prefixed("{}{}", "obs", "action", "next_obs"),
    "in capitals": prefixed("{}_{}", "Observation", "Action", "Next_Observation"),
    "by letters": LETTERS,
    "as Gymnasium calls them": prefixed("{}_{}", "obs", "action", "next_obs")
    | {"rewards": lambda _: "reward", "terminals": lambda _: "terminated", "timeouts": lambda _: "truncated"},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", ["as it is", "backwards"])
def test_columns_are_found_by_name_whatever_their_order(name: str, order: str) -> None:
    frame = frame_of(NAMES[name])
    if order == "backwards":
        # Letters have no order but the table's: keep the one of the observations.
        if name == "by letters":
            named = [label for label in frame if label.startswith("observation.")]
            frame = frame[[*(label for label in frame.columns[::-1] if label not in named), *named]]
        else:
            frame = frame[frame.columns[::-1]]
    assert load_dataset(frame).fingerprint == wanted().fingerprint
    said, expected = (check(source, env="Pendulum-v1") for source in (frame, columns(12, ends=ENDS)))
    assert [(problem.what, problem.rows) for problem in said] == [(problem.what, problem.rows) for problem in expected]


def test_cells_may_hold_lists_or_arrays() -> None:
    content = columns(12, ends=ENDS)
    for cell in (list, np.asarray, tuple):
        frame = pd.DataFrame({name: [cell(row) for row in v] if v.ndim > 1 else v for name, v in content.items()})
        assert load_dataset(frame).fingerprint == wanted().fingerprint


def test_pairs_of_names_are_taken() -> None:
    content = columns(12, ends=ENDS)
    frame = pd.concat({name: pd.DataFrame(values) for name, values in content.items()}, axis=1)
    assert load_dataset(frame).fingerprint == wanted().fingerprint


def test_index_and_order_of_rows_are_the_table_s() -> None:
    frame = frame_of(NAMES["counted"])
    frame.index = pd.Index(np.arange(12)[::-1] // 2)
    assert load_dataset(frame).fingerprint == wanted().fingerprint
    with pytest.raises(DatasetError, match="rewards: holds text: row 1 holds 'x'"):
        load_dataset(frame.assign(rewards=pd.Series(["1", "x", *"1" * 10], index=frame.index, dtype="string")))


@pytest.mark.parametrize("label", ["episode", "episode_id", "Episode_Index"])
def test_episodes_and_masks_are_taken(label: str) -> None:
    episode, valid = np.repeat([4, 2, 9], 4), np.arange(12) % 4 != 3
    frame = frame_of(NAMES["counted"]).assign(**{label: episode, "next_valid": valid})
    assert load_dataset(frame).fingerprint == wanted(episode=episode, next_valid=valid).fingerprint
    with pytest.raises(DatasetError, match=f"{label}: rows of one episode are not together"):
        load_dataset(frame.assign(**{label: np.arange(12) % 2}))


def test_types_of_pandas_own_are_taken() -> None:
    frame = frame_of(NAMES["counted"])
    nullable = frame.convert_dtypes().astype({"rewards": "Float32", "terminals": "boolean", "timeouts": "Int8"})
    assert load_dataset(nullable).fingerprint == wanted().fingerprint
    nullable.loc[5, "rewards"] = pd.NA
    with pytest.raises(DatasetError, match=r"rewards: 1 row with NaN .*\(row 5\)"):
        load_dataset(nullable)


def test_whole_numbers_are_discrete_actions_and_floating_ones_are_not() -> None:
    actions = np.arange(12) % 3
    frame = frame_of(NAMES["counted"]).drop(columns="actions_0")
    for label in ("action", "actions_0"):
        assert load_dataset(frame.assign(**{label: actions})).fingerprint == wanted(actions=actions).fingerprint
        assert not load_dataset(frame.assign(**{label: actions.astype(float)})).discrete


def test_columns_that_are_not_read_are_named() -> None:
    frame = frame_of(NAMES["counted"]).assign(velocity=1.0, action_log_prob=0.5, reward_ctrl=0.0)
    (found,) = [problem for problem in check(frame, env="Pendulum-v1") if "not read" in problem.what]
    assert found.severity == "warning"
    assert "velocity, action_log_prob, reward_ctrl" in found.what
    assert load_dataset(frame).fingerprint == wanted().fingerprint


def test_next_observations_are_matched_by_name() -> None:
    frame = frame_of(LETTERS)
    named = [label for label in frame if label.startswith("next_observation.")]
    shuffled = frame[[*(label for label in frame if label not in named), named[2], named[0], named[1]]]
    assert load_dataset(shuffled).fingerprint == wanted().fingerprint
    with pytest.raises(DatasetError, match="next_observations: differs from observations in w, z"):
        load_dataset(frame.rename(columns={named[2]: "next_observation.w"}))


REFUSED: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "no observations": (lambda f: f.filter(regex="^(?!obs)"), "no column 'observations'; the table has actions_0"),
    "other words": (lambda f: f.rename(columns=lambda c: c.replace("observations", "state")), "observations_0, obs"),
    "no terminals": (lambda f: f.drop(columns="terminals"), r"'terminals'; .*all zero if no episode truly ends"),
    "a missing dimension": (lambda f: f.drop(columns="observations_1"), "dimension 1 is missing among its 2 columns"),
    "counted from two": (lambda f: f.rename(columns={"actions_0": "actions_2"}), "actions: the dimension 0 is missing"),
    "twice": (lambda f: f.assign(Rewards=1.0), "Rewards: is there twice"),
    "two numbers alike": (lambda f: f.assign(**{"observations[1]": 1.0}), "has two columns of one number"),
    "counted and not": (lambda f: f.assign(observations=1.0), "a number beside others without"),
    "text": (lambda f: f.assign(rewards=["1"] * 5 + ["one"] + ["1"] * 6), "rewards: holds text: row 5 holds 'one'"),
    "text among cells": (lambda f: f.assign(rewards=[1.0] * 7 + ["x"] + [1] * 4), "row 7 holds the text 'x'"),
    "nothing": (lambda f: f.assign(rewards=pd.Series([1.0] * 3 + [None] * 9, dtype=object)), "row 3 holds nothing"),
    "ragged cells": (lambda f: f.assign(actions_0=[[1.0]] * 4 + [[1.0, 2.0]] * 8), "row 4 holds a list of 2 where"),
    "dictionaries": (lambda f: f.assign(rewards=[{"a": 1}] * 12), "row 0 holds a dict"),
    "dates": (lambda f: f.assign(rewards=pd.date_range("2020", periods=12)), "rewards: holds datetime64"),
    "categories": (lambda f: f.assign(rewards=pd.Categorical(["a", "b"] * 6)), "rewards: "),
    "complex numbers": (lambda f: f.assign(rewards=np.ones(12, complex)), "rewards: holds complex128"),
    "lists beside columns": (lambda f: f.assign(observations_1=[[1.0]] * 12), "observations_1: holds lists beside"),
    "no rows": (lambda f: f.iloc[:0], "holds no transitions"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_with_a_table_is_one_line(name: str) -> None:
    change, said = REFUSED[name]
    frame = change(frame_of(NAMES["counted"]))
    with pytest.raises(DatasetError, match=said) as caught:
        load_dataset(frame)
    assert "\n" not in str(caught.value)
    assert any(problem.severity == "error" for problem in check(frame))


# --- Files ----------------------------------------------------------------------------------------------------------


def as_csv(folder: Path, frame: pd.DataFrame, **options: Any) -> Path:
    frame.to_csv(folder / "x.csv", **options)
    return folder / "x.csv"


def as_jsonl(folder: Path, content: dict[str, Any], name: str = "x.jsonl") -> Path:
    rows = [dict(zip(content, row, strict=True)) for row in zip(*(v.tolist() for v in content.values()), strict=True)]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def test_csv_gives_the_same_to_the_last_bit(tmp_path: Path) -> None:
    content = {name: values.astype(float) if values.dtype.kind == "f" else values
               for name, values in columns(12, ends=ENDS).items()}  # fmt: skip
    content["rewards"] = np.random.default_rng(3).normal(size=12) * 10.0 ** np.arange(-6, 6)
    frame = frame_of(NAMES["counted"], content)
    for options in ({}, {"index": False}, {"index": False, "lineterminator": "\r\n"}, {"encoding": "utf-8-sig"}):
        path = as_csv(tmp_path, frame, **options)
        assert load_dataset(path).fingerprint == load_dataset(content).fingerprint
        with np.load(convert(path, tmp_path / "y.npz", overwrite=True)) as written:
            np.testing.assert_array_equal(written["rewards"], content["rewards"])


def test_csv_may_have_spaces_words_for_flags_and_other_columns(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(
        "obs_0, obs_1, action, reward, terminated, truncated, note\n"
        '0.5, 1, 2.0, 1e-3, False, false, "a, b"\n'
        "1.5, 2, 1.0, -4, TRUE, False, c\n"
    )
    dataset = load_dataset(tmp_path / "x.csv")
    assert dataset.observations.tolist() == [[0.5, 1.0], [1.5, 2.0]]
    assert dataset.rewards.tolist() == pytest.approx([0.001, -4])
    assert dataset.terminated.tolist() == [False, True]
    assert not dataset.discrete


CSV = {
    "text in a column": ("obs,act,reward,done\n1,1.5,2,0\n1,1.5,bad,0\n", "reward: holds text: line 3 holds 'bad'"),
    "an empty cell": ("obs,act,reward,done\n1,1.5,2,0\n1,1.5,,0\n", r"reward: 1 row with NaN .*row 1"),
    "a long line": ("obs,act,reward,done\n1,1.5,2,0\n1,1.5,2,0,9,9\n", "not a table of comma-separated values"),
    "a long first line": ("obs,act,reward,done\n1,1.5,2,0,9\n1,1.5,2,0\n", "not a table of comma-separated values"),
    "a short line": ("obs,act,reward,done\n1,1.5,2,0\n1,1.5\n", "reward: 1 row with NaN|done: row 1 holds nan"),
    "semicolons": ("obs;act;reward;done\n1;1.5;2;0\n", "no column 'observations'; the table has obs;act"),
    "no names": ("1,1.5,2,0\n1,1.5,2,0\n", "no column 'observations'; the table has 1, 1.5"),
    "names alone": ("obs,act,reward,done\n", "holds no transitions"),
    "nothing": ("", "is empty"),
    "bytes": ("\x80\x81,\xff\n", "not a table of comma-separated values"),
    "binary": ("PK\x03\x04" + "\0" * 99, "no column|not a table"),
    "beyond float64": ("obs,act,reward,done\n1,1.5,1e999,0\n", "NaN or infinite"),
    "a list": ('obs,act,reward,done\n"[1, 2]",1.5,1,0\n', r"obs: holds text: line 2 holds '\[1, 2\]'"),
}


@pytest.mark.parametrize("name", CSV)
def test_damaged_csv_is_one_line(name: str, tmp_path: Path) -> None:
    text, said = CSV[name]
    (tmp_path / "x.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DatasetError, match=said) as caught:
        load_dataset(tmp_path / "x.csv")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
def test_text_beyond_the_limit_is_refused_before_it_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text("x" * 100)
    monkeypatch.setattr("offline_robust.datasets.table_files.MAX_TEXT", 99)
    with pytest.raises(DatasetError, match=r"is 100 bytes of text; at most 99 are read: store it as \.npz"):
        load_dataset(tmp_path / name)


@pytest.mark.parametrize("block", [1, 5, 12, 4096])
def test_json_lines_give_the_same(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offline_robust.datasets.table_files._BLOCK", block)
    path = as_jsonl(tmp_path, columns(12, ends=ENDS), "x.ndjson")
    assert load_dataset(path).fingerprint == wanted().fingerprint
    path.write_text(path.read_text().replace("\n", "\n\n"))
    assert load_dataset(path).fingerprint == wanted().fingerprint


def test_objects_within_json_lines_are_named_parts(tmp_path: Path) -> None:
    line = {"observation": {"angle": 1.0, "rate": 2.0}, "action": 0, "reward": 1, "terminated": False}
    after = {"observation": {"rate": 4.0, "angle": 3.0}, "action": 1, "reward": 1.5, "terminated": True}
    (tmp_path / "x.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps(after)}")
    dataset = load_dataset(tmp_path / "x.jsonl")
    assert dataset.observations.tolist() == [[1, 2], [3, 4]]
    assert (dataset.actions.tolist(), dataset.rewards.tolist()) == ([0, 1], [1, 1.5])


GOOD = '{"obs": [1.0, 2.0], "act": [0.5], "reward": 1.0, "done": false}'
JSONL = {
    "no json": ("{obs: 1}", "line 2: is not JSON"),
    "a list": ("[1, 2]", "line 2: holds a JSON list, not an object"),
    "a missing key": ('{"obs": [1.0, 2.0], "act": [0.5], "done": false}', "line 2: the key 'reward' of line 1 is"),
    "ragged": ('{"obs": [1.0], "act": [0.5], "reward": 1, "done": false}', "obs.*row 1 holds a list of 1 where row 0"),
    "null": ('{"obs": [1.0, 2.0], "act": [0.5], "reward": null, "done": false}', "reward.*row 1 holds nothing"),
    "text": ('{"obs": [1.0, 2.0], "act": ["x"], "reward": 1, "done": false}', "act.*row 1 holds a list of something"),
    "beyond 64 bits": ('{"obs": [1.0, 2.0], "act": [0.5], "reward": 1' + "0" * 400 + ', "done": false}', "64 bits"),
    "nested too deep": ("[" * 100_000, "line 2: is not JSON"),
    "NaN": ('{"obs": [1.0, 2.0], "act": [0.5], "reward": NaN, "done": false}', "reward: 1 row with NaN"),
}  # fmt: skip


@pytest.mark.parametrize("block", [1, 4096])
@pytest.mark.parametrize("name", JSONL)
def test_damaged_json_lines_are_one_line(
    name: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offline_robust.datasets.table_files._BLOCK", block)
    line, said = JSONL[name]
    (tmp_path / "x.jsonl").write_text(f"{GOOD}\n{line}\n{GOOD}\n")
    if block == 1:
        said = said.split(".*")[0]  # blocks of one line compare sizes between blocks
    with pytest.raises(DatasetError, match=said) as caught:
        load_dataset(tmp_path / "x.jsonl")
    assert "\n" not in str(caught.value)


def test_parquet_names_the_extra_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    for read in (load_dataset, check):
        with pytest.raises(MissingExtra, match=r"reading x\.parquet needs pyarrow: .*offline-robust\[arrow\]"):
            read(tmp_path / "x.parquet")


@pytest.mark.parametrize("ending", [".pt", ".pth", ".pkl", ".pickle", ".PT", ".joblib"])
def test_pickles_are_refused_with_the_way_to_save_them(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{ending}"
    path.write_bytes(pickle.dumps(columns(12)))
    with pytest.raises(DatasetError, match=r"is a pickle.*numpy\.savez\('data\.npz', observations=") as caught:
        load_dataset(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["x.csv", "x.jsonl", "x.h5"])
def test_the_command_line_takes_them_from_data_to_a_trained_run(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["offline-robust", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        assert left.value.code in (0, None), said.err
        return said.out

    content = columns(60, ends={29: "timeout", 59: "timeout"}, next_observations=None)
    if form == "x.csv":
        path = as_csv(tmp_path, frame_of(NAMES["counted"], content), index=False)
    elif form == "x.jsonl":
        path = as_jsonl(tmp_path, content, form)
    else:
        path = write_d3rlpy(load_dataset(content), tmp_path / form)
    fingerprint = load_dataset(content).fingerprint
    assert json.loads(command("data", "info", str(path), "--json"))["fingerprint"] == fingerprint
    assert json.loads(command("data", "check", str(path), "--json"))["errors"] == 0
    target = str(tmp_path / "y.npz")
    assert json.loads(command("data", "convert", str(path), target, "--json"))["fingerprint"] == fingerprint
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(run_values(str(path), "sac")))
    command("train", str(config), "--out", str(tmp_path / "run"), "--quiet")
    assert json.loads((tmp_path / "run" / "meta.json").read_text())["dataset"]["fingerprint"] == fingerprint
