"""The command line prints paths, names and descriptions as they are: no markup, no emoji, nothing for the terminal."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import yaml
from toys import line_dataset, run_values

from offline_robust.cli import main, output
from offline_robust.cli.progress import progress_bar
from offline_robust.cli.sweep import _run_bars
from offline_robust.datasets.writers import write_npz

NAMES = ["ablation[lr]", "a[/b]", "[bold]x[/bold]", "[/]", ":smile:", "\\[x]", "a[link=file:///etc]b", "$x$", "{x}"]
"""What rich would read as something else, or fall over."""


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured streams that count as a terminal without colours, so that bars and spinners are drawn."""
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "160"}.items():
        monkeypatch.setenv(name, value)


def call(capsys, monkeypatch, *arguments: str, status: int = 0) -> str:
    """Standard output and error of a command that must leave with this status."""
    monkeypatch.setattr(sys, "argv", ["offline-robust", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        main()
    printed = capsys.readouterr()
    assert int(leaving.value.code or 0) == status, printed.err
    return printed.out + printed.err


@pytest.mark.parametrize("name", NAMES)
def test_lines_and_tables(name: str, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    output.out.say(name)
    output.out.print(name)
    for table in (output.Table(name, title=name), output.plain_table([name], name)):
        table.add_row(name)
        output.wide_console().print(table)
    lines = [line.strip(" ┃│|") for line in capsys.readouterr().out.splitlines()]
    assert lines.count(name) == 2 + 3 + 3  # each table: title, heading, cell


@pytest.mark.parametrize("name", NAMES)
def test_bars_and_spinners(name: str, terminal: None, capsys, monkeypatch) -> None:
    with output.bars() as bars:
        bars.add_task(name, total=1)
    assert name in capsys.readouterr().err
    with output.spinner(f"reading {name}"):
        pass
    assert f"reading {name}" in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_bar(silent=False) as bar:
        bar.evaluation(name, 0, 2, name)
    assert f"evaluate {name}: {name}" in capsys.readouterr().err


def test_bars_of_a_sweep(terminal: None, capsys, monkeypatch) -> None:
    class State:
        state, total, done, phase = "running", 2, 1, "[/train]"

        class cell:
            name = "seed=0[/b]"

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with _run_bars(silent=False) as tell:
        assert tell is not None
        tell([State()])
    assert "seed=0[/b] [/train]" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ablation[lr]", "a[/b]"])
def test_the_whole_way(name: str, tmp_path: Path, capsys, monkeypatch) -> None:
    """From data of that name to a report in a folder of that name, every command says the name and leaves with 0."""
    monkeypatch.chdir(tmp_path)
    data = Path(f"data {name}.npz")
    data.parent.mkdir(parents=True, exist_ok=True)
    write_npz(line_dataset(), data)
    monkeypatch.setenv("COLUMNS", "200")
    assert str(data) in call(capsys, monkeypatch, "data", "info", str(data))
    call(capsys, monkeypatch, "data", "check", str(data))
    assert f"copy {name}.npz" in call(capsys, monkeypatch, "data", "convert", str(data), f"copy {name}.npz")
    Path("pendulum.yaml").write_text(yaml.safe_dump(run_values("pendulum-td3", "sac", steps=1)))
    said = call(capsys, monkeypatch, "train", "pendulum.yaml", "--out", name)
    assert said.splitlines()[0].endswith(f": {name}")
    assert f"evaluate '{name}'" in said.splitlines()[1]
    assert f"report: {name}/report.html" in call(capsys, monkeypatch, "evaluate", name, "--episodes", "1")
    assert f"report: {name}/report.html" in call(capsys, monkeypatch, "report", name)
    data.write_bytes(b"")
    assert str(data) in call(capsys, monkeypatch, "data", "check", str(data), status=2)


def test_names_steer_no_terminal_and_need_no_encoding(capsys, monkeypatch) -> None:
    output.out.say("a\x1b]0;title\x07b \x9b31m c\td")
    assert capsys.readouterr().out == "a?]0;title?b ?31m c\td\n".expandtabs(8)
    output.out.say("bytes \udcff")
    assert capsys.readouterr().out == "bytes ?\n"
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    table = output.plain_table(["näme"], "tïtle")
    table.add_row("1–2 µm")
    output.out.say("é")
    output.out.print(table)
    narrow.flush()
    assert "1?2 ?m" in narrow.buffer.getvalue().decode("ascii")
