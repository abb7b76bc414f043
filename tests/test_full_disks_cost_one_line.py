"""A file that finds no room costs one line that names it and status 1; whatever is there is whole.

A limit on the size of files stands for a full disk: writing fails at the same calls, with another number.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweep_toys import base, write_sweep

from offline_robust.experiments.checkpoints import load_checkpoint
from offline_robust.experiments.metrics import MetricsFile, read_metrics

CALLS = """
import io, json, resource, sys
from contextlib import redirect_stderr, redirect_stdout
from rich.console import Console
from offline_robust.cli import commands, evaluate, main, sweep

hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for limit, arguments in json.load(open(sys.argv[1])):
    said = io.StringIO()
    for module in (commands, sweep):
        module._err = Console(file=said, width=10_000)
    sys.argv = ["offline-robust", *arguments, "--quiet"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit or hard, hard))
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(said):
            main()
    except SystemExit as leaving:
        status = leaving.code
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    print(json.dumps([status, said.getvalue()]), flush=True)
"""


def limited(folder: Path, *calls: tuple[int, list[str]]) -> list[tuple[int, str]]:
    """Status and errors of commands, each with files of at most so many bytes (0: any); in one process of their own."""
    (folder / "calls.json").write_text(json.dumps(calls))
    command = [sys.executable, "-c", CALLS, str(folder / "calls.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return [(status, errors) for status, errors in map(json.loads, done.stdout.splitlines())]


def check(answers: list[tuple[int, str]], names: list[str]) -> None:
    for (status, errors), name in zip(answers, names, strict=True):
        # A cache that finds no room is a warning: loading works without.
        lines = [line for line in errors.splitlines() if not line.startswith("warning: ")]
        assert (status, len(lines)) == (1, 1), errors
        assert f"{name}: File too large" in lines[0], errors


def whole(folder: Path, *limits: int) -> None:
    """Nothing hidden is left, and no file ends where its room did."""
    assert not list(folder.rglob(".*"))
    cut = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size in limits]
    assert not cut


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration, a sweep, its suite, and a run."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "config.yaml").write_text(yaml.safe_dump(base()))
    write_sweep(folder)
    answers = limited(folder, (0, ["train", str(folder / "config.yaml"), "--out", str(folder / "run")]))
    assert answers == [(0, "")]
    return folder


def test_training_evaluating_comparing_and_reporting(made: Path, tmp_path: Path) -> None:
    run, suite = str(made / "run"), ["--suite", str(made / "suite.yaml"), "--episodes", "2"]
    config = str(made / "config.yaml")
    out = {name: str(tmp_path / name) for name in "abcdefg"}
    answers = limited(
        tmp_path,
        (200, ["train", config, "--out", out["a"]]),
        (1_501, ["train", config, "--out", out["b"]]),
        (101, ["evaluate", run, *suite, "--out", out["c"]]),
        (2_001, ["evaluate", run, *suite, "--out", out["d"]]),
        (20_001, ["evaluate", run, *suite, "--out", out["e"]]),
        (2_001, ["compare", run, *suite, "--out", out["f"]]),
        (150, ["sweep", str(made / "small.yaml"), "--out", out["g"]]),
    )
    names = ["config.yaml", "last.safetensors", ".cell.json", *["report.html"] * 3, "sweep.yaml"]
    check(answers, names)
    whole(tmp_path, 200, 1_501, 101, 2_001, 20_001, 150)
    assert (tmp_path / "e" / "results.csv").exists()


def test_collecting_and_converting(made: Path, tmp_path: Path) -> None:
    collect = ["data", "collect", "--policy", str(made / "run"), "--transitions", "2000", "--out"]
    calls = [(limit, [*collect, str(tmp_path / f"c{limit}")]) for limit in (100, 3_001, 60_000)]
    targets = [f"{limit}{ending}" for limit in (100, 30_001) for ending in (".npz", ".hdf5", "")]
    convert = ["data", "convert", "pendulum-td3"]
    calls += [(int(name.partition(".")[0]), [*convert, str(tmp_path / name)]) for name in targets]
    answers = limited(tmp_path, *calls)
    check(
        answers,
        ["c100/data", "c3001/data", "c60000/data", *[name if "." in name else f"{name}/data" for name in targets]],
    )
    whole(tmp_path, 100, 3_001, 60_000, 30_001)
    assert [path.name for path in tmp_path.iterdir()] == ["calls.json"], "not even a folder"


def test_the_last_checkpoint_and_the_last_report_survive(made: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(base(steps=2_000, log_every=1, checkpoint_every=20)))
    train = ["train", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run"), "--resume"]
    run = str(tmp_path / "run")
    size = (made / "run" / "checkpoints" / "last.safetensors").stat().st_size
    evaluate = ["evaluate", run, "--episodes", "1"]
    answers = limited(
        tmp_path, (size + 1_000, train), (0, train), (0, evaluate), (101, ["evaluate", run, "--episodes", "2"])
    )
    check(answers[:1], ["metrics.jsonl"])
    assert answers[1:3] == [(0, ""), (0, "")]
    check(answers[3:], [".cell.json"])
    whole(tmp_path / "run", size + 1_000)
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors")["step"] == 2_000
    assert [line["step"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl")] == list(range(1, 2_001))
    assert len((tmp_path / "run" / "results.csv").read_text().splitlines()) == 2


def test_a_sweep_names_the_file_of_each_run_that_found_no_room(made: Path, tmp_path: Path) -> None:
    [(status, errors)] = limited(tmp_path, (3_001, ["sweep", str(made / "small.yaml"), "--out", str(tmp_path / "out")]))
    assert status == 1
    for name in ("tau=0.005-seed0", "tau=0.01-seed0"):
        where = tmp_path / "out" / "runs" / name / "checkpoints" / "last.safetensors"
        assert f"failed: {name}: error: {where}: File too large" in errors, errors
    assert "Traceback" not in errors
    whole(tmp_path / "out", 3_001)


def test_a_line_of_metrics_is_written_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.write({"step": 1})

    class Full:
        """A file that has room for three more bytes."""

        def __init__(self, file: Any) -> None:
            self.file = file
            self.tell, self.truncate, self.close = file.tell, file.truncate, file.close

        def write(self, content: bytes) -> int:
            if not content.startswith(b"{"):
                raise OSError(28, "No space left on device")
            return int(self.file.write(content[:3]))

    monkeypatch.setattr(metrics, "_file", Full(metrics._file))
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        metrics.write({"step": 2})
    metrics.close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'
