"""A file or folder that is replaced is the old one or the new one, whatever stops the process and wherever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from offline_robust import files
from offline_robust.files import recover, remove_leftovers, replacing, write_text

EVERYWHERE = """
import itertools, os, sys
from pathlib import Path
from offline_robust import files
from offline_robust.files import recover, remove_temporaries, replacing

how, exchange, root = sys.argv[1], sys.argv[2] == "exchange", Path(sys.argv[3])
if not exchange:
    files._exchange = lambda one, other: False
os.fsync = lambda descriptor: None
import filelock  # a fork each: it need not be imported in all of them


def replace(target, word):
    with replacing(target) as aside:
        aside.mkdir()
        (aside / "one").write_text(word)
        (aside / "two").write_text(word)


def stop_at(line):
    def trace(frame, event, argument):
        nonlocal line
        if frame.f_code.co_filename != files.__file__:
            return None
        if event == "line":
            line -= 1
            if line < 0:
                if how == "kill":
                    os._exit(9)
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)


def attempt(target, line):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        stop_at(line)
        replace(target, "new")
        sys.settrace(None)
    except KeyboardInterrupt:
        remove_temporaries()
        os._exit(9)
    os._exit(0)


seen = set()
for line in itertools.count():
    folder = root / str(line)
    target = folder / "data"
    replace(target, "old")
    status = attempt(target, line)
    recover(target)
    words = {(target / name).read_text() for name in ("one", "two")}
    assert len(words) == 1, (line, words)
    seen |= words
    if how == "interrupt":
        assert not list(folder.glob(".*")), (line, list(folder.glob(".*")))
    files._tidied.clear()
    replace(target, "again")
    assert [path.name for path in folder.iterdir()] == ["data"], (line, list(folder.iterdir()))
    if status == 0:
        break
    assert status == 9, status
assert seen == {"old", "new"}
print(line)
"""


@pytest.mark.parametrize("means", ["exchange", "two renames"])
@pytest.mark.parametrize("how", ["kill", "interrupt"])
def test_a_process_stopped_at_any_line_leaves_one_whole_folder(how: str, means: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EVERYWHERE, how, means, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30, "it was stopped at too few places to tell"


def test_what_appears_meanwhile_is_not_overwritten_unasked(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()

    def race(name: str, mine: str, theirs: str) -> None:
        with replacing(tmp_path / name, overwrite=False) as aside:
            for file, word in ((aside / mine, "mine"), (tmp_path / name / theirs, "theirs")):
                file.parent.mkdir(exist_ok=True)
                file.write_text(word)

    for name, mine, theirs in (("file", "", ""), ("folder", "mine", "theirs")):
        with pytest.raises(FileExistsError, match=name):
            race(name, mine, theirs)
    assert (tmp_path / "file").read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "theirs"]


def test_a_folder_set_aside_by_a_kill_is_found_again_and_an_old_one_does_not_win(tmp_path: Path) -> None:
    (tmp_path / ".old-orl-data").mkdir()
    recover(tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    (tmp_path / ".old-orl-data").mkdir()
    (tmp_path / "data" / "new").write_text("")
    recover(tmp_path / "data")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "new"]


class TestTemporaries:
    """Only those of this library go, only where it writes, and only when nobody writes into them any more."""

    @pytest.fixture(autouse=True)
    def _unseen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "_tidied", set())

    def test_those_of_the_dead_are_removed_where_something_is_written(self, tmp_path: Path) -> None:
        left = "with replacing(sys.argv[1]) as aside: aside.write_text('half'); os._exit(9)"
        code = f"import os, sys; from offline_robust.files import replacing\n{left}"
        assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=False).returncode == 9
        assert len(list(tmp_path.glob(".tmp-orl-*"))) == 1
        write_text(tmp_path / "b", "")
        assert [path.name for path in tmp_path.iterdir()] == ["b"]

    def test_those_of_the_living_stay(self, tmp_path: Path) -> None:
        with replacing(tmp_path / "a") as aside:
            aside.write_text("half")
            remove_leftovers(tmp_path)
            assert aside.read_text() == "half"

    def test_what_is_not_ours_stays(self, tmp_path: Path) -> None:
        mine = [".tmp-mine", ".tmp-a-b1c2d3e4", ".tmp-orl-short", ".tmp", "below/.tmp-orl-0123456789abcdef"]
        for name in mine:
            (tmp_path / name).mkdir(parents=True)
        (tmp_path / ".tmp-orl-0000000000000000").write_text("a file")
        os.symlink(tmp_path / "below", tmp_path / ".tmp-orl-0000000000000001")
        write_text(tmp_path / "b", "")
        assert all((tmp_path / name).is_dir() for name in mine)
        assert (tmp_path / ".tmp-orl-0000000000000000").read_text() == "a file"
        assert (tmp_path / ".tmp-orl-0000000000000001").is_symlink()

    def test_those_of_a_kill_without_locks_go_after_a_day(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(files, "_lock_folder", lambda path: None)
        for name, age in (("0" * 16, 1e5), ("1" * 16, 10.0)):
            (tmp_path / f".tmp-orl-{name}").mkdir()
            os.utime(tmp_path / f".tmp-orl-{name}", (0, 0) if age > 8.64e4 else None)
        remove_leftovers(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [".tmp-orl-" + "1" * 16]
