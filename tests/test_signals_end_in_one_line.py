"""Ctrl-C and SIGTERM, whenever they come: one line, 130 or 143, what is done is kept, nothing half-done is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from sweep_toys import base, write_sweep

COMMAND = [sys.executable, "-c", "from offline_robust.cli import main; main()"]
FOR_EVER = base(steps=10_000_000, log_every=20, checkpoint_every=20)
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def start(*arguments: str, program: list[str] = COMMAND) -> subprocess.Popen[str]:
    return subprocess.Popen([*program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 100
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()


@pytest.mark.parametrize(
    ("number", "seconds"), [(signal.SIGINT, 0.2), (signal.SIGINT, 0.8), (signal.SIGTERM, 0.5), (signal.SIGTERM, None)]
)
def test_a_training_is_stopped(number: signal.Signals, seconds: float | None, tmp_path: Path) -> None:
    """While it imports, so and so many seconds after its start, or while it trains."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(FOR_EVER))
    out = tmp_path / "out"
    process = start("train", str(tmp_path / "config.yaml"), "--out", str(out))
    if seconds is None:
        wait_for((out / "checkpoints" / "last.safetensors").exists, process)
    else:
        time.sleep(seconds)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == STATUS[number], errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1, errors
    assert "--resume" in errors
    assert not list(tmp_path.rglob(".*"))
    assert (out / "checkpoints" / "last.safetensors").exists() == (seconds is None)


def test_a_sweep_is_stopped_with_its_runs_and_says_so_in_its_index(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, base=FOR_EVER)
    out = tmp_path / "out"
    process = start("sweep", str(path), "--out", str(out), "--jobs", "2", "--quiet")
    wait_for(lambda: len(list(out.glob("runs/*/checkpoints/last.safetensors"))) == 2, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.count("\n")) == (143, 1), errors
    assert {cell["state"] for cell in json.loads((out / "cells.json").read_text())["cells"]} == {"begun"}
    logs = [log.read_text() for log in out.glob("runs/*/log.txt")]
    assert all("ended by SIGTERM" in log and "Traceback" not in log for log in logs), logs
    for log in logs:
        with pytest.raises(ProcessLookupError):
            os.kill(int(re.findall(r"process (\d+)", log)[-1]), 0)
    assert not list(out.rglob(".*"))


LIGHT = """
import signal, sys, time
from pathlib import Path
from offline_robust.files import replacing
from offline_robust.locks import writing
from offline_robust.stopping import Stopped, heard
try:
    with heard(), writing(sys.argv[1]), replacing(Path(sys.argv[1]) / "file") as aside:
        aside.write_text("half")
        try:
            print("ready", flush=True)
            time.sleep(100)
        finally:
            print("tidying", flush=True)
            {tidy}
except Stopped as stopped:
    sys.exit(stopped.status)
"""


def light(tidy: str, tmp_path: Path) -> subprocess.Popen[str]:
    process = start(str(tmp_path / "out"), program=[sys.executable, "-c", LIGHT.format(tidy=tidy)])
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_second_signal_ends_it_at_once_and_leaves_nothing_either(tmp_path: Path) -> None:
    process = light("time.sleep(100)", tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "tidying\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.count("\n")) == (130, 1)
    assert not (tmp_path / "out").exists()


def test_a_signal_that_was_to_be_ignored_is(tmp_path: Path) -> None:
    """As of programs that a shell starts in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    hanging_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup pytest` ignores
    try:
        process = light("pass", tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGHUP, hanging_up)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=30)
    assert process.returncode == 129


def test_a_command_changes_no_handler_for_good() -> None:
    from offline_robust.stopping import heard

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with heard():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
