"""A run folder from somebody else is read and written inside itself: no link out of it, no pipe, no device."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from pathlib import Path

import pytest
import yaml
from toys import line_dataset, run_values, saved

from offline_robust.cli import main
from offline_robust.datasets import load_dataset
from offline_robust.environment import EnvironmentSpec
from offline_robust.errors import CheckpointError, DatasetError, EvaluationError, UserError
from offline_robust.evaluation import evaluate
from offline_robust.evaluation.results import Results
from offline_robust.experiments import load_run, train
from offline_robust.experiments.config import load_config
from offline_robust.experiments.reporting import rewrite_report, save_report
from offline_robust.networks import Policy, PolicySpec, load_policy
from offline_robust.plain_yaml import read_yaml
from offline_robust.untrusted import Unreadable, open_regular, within

SECRET = "root:x:0:0:secret"
FILES = (
    "config.yaml",
    "meta.json",
    "model.json",
    "metrics.jsonl",
    "policy.safetensors",
    "results.csv",
    "results.meta.json",
    "checkpoints/last.safetensors",
)
SECONDS = 20.0


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of Pendulum, evaluated."""
    folder = tmp_path_factory.mktemp("sound")
    run = train(run_values(saved(line_dataset(), folder), "sac", steps=10), out=folder / "run")
    policy = Policy(PolicySpec("deterministic", 3, (-2.0,), (2.0,), (8,), EnvironmentSpec("Pendulum-v1")))
    results = evaluate(policy, "Pendulum-v1", episodes=1, max_steps=3, run="run", learner="sac")
    save_report(folder / "run", results, [run], "command")
    (folder / "run" / "model.json").write_text("{}")
    return folder / "run"


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "run"))


def in_time(action, *arguments):
    """What an action comes to, its exception too; it must not wait for ever."""
    found: list[object] = []

    def call() -> None:
        try:
            found.append(action(*arguments))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert found, "it waits for ever"
    return found[0]


def put(path: Path, how: str, outside: Path) -> None:
    """Something else in the place of a file."""
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    elif how == "device":
        path.symlink_to("/dev/zero")
    elif how == "elsewhere":
        outside.write_text(SECRET)
        path.symlink_to(outside)
    else:
        path.symlink_to(path.name)


def use(folder: Path) -> list[object]:
    """Everything that reads a run folder; what each comes to."""
    readers = (
        lambda: load_run(folder).policy,
        lambda: load_run(folder).metrics,
        lambda: rewrite_report(folder),
        lambda: train(load_config(folder / "config.yaml"), out=folder, resume=True),
    )
    return [in_time(reader) for reader in readers]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["elsewhere", "device", "pipe", "loop"])
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_of_the_folder_is_not_read(name: str, how: str, run: Path, tmp_path: Path) -> None:
    if name.startswith("checkpoints"):
        (run / "policy.safetensors").unlink()
    put(run / name, how, tmp_path / "outside")
    for found in use(run):
        if isinstance(found, Exception):
            assert isinstance(found, UserError), found
            assert SECRET not in str(found)
    for path in run.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert SECRET not in path.read_text(errors="replace"), path
    if how == "elsewhere":
        assert (tmp_path / "outside").read_text() == SECRET


@pytest.mark.parametrize("name", ["figures", "tables", "cells", "checkpoints"])
def test_nothing_is_written_through_a_link(name: str, run: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).symlink_to(outside)
    command = {"checkpoints": ["train", str(run / "config.yaml"), "--out", str(run), "--resume"]}
    command |= {"cells": ["evaluate", str(run), "--env", "Pendulum-v1", "--episodes", "1"]}
    if name == "checkpoints":
        (run / "policy.safetensors").unlink()
    monkeypatch.setattr(sys, "argv", ["offline-robust", *command.get(name, ["report", str(run)])])
    with pytest.raises(SystemExit) as leaving:
        main()
    error = capsys.readouterr().err
    assert (leaving.value.code, error.count("error:")) == (2, 1), error
    assert "out of its folder" in error
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", [".lock", "runs/base-seed0", "runs/base-seed0/log.txt", "runs/base-seed0/.lock"])
def test_a_sweep_adds_to_no_file_elsewhere(name: str, sound: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    values = yaml.safe_load((sound / "config.yaml").read_text())
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"base": values, "seeds": 1}))
    outside = tmp_path / "outside"
    path = tmp_path / "sweep" / name
    path.parent.mkdir(parents=True)
    path.symlink_to(outside)
    monkeypatch.setattr(
        sys, "argv", ["offline-robust", "sweep", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "sweep")]
    )
    with pytest.raises(SystemExit) as leaving:
        main()
    error = capsys.readouterr().err
    assert (leaving.value.code, error.count("error:")) == (2, 1), error
    # A lock that is a link is refused by who takes the lock.
    assert "out of its folder" in error or (name.endswith(".lock") and "cannot be" in error)
    assert not outside.exists()


def test_a_folder_that_is_a_link_is_an_ordinary_one(run: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run)
    assert load_run(tmp_path / "link").policy.spec.action_dim == 1
    assert rewrite_report(tmp_path / "link").is_file()
    (run / "real.json").write_text((run / "meta.json").read_text())
    (run / "meta.json").unlink()
    (run / "meta.json").symlink_to("real.json")  # inside itself
    assert load_run(run).meta["label"] == "sac"


def test_a_report_takes_no_run_from_elsewhere_that_it_did_not_know(run: Path, tmp_path: Path) -> None:
    """results.meta.json names run folders; another's must not put their configuration into a page to be passed on."""
    private = Path(shutil.copytree(run, tmp_path / "private"))
    (run / "meta.json").unlink()  # a comparison's folder, not a run's own
    (private / "config.yaml").write_text(f"dataset: {SECRET!r}\n")
    meta = json.loads((run / "results.meta.json").read_text())
    for digests in ([], ["0" * 64], "x", None):
        meta["page"] |= {"runs": [str(private)], "digests": digests}
        (run / "results.meta.json").write_text(json.dumps(meta))
        with pytest.warns(UserWarning, match="lies outside"):
            rewrite_report(run)
        assert SECRET not in (run / "report.html").read_text()
    rewrite_report(run, outside=True)
    assert SECRET in (run / "report.html").read_text()


def test_a_comparison_of_ones_own_is_written_again_whole(run: Path, tmp_path: Path, recwarn) -> None:
    opened = load_run(run)
    results = Results.read(run / "results.csv")
    save_report(tmp_path / "comparison", results, [opened], "command")
    page = (tmp_path / "comparison" / "report.html").read_text()
    rewrite_report(tmp_path / "comparison")
    assert (tmp_path / "comparison" / "report.html").read_text() == page
    assert "Configuration of run" in page
    assert not [warning for warning in recwarn if "lies outside" in str(warning.message)]


@pytest.mark.parametrize("how", ["pipe", "device"])
def test_files_that_are_named_are_files(how: str, tmp_path: Path) -> None:
    for name, reader, error in (
        ("x.hdf5", load_dataset, DatasetError),
        ("x.npz", load_dataset, DatasetError),
        ("x.yaml", lambda path: read_yaml(path, "a", 100, EvaluationError), EvaluationError),
        ("x.csv", Results.read, EvaluationError),
        ("x.safetensors", load_policy, CheckpointError),
        ("x.json", open_regular, Unreadable),
    ):
        path = tmp_path / name
        path.touch()
        put(path, how, tmp_path / "outside")
        found = in_time(reader, path)
        assert isinstance(found, error), (name, found)


def test_paths_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run-2").mkdir()
    (tmp_path / "run" / "a").symlink_to("../run-2")  # its name begins like the folder's own
    assert within(tmp_path / "run", "missing/file") == tmp_path / "run" / "missing" / "file"
    assert within(tmp_path / "not-there", "file") == tmp_path / "not-there" / "file"
    for name in ("a", "a/b", "../run-2"):
        with pytest.raises(Unreadable, match="out of its folder"):
            within(tmp_path / "run", name)
