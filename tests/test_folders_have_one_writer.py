"""Who comes second into a folder is told who writes there; nobody is held up by the dead, and readers by nobody."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweep_toys import base, written_elsewhere

from offline_robust import load_run, train
from offline_robust.errors import FolderInUse, UserError
from offline_robust.experiments.reporting import rewrite_report
from offline_robust.files import write_text
from offline_robust.locks import LOCK, writing

HOLD = "with writing(sys.argv[1]):\n    print('held', flush=True)\n    sys.stdin.read()"


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that writes into ``tmp_path / "run"`` until its standard input ends."""
    code = f"import sys; from offline_robust.locks import writing\n{HOLD}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_told_who_writes_there_since_when(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(FolderInUse) as refused, writing(tmp_path / "run"):
        pass
    said = str(refused.value)
    assert f"process {holder.pid} writes there" in said
    assert re.search(r"since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC", said)
    assert f"(-c {tmp_path / 'run'})" in said, "its command"
    assert "\n" not in said


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run" / LOCK).exists()
    with writing(tmp_path / "run"):
        (tmp_path / "run" / "file").write_text("")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]


def test_who_waits_has_its_turn(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    code = (
        "import sys; from offline_robust.locks import writing\nwith writing(sys.argv[1], wait=True): print('in turn')"
    )
    waiting = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.5)
    holder.communicate("")
    assert waiting.communicate(timeout=30)[0] == "in turn\n"
    assert not (tmp_path / "run" / LOCK).exists()


def test_threads_of_one_process_are_two_writers_and_one_thread_is_one(tmp_path: Path) -> None:
    with writing(tmp_path), writing(tmp_path / "."):
        pass
    with written_elsewhere(tmp_path), pytest.raises(FolderInUse, match="another thread"), writing(tmp_path):
        pass


def test_a_run_can_be_read_while_somebody_writes_and_not_be_written(tmp_path: Path) -> None:
    run = train(base(), out=tmp_path / "run")
    with written_elsewhere(tmp_path / "run"):
        assert load_run(tmp_path / "run").policy.spec == run.policy.spec
        assert train(base(), out=tmp_path / "run", resume=True).metrics == run.metrics, "it is finished: only read"
        (tmp_path / "run" / "results.csv").write_text("")
        with pytest.raises(FolderInUse):
            rewrite_report(tmp_path / "run")
    with written_elsewhere(tmp_path / "other"), pytest.raises(FolderInUse):
        train(base(), out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("content", ["", " {", " []", ' {"pid": [], "host": {}}', " " + "[" * 5000, "\0" * 9])
def test_whatever_a_lock_says_is_told_in_one_line(content: str, tmp_path: Path) -> None:
    with written_elsewhere(tmp_path):
        (tmp_path / LOCK).write_text(content)
        with pytest.raises(FolderInUse, match="another process writes there"), writing(tmp_path):
            pass


def test_a_lock_that_is_a_link_or_a_pipe_is_refused_and_what_it_points_to_stays(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    for make in (lambda path: os.symlink(tmp_path / "precious", path), os.mkfifo, os.mkdir):
        folder = tmp_path / make.__name__
        folder.mkdir()
        make(folder / LOCK)
        with pytest.raises(UserError, match=re.escape(str(folder))), writing(folder):
            pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.symlink(tmp_path / "circle", tmp_path / "circle")
    for place in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "circle"):
        with pytest.raises(UserError, match="cannot be written"), writing(place):
            pass


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no such file system here")
def test_a_place_where_nothing_can_be_made_is_told_and_not_tried_for_ever() -> None:
    with pytest.raises(UserError, match="cannot be written"), writing("/proc/nothing"):
        pass
    with pytest.raises(OSError, match="/proc"):
        write_text("/proc/nothing", "")
