"""Containers often have neither HOME nor an account for their user: everything works there, only without a cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from toys import run_values

from offline_robust.cli.doctor import examine
from offline_robust.datasets import load_dataset
from offline_robust.datasets.sources import cache_root, made_folder, minari_ids, minari_root
from offline_robust.errors import ConfigError, DatasetNotFound, UserError
from offline_robust.files import expanded, home, writable_home
from offline_robust.sweeps.grids import known_environment

ACCOUNTLESS = """
import os, pwd, sys
def unknown(uid):  # as for a user id that is in no password file; a test cannot count on the right to become one
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
assert os.path.expanduser("~") == os.environ.get("HOME", "~")
from offline_robust.cli import main
for command in sys.argv[1:]:
    sys.argv[1:] = command.split()
    try:
        main()
    except SystemExit as leaving:
        assert not leaving.code, command
"""
NAMES = ("HOME", "XDG_", "MPL", "WANDB_", "OFFLINE_ROBUST_CACHE", "MINARI_DATASETS_PATH", "LOGNAME", "USER")


def run(folder: Path, *commands: str, home: str | None = None) -> subprocess.CompletedProcess[str]:
    """Commands in a process that has no home, or the one that is given."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(NAMES)}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(folder / "tmp")}
    environment |= {} if home is None else {"HOME": home}
    (folder / "tmp").mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", ACCOUNTLESS, *commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("home", [None, "/proc/no-home"])
def test_from_data_to_a_report(home: str | None, tmp_path: Path) -> None:
    values = run_values("pendulum-td3", "sac", steps=1)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values | {"wandb": {"mode": "offline"}}))
    done = run(tmp_path, "train config.yaml --out run", "evaluate run --episodes 1", home=home)
    assert done.returncode == 0, done.stderr
    assert "Weights & Biases" not in done.stderr
    assert "Matplotlib" not in done.stderr
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert (tmp_path / "run" / "report.html").is_file()
    assert not list((tmp_path / "tmp").glob("matplotlib-*"))  # nothing is left behind
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "run", "tmp"}  # and no folder called ~


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import pwd

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in list(os.environ):
        if name.startswith(NAMES):
            monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    known_environment.cache_clear()
    assert home() is None


def say(capsys, monkeypatch, *arguments: str) -> tuple[int, str, str]:
    from offline_robust.cli import main

    monkeypatch.setattr(sys, "argv", ["offline-robust", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        main()
    printed = capsys.readouterr()
    return int(leaving.value.code or 0), printed.out, printed.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["doctor"],
        ["data", "list"],
        ["data", "info", "pendulum-td3"],
        ["data", "check", "pendulum-td3"],
        ["data", "convert", "pendulum-td3", "x.npz"],
        ["compare", "--dataset", "pendulum-td3", "--learners", "sac", "--dry-run"],
    ],
    ids=" ".join,
)
def test_commands_work(arguments: list[str], homeless: None, capsys, monkeypatch) -> None:
    status, printed, errors = say(capsys, monkeypatch, *arguments)
    assert status == 0, errors
    assert printed
    assert not errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data", "info", "hopper-medium"], "OFFLINE_ROBUST_CACHE"),
        (["data", "collect", "hopper-medium"], "OFFLINE_ROBUST_CACHE"),
        (["data", "info", "mujoco/nowhere-v0"], "no home directory"),
        (["data", "info", "~/x.npz"], "no home directory is known for ~;"),
        (["train", "sac/pendulum", "--set", "dataset=~/x.npz"], "no home directory is known for ~;"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_what_needs_a_home_says_so_in_one_line(
    arguments: list[str], said: str, homeless: None, tmp_path: Path, capsys, monkeypatch
) -> None:
    status, _, errors = say(capsys, monkeypatch, *arguments)
    assert status == 2
    assert errors.count("\n") == 1, errors
    assert said in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "info"],
        ["data", "check"],
        ["data", "convert", "{}", "x.npz"],
        ["train", "sac/pendulum", "--set", "dataset={}"],
        ["compare", "--learners", "sac", "--dataset"],
        ["evaluate"],
        ["train"],
        ["sweep"],
        ["report"],
        ["data", "collect", "--env", "Pendulum-v1", "--out", "x", "--policy"],
    ],
    ids=" ".join,
)
def test_a_user_that_there_is_not_is_one_line(arguments: list[str], tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = "~nosuchuser/x.npz"
    named = [argument.replace("{}", path) for argument in arguments]
    status, _, errors = say(capsys, monkeypatch, *named, *([] if path in " ".join(named) else [path]))
    assert status == 2
    assert errors.count("\n") == 1, errors
    assert "~nosuchuser" in errors
    assert not list(tmp_path.iterdir())


def test_roots_without_a_home(homeless: None) -> None:
    assert (cache_root(), minari_root(), writable_home(), minari_ids()) == (None, None, None, [])
    assert made_folder("hopper-medium") is None
    assert examine()["data"]["cache"] == "none: there is no home directory"
    assert load_dataset("pendulum-td3").fingerprint
    assert json.dumps(examine())


def test_roots_that_are_named_need_no_home(homeless: None, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("OFFLINE_ROBUST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    assert (cache_root(), minari_root()) == (tmp_path / "cache", tmp_path / "minari")
    load_dataset("pendulum-td3")
    assert list((tmp_path / "cache").glob("*.safetensors"))


def test_a_path_that_exists_as_written_needs_no_user(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    Path("~nosuchuser").mkdir()
    assert expanded("~nosuchuser") == Path("~nosuchuser")
    assert expanded("~/x") == tmp_path / "home" / "x"
    assert expanded("x/~") == Path("x/~")
    shutil.rmtree("~nosuchuser")
    for error in (DatasetNotFound, ConfigError):
        with pytest.raises(error, match="no home directory is known for ~nosuchuser"):
            expanded("~nosuchuser/x", error)
    with pytest.raises(UserError):
        expanded("~nosuchuser")
