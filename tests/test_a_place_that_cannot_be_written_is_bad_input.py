"""A file in the way of --out, and folders without the right to write, are one line and status 2 from every command."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from toys import line_dataset, run_values, saved

from offline_robust.cli import main
from offline_robust.environment import EnvironmentSpec
from offline_robust.evaluation import evaluate
from offline_robust.experiments import train
from offline_robust.experiments.reporting import save_report
from offline_robust.networks import Policy, PolicySpec

RANDOM = ["data", "collect", "--policy", "random", "--env", "Pendulum-v1", "--transitions", "5"]
COMMANDS = {
    "train": ["train", "config.yaml", "--out"],
    "evaluate": ["evaluate", "policy.safetensors", "--episodes", "1", "--out"],
    "compare": ["compare", "policy.safetensors", "--episodes", "1", "--out"],
    "compare learners": ["compare", "--dataset", "data.npz", "--learners", "sac", "--steps", "2", "--out"],
    "sweep": ["sweep", "sweep.yaml", "--out"],
    "sweep file": ["sweep", "sweep.yaml", "--wandb-file"],
    "report": ["report"],
    "collect": [*RANDOM, "--out"],
    "convert to npz": ["data", "convert", "data.npz", "--overwrite", "--to", "npz"],
    "convert to d4rl": ["data", "convert", "data.npz", "--overwrite", "--to", "d4rl"],
    "convert to minari": ["data", "convert", "data.npz", "--overwrite", "--to", "minari"],
}
"""What a command writes to is its last argument."""
TAKES_A_FILE = ("sweep file", "convert to npz", "convert to d4rl")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    values = run_values(saved(line_dataset(), folder), "sac", steps=2)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"base": values, "seeds": 1}))
    policy = Policy(PolicySpec("deterministic", 3, (-2.0,), (2.0,), (8,), EnvironmentSpec("Pendulum-v1")))
    policy.save(folder / "policy.safetensors")
    run = train(values, out=folder / "run")
    save_report(folder / "run", evaluate(policy, "Pendulum-v1", episodes=1, max_steps=2), [run], "command")
    return folder


@pytest.fixture
def here(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["offline-robust", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        main()
    error = capsys.readouterr().err
    told = [line for line in error.splitlines() if not line.startswith("warning:")]
    assert leaving.value.code == 2, (leaving.value.code, error)
    assert len(told) == 1, error
    assert told[0].startswith("error: ")
    return told[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_in_the_way(name: str, here: Path, monkeypatch, capsys) -> None:
    Path("file").write_text("mine")
    places = ["file/below"] if name in TAKES_A_FILE else ["file", "file/below", "file/far/below"]
    for place in places:
        assert "file" in refused(monkeypatch, capsys, [*COMMANDS[name], place])
    assert Path("file").read_text() == "mine"
    assert not list(here.rglob(".tmp-*"))


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_folders_without_the_right_to_write(name: str, code: int, here: Path, monkeypatch, capsys) -> None:
    """For the system's administrator no folder is read-only: what the system would say is said here."""
    closed = here / "closed"
    if name == "report":
        shutil.copytree(here / "run", closed)
    else:
        closed.mkdir()
    real = {call: getattr(os, call) for call in ("mkdir", "open")}

    def guarded(call: str):
        def refuse(path, *arguments, **named):
            writes = call == "mkdir" or (arguments and arguments[0] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            if writes and isinstance(path, str | os.PathLike) and Path(os.path.abspath(path)).is_relative_to(closed):
                raise OSError(code, os.strerror(code), str(path))
            return real[call](path, *arguments, **named)

        return refuse

    for call in real:
        monkeypatch.setattr(os, call, guarded(call))
    place = "closed" if name == "report" else "closed/new"
    assert "closed" in refused(monkeypatch, capsys, [*COMMANDS[name], place])
