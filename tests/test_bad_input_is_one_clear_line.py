"""Bad input on the command line: one line that says what, where and how to mend; status 2; nothing half-written."""

from __future__ import annotations

import importlib
import json
import pickle
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import typer
import yaml
from toys import line_dataset, run_values, saved

from offline_robust.cli import main
from offline_robust.errors import ConfigError
from offline_robust.experiments import train
from offline_robust.experiments.checkpoints import load_checkpoint, save_checkpoint


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    """Exit status and standard error of a command."""
    monkeypatch.setattr(sys, "argv", ["offline-robust", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        main()
    return int(leaving.value.code or 0), capsys.readouterr().err


def write_config(folder: Path, values: dict) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def d4rl_file(path: Path, rows: int = 50, **changes) -> str:
    arrays = {
        "observations": np.zeros((rows, 1), np.float32),
        "actions": np.linspace(-1, 1, rows, dtype=np.float32)[:, None],
        "rewards": np.zeros(rows, np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.arange(rows) % 10 == 9,
    } | changes
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return str(path)


def nan_at_7() -> np.ndarray:
    rewards = np.zeros(50, np.float32)
    rewards[7] = np.nan
    return rewards


DATA = {
    "NaN reward": ({"rewards": nan_at_7()}, ["rewards", "7"]),
    "infinite reward": ({"rewards": np.where(np.arange(50) == 3, np.inf, 0.0)}, ["rewards", "3"]),
    "observations one short": ({"observations": np.zeros((49, 1), np.float32)}, ["observations", "49", "50"]),
    "actions of the wrong width": ({"actions": np.zeros((50, 1, 1), np.float32)}, ["actions"]),
    "rewards of two columns": ({"rewards": np.zeros((50, 2), np.float32)}, ["rewards"]),
}


@pytest.mark.parametrize("name", DATA)
def test_malformed_data(name: str, folder: Path, capsys, monkeypatch) -> None:
    changes, words = DATA[name]
    source = d4rl_file(folder / "data.hdf5", **changes)
    status, error = call(capsys, monkeypatch, "train", write_config(folder, run_values(source, "sac")), "--out", "run")
    assert status == 2
    assert error.count("\n") == 1, error
    assert all(word in error for word in ["error:", *words]), error
    assert not (folder / "run").exists()


def test_truncated_hdf5(folder: Path, capsys, monkeypatch) -> None:
    path = Path(d4rl_file(folder / "data.hdf5", rows=5000))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    config = write_config(folder, run_values(str(path), "sac"))
    status, error = call(capsys, monkeypatch, "train", config, "--out", "run")
    assert status == 2
    assert error.count("\n") == 1
    assert "data.hdf5" in error
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["learner.detla=0.3"], ["learner.detla", "did you mean 'delta'"]),
        (["trainning.steps=5"], ["trainning", "did you mean 'training'"]),
        (["learner.name=dr_sca"], ["dr_sca", "'dr_sac'"]),
        (["learner.delta=-1"], ["learner.delta", "greater than or equal to 0", "-1"]),
        (["learner.hidden=wide"], ["learner.hidden", "wide"]),
        (["model=null"], ["nominal model"]),
        (["training.device=tpu"], ["training.device", "tpu"]),
        (["learner.delta"], ["KEY=VALUE"]),
        (["dataset=pendulum-td4"], ["pendulum-td4", "pendulum-td3"]),
        (["dataset=nowhere/hopper-v0"], ["nowhere/hopper-v0"]),
    ],
)
def test_bad_configuration(overrides, words, folder: Path, capsys, monkeypatch) -> None:
    options = [part for text in overrides for part in ("--set", text)]
    status, error = call(capsys, monkeypatch, "train", "dr_sac/pendulum", *options, "--out", "run")
    assert status == 2
    assert error.count("\n") == 1, error
    assert all(word in error for word in words), error
    assert not (folder / "run").exists()


def test_unknown_config_file_offers_the_bundled_ones(folder: Path, capsys, monkeypatch) -> None:
    status, error = call(capsys, monkeypatch, "train", "dr_sac/pendulm")
    assert status == 2
    assert "'dr_sac/pendulum'" in error


class Harmful:
    """Unpickling this would leave a file behind."""

    def __reduce__(self):
        return (open, ("unpickled", "w"))


@pytest.fixture
def cut_run(folder: Path):
    """A run that was stopped after its checkpoint, and its arguments."""
    values = run_values(saved(line_dataset(), folder), "dr_sac")

    def stop(phase: str, step: int, total: int, rate: float) -> None:
        if step >= 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(values, out=folder / "run", progress=stop)
    return write_config(folder, values), folder / "run" / "checkpoints" / "last.safetensors"


def resume(cut, capsys, monkeypatch) -> tuple[int, str]:
    return call(capsys, monkeypatch, "train", cut[0], "--out", "run", "--resume", "--quiet")


def test_pickle_in_place_of_a_checkpoint(cut_run, folder: Path, capsys, monkeypatch) -> None:
    cut_run[1].write_bytes(pickle.dumps(Harmful()))
    status, error = resume(cut_run, capsys, monkeypatch)
    assert (status, error.count("\n")) == (2, 1), error
    assert "never loaded" in error
    assert not (folder / "unpickled").exists()


@pytest.mark.parametrize("damage", ["cut", "flipped header", "empty"])
def test_damaged_checkpoint(damage: str, cut_run, folder: Path, capsys, monkeypatch) -> None:
    content = cut_run[1].read_bytes()
    broken = {"cut": content[:-100], "flipped header": content[:40] + b"\xff" + content[41:], "empty": b""}[damage]
    cut_run[1].write_bytes(broken)
    before = (folder / "run" / "metrics.jsonl").read_bytes()
    status, error = resume(cut_run, capsys, monkeypatch)
    assert (status, error.count("\n")) == (2, 1), error
    assert (folder / "run" / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [("env_id", "Hopper-v5", "environment"), ("dataset", "0" * 64, "dataset"), ("step", 10**6, "step")],
)
def test_checkpoint_of_another_run(key: str, value, word: str, cut_run, capsys, monkeypatch) -> None:
    state = load_checkpoint(cut_run[1])
    save_checkpoint(cut_run[1], state | {key: value})
    status, error = resume(cut_run, capsys, monkeypatch)
    assert (status, error.count("\n")) == (2, 1), error
    assert word in error


def test_checkpoint_with_tensors_of_another_shape(cut_run, capsys, monkeypatch) -> None:
    state = load_checkpoint(cut_run[1])
    name = next(key for key in state["learner"]["actor"] if key.endswith("weight"))
    state["learner"]["actor"][name] = state["learner"]["actor"][name][:, :1].repeat(1, 3)
    save_checkpoint(cut_run[1], state)
    status, error = resume(cut_run, capsys, monkeypatch)
    assert (status, error.count("\n")) == (2, 1), error
    assert name in error
    assert "(16, 3)" in error


def test_checkpoint_with_optimiser_slots_of_another_shape(cut_run, capsys, monkeypatch) -> None:
    state = load_checkpoint(cut_run[1])
    slot = state["learner"]["optimiser"]["state"][0]
    slot["exp_avg"] = slot["exp_avg"].flatten()[:2].clone()
    save_checkpoint(cut_run[1], state)
    status, error = resume(cut_run, capsys, monkeypatch)
    assert (status, error.count("\n")) == (2, 1), error
    assert "exp_avg" in error


def test_resuming_with_other_settings_is_refused(cut_run, capsys, monkeypatch) -> None:
    config, _ = cut_run
    status, error = call(
        capsys, monkeypatch, "train", config, "--set", "learner.delta=2", "--out", "run", "--resume", "--quiet"
    )
    assert status == 2
    assert "learner" in error


def test_an_existing_run_is_never_overwritten(cut_run, capsys, monkeypatch) -> None:
    status, error = call(capsys, monkeypatch, "train", cut_run[0], "--out", "run")
    assert status == 2
    assert "--resume" in error


def test_pickle_in_place_of_a_policy(folder: Path, capsys, monkeypatch) -> None:
    run = train(run_values(saved(line_dataset(), folder), "sac"), out=folder / "run")
    (run.folder / "policy.safetensors").write_bytes(pickle.dumps(Harmful()))
    status, error = call(capsys, monkeypatch, "evaluate", "run", "--env", "Pendulum-v1", "--episodes", "1")
    assert (status, error.count("\n")) == (2, 1), error
    assert not (folder / "unpickled").exists()
    assert not (run.folder / "results.csv").exists()


def test_policy_of_another_environment(folder: Path, capsys, monkeypatch) -> None:
    values = run_values(saved(line_dataset(), folder), "sac")
    with pytest.raises(ConfigError, match="observations of 1 numbers and Pendulum-v1 gives 3"):
        train(values | {"env": "Pendulum-v1"}, out=folder / "refused")
    assert not (folder / "refused").exists()
    train(values, out=folder / "run")
    status, error = call(capsys, monkeypatch, "evaluate", "run", "--env", "Pendulum-v1", "--episodes", "1")
    assert (status, error.count("\n")) == (2, 1), error
    assert not (folder / "run" / "results.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "pendulum-lenght"], ["pendulum-length"]),
        (["--perturb", "lenght=0.5:1.5:3"], ["lenght", "length"]),
        (["--perturb", "mass=-1,1"], ["mass", "-1"]),
        (["--perturb", "length=0.5:1.5"], ["length"]),
        (["--suite", "pendulum-length", "--perturb", "mass=1"], ["not both"]),
    ],
)
def test_bad_perturbations(arguments, words, folder: Path, capsys, monkeypatch) -> None:
    train(run_values("pendulum-td3", "sac", steps=1), out=folder / "run")
    status, error = call(capsys, monkeypatch, "evaluate", "run", "--episodes", "1", *arguments)
    assert (status, error.count("\n")) == (2, 1), error
    assert all(word in error for word in words), error


def test_a_folder_that_is_no_run(folder: Path, capsys, monkeypatch) -> None:
    (folder / "x").mkdir()
    for command in ("evaluate", "compare", "report"):
        status, error = call(capsys, monkeypatch, command, "x")
        assert (status, error.count("\n")) == (2, 1), error


def test_json_output_is_json(folder: Path, capsys, monkeypatch) -> None:
    config = write_config(folder, run_values(saved(line_dataset(), folder), "sac"))
    monkeypatch.setattr(sys, "argv", ["offline-robust", "train", config, "--out", "run", "--json"])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert not leaving.value.code
    assert json.loads(capsys.readouterr().out)["meta"]["learner"] == "sac"


USAGE = {
    "number below its range": (["train", "sac/pendulum", "--seed", "-1"], "--seed"),
    "not a number": (["train", "sac/pendulum", "--seed", "abc"], "--seed"),
    "missing argument": (["train"], "Missing argument"),
    "unknown option": (["train", "sac/pendulum", "--nope"], "--nope"),
    "unknown command": (["nope"], "nope"),
    "unknown command below data": (["data", "nope"], "nope"),
    "name too long": (["train", "A" * 5000], "too long"),
    "folder's name too long": (["evaluate", "A" * 5000], "too long"),
    "escape sequences": (["train", "\x1b[31mred\x1b]0;title\x07"], "red"),
    "not a regular file": (["train", "/dev/zero"], "/dev/zero"),
}


@pytest.mark.parametrize("name", USAGE)
def test_wrong_arguments_are_one_line(name: str, capsys, monkeypatch, folder: Path) -> None:
    arguments, word = USAGE[name]
    status, error = call(capsys, monkeypatch, *arguments)
    assert (status, error.count("\n")) == (2, 1), error
    assert word in error
    assert len(error) < 600
    assert error.strip().isprintable()
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"), [([], (0, 2)), (["data"], (0, 2)), (["--help"], (0,)), (["train", "--help"], (0,))]
)
def test_no_command_and_help_print_the_help(arguments, expected, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["offline-robust", *arguments])
    with pytest.raises(SystemExit) as leaving:
        main()
    printed = capsys.readouterr()
    assert int(leaving.value.code or 0) in expected  # Typer before click 8.2 leaves with 0
    assert not printed.err
    assert "Usage" in printed.out


@pytest.mark.parametrize("stop", [typer.Abort, KeyboardInterrupt])
def test_a_stop_from_the_keyboard_is_130(stop, capsys, monkeypatch) -> None:
    def stopped(**_: object) -> None:
        raise stop

    monkeypatch.setattr(importlib.import_module("offline_robust.cli.commands"), "app", stopped)
    status, error = call(capsys, monkeypatch)
    assert (status, error.count("\n")) == (130, 1)
