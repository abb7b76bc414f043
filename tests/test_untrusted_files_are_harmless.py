"""Configurations and run folders may come from anyone: what they hold ends in one clear line and nothing else."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from toys import line_dataset, run_values, saved

from offline_robust.cli import main
from offline_robust.errors import CheckpointError, ConfigError
from offline_robust.experiments import load_run, parse_override, train
from offline_robust.experiments.config import load_config

BASE = "dataset: pendulum-td3\nlearner: {name: sac}\n"


def one_clear_line(error: pytest.ExceptionInfo[Exception]) -> None:
    text = str(error.value)
    assert len(text) < 600
    assert "\n" not in text


# --- Configurations -------------------------------------------------------------------------------------------------

BOMB = "a: &a [lol, lol]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
VALUES = {
    "self-reference": "&a [*a]",
    "depth": "[" * 3000,
    "depth of keys": "{? " * 300,
    "bytes": "!!binary gIGCg4SF",
    "date": "!!timestamp 2001-99-99",
    "set": "!!set {a, b}",
    "object": "!!python/object/apply:os.system [id]",
    "no number": '!!int "abc"',
    "empty number": '!!int ""',
    "no truth value": '!!bool "perhaps"',
    "5000 digits": "9" * 5000,
    "many bits": "0x" + "F" * 5000,
    "sexagesimal": "!!float 1" + ":59" * 400 + ".5",  # without the tag it is text
    "key that is no text": "{1: 2}",
    "key that is a list": "{[1]: 2}",
    "control characters": '"\x01"',
    "open bracket": "[1, 2",
}


@pytest.mark.parametrize("name", VALUES)
def test_yaml_holds_plain_values_or_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"{BASE}env_kwargs: {{a: {VALUES[name]}}}\n")
    with pytest.raises(ConfigError) as error:
        load_config(path)
    one_clear_line(error)
    with pytest.raises(ConfigError) as error:
        parse_override(f"env_kwargs.a={VALUES[name]}")
    one_clear_line(error)


@pytest.mark.parametrize(
    "text", [BOMB + BASE, BASE + "training: " + "x" * 100_000, "x" * 300_000, "\0\1", "- 1", "q" * 9000 + ": 1", "\xff"]
)
def test_config_files_are_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as error:
        load_config(path)
    one_clear_line(error)


def test_dates_are_text() -> None:
    assert parse_override("dataset=2001-99-99") == ("dataset", "2001-99-99")


def test_a_value_that_is_its_own_part_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["a"] = loop
    with pytest.raises(ConfigError, match="nested deeper"):
        load_config({"dataset": "a", "learner": {"name": "sac"}, "env_kwargs": loop})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learner.hidden", [8193]),
        ("learner.hidden", [0]),
        ("learner.hidden", [8] * 17),
        ("learner.hidden", []),
        ("model.hidden", [10**9]),
        ("model.hidden", [8] * 17),
        ("model.smoothing", float("nan")),
        ("learner.samples", 10_001),
        ("learner.reward_shift", float("nan")),
        ("learner.reward_scale", float("inf")),
        ("learner.target_entropy", float("-inf")),
        ("learner.weight_decay", float("inf")),
        ("training.batch_size", 100_001),
        ("training.threads", 1025),
        ("training.device", "cuda:999"),
        ("training.device", "cuda:٣"),
        ("dataset", "a" * 4097),
        ("env", "a" * 4097),
        ("env", "os:Pendulum-v1"),
        ("seed", 2**70),
        ("env_kwargs", {"a": object()}),
        ("env_kwargs." + ".".join("a" * 5000), 1),
        ("q" * 5000, 1),
        ("learner.name", "q" * 5000),
    ],
)
def test_values_out_of_range_are_refused_before_anything_starts(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as error:
        load_config("dr_sac/pendulum", {key: value})
    one_clear_line(error)


# --- Run folders ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("done")
    train(run_values(saved(line_dataset(), folder), "sac", steps=10), out=folder / "run")
    return folder / "run"


META: dict[str, Any] = {
    "cut": b"{",
    "a list": b"[]",
    "binary": b"\xff\xfe\x00",
    "deep": b"[" * 200_000,
    "long": b'{"label": "' + b"x" * 2_000_000 + b'"}',
    "digits": b'{"label": "a", "seed": ' + b"9" * 5000 + b"}",
    "no label": {"label": None},
    "label is a list": {"label": [1]},
    "label is long": {"label": "x" * 5000},
    "label with escapes": {"label": "\x1b[31mred"},
    "env_id is a number": {"env_id": 5},
    "env_id is long": {"env_id": "x" * 5000},
    "env_id imports": {"env_id": "harmful_module:Pendulum-v1"},
}


@pytest.mark.parametrize("name", META)
def test_meta_of_a_run_is_checked_when_it_is_opened(name: str, done: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(done, tmp_path / "run"))
    path, content = run / "meta.json", META[name]
    path.write_bytes(
        content if isinstance(content, bytes) else json.dumps(json.loads(path.read_text()) | content).encode()
    )
    with pytest.raises(CheckpointError, match=r"meta\.json") as error:
        load_run(run)
    one_clear_line(error)


@pytest.mark.parametrize("file", ["config.yaml", "meta.json"])
def test_evaluating_a_run_imports_nothing_it_names(file: str, done: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    run = Path(shutil.copytree(done, tmp_path / "run"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("harmful_module.py").write_text("open('imported', 'w')")
    key, read, write = (
        ("env", yaml.safe_load, yaml.safe_dump) if file == "config.yaml" else ("env_id", json.loads, json.dumps)
    )
    content = read((run / file).read_text()) | {key: "harmful_module:Pendulum-v1"}
    (run / file).write_text(write(content))
    monkeypatch.setattr(sys, "argv", ["offline-robust", "evaluate", "run", "--episodes", "1"])
    with pytest.raises(SystemExit) as leaving:
        main()
    error = capsys.readouterr().err
    assert (leaving.value.code, error.count("\n")) == (2, 1), error
    assert not Path("imported").exists()
    assert not (run / "results.csv").exists()
