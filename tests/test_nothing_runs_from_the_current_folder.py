"""A module that lies in the folder where a command is typed is never imported, by none of its processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml
from sweep_toys import base, write_sweep

import offline_robust

SHADOWED = ("dis", "json", "yaml", "numpy", "torch", "sitecustomize", "usercustomize", "offline_robust")


def set_traps(folder: Path) -> None:
    """Modules that leave a file behind and raise, under names that every process imports."""
    for name in SHADOWED:
        text = f"open({str(folder / 'sprung')!r}, 'a').write({name!r} + ' ')\nraise RuntimeError('imported')\n"
        (folder / f"{name}.py").write_text(text)


def test_neither_by_a_sweep_nor_by_its_runs_and_the_users_own_path_keeps_working(tmp_path: Path) -> None:
    """The command is a script elsewhere, as it is where it is installed."""
    here, own, program = (tmp_path / name for name in ("here", "own", "bin"))
    for folder in (here, own, program):
        folder.mkdir()
    set_traps(here)
    (own / "sitecustomize.py").write_text(f"open({str(tmp_path / 'started')!r}, 'a').write('x')\n")
    (program / "offline-robust").write_text("from offline_robust.cli import main\nmain()\n")
    (here / "config.yaml").write_text(yaml.safe_dump(base(steps=10)))
    write_sweep(here, base="config.yaml", grid=None, evaluation=None)
    root = str(Path(offline_robust.__file__).parents[1])
    paths = [str(own), *filter(None, os.environ.get("PYTHONPATH", root).split(os.pathsep))]
    done = subprocess.run(
        [sys.executable, str(program / "offline-robust"), "sweep", "small.yaml", "--out", "out", "--quiet"],
        cwd=here,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    log = here / "out" / "runs" / "base-seed0" / "log.txt"
    assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")
    assert not (here / "sprung").exists(), (here / "sprung").read_text()
    assert len((tmp_path / "started").read_text()) >= 2, "the command and its run"
