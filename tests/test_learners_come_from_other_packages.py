"""A learner of somebody else's trains, resumes, sweeps and reports by name: the page's example does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from toys import line_dataset, saved

import offline_robust as orl
from offline_robust.divergences import DIVERGENCES
from offline_robust.errors import ConfigError
from offline_robust.experiments.checkpoints import load_checkpoint
from offline_robust.learners import LEARNERS, SAC
from offline_robust.registry import Registry

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "write-a-learner.md"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's module, installed with its entry point, in a folder that is on the path."""
    site = tmp_path / "site"
    about = site / "best_tenth-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "best_tenth.py").write_text(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0])
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: best-tenth\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[offline_robust.learners]\nbest_tenth = best_tenth:BestTenth\nbroken = best_tenth:nothing\n"
        "sac = best_tenth:BestTenth\nnumber = math:pi\n"
    )
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(LEARNERS, "_points", None)
    yield site
    LEARNERS._classes.pop("best_tenth", None)
    LEARNERS._points = None
    sys.modules.pop("best_tenth", None)


def values(folder: Path) -> dict[str, object]:
    return {
        "dataset": str(folder / "data.npz") if (folder / "data.npz").exists() else saved(line_dataset(), folder),
        "learner": {"name": "best_tenth", "hidden": [16, 16]},
        "training": {"steps": 60, "log_every": 10, "checkpoint_every": 20, "batch_size": 32},
    }


def test_it_trains_and_resumes_by_name(package: Path, tmp_path: Path) -> None:
    whole = orl.train(values(tmp_path), out=tmp_path / "whole")
    assert whole.metrics[-1]["train/best"] == 1.0

    class Stop(Exception):
        pass

    def stop_late(phase: str, step: int, total: int, rate: float) -> None:
        if step >= total - 10:
            raise Stop

    from offline_robust.experiments import train

    with pytest.raises(Stop):
        train(values(tmp_path), out=tmp_path / "cut", progress=stop_late)
    resumed = train(values(tmp_path), out=tmp_path / "cut", resume=True)
    left, right = (load_checkpoint(run.checkpoint)["learner"]["actor"] for run in (whole, resumed))
    assert all(torch.equal(value, right[name]) for name, value in left.items())
    assert whole.meta["label"] == "best_tenth share=0.1"


def test_it_sweeps_and_reports_from_the_command_line(package: Path, tmp_path: Path) -> None:
    data = Path(__file__).parent.parent / "datasets" / "pendulum-td3"
    sweep = {
        "base": values(tmp_path) | {"dataset": str(data), "env": "Pendulum-v1"},
        "grid": {"learner.share": [0.1, 0.5]},
        "seeds": [0],
        "evaluation": {"episodes": 2},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    program = "from offline_robust.cli import main; main()"
    command = [sys.executable, "-P", "-c", program, "sweep", "sweep.yaml", "--out", "out", "--quiet"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(package), *sys.path])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = orl.Results.read(tmp_path / "out" / "results.csv")
    assert sorted(set(results.frame["learner"])) == ["best_tenth share=0.1", "best_tenth share=0.5"]
    assert "best_tenth share=0.5" in (tmp_path / "out" / "report.html").read_text()


def test_a_configuration_can_only_name_what_is_installed(package: Path, tmp_path: Path) -> None:
    assert "best_tenth" in LEARNERS
    assert "best_tenth" not in sys.modules  # listing imports nothing
    for name, said in (("broken", "cannot be imported: AttributeError"), ("number", "not a class that derives from")):
        with pytest.raises(ConfigError, match=said):
            orl.train(values(tmp_path) | {"learner": {"name": name}}, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="unknown learner 'os'"):
        orl.train(values(tmp_path) | {"learner": {"name": "os"}}, out=tmp_path / "run")
    assert LEARNERS["sac"] is SAC  # an entry point of a name of ours is passed over
    assert not (tmp_path / "run").exists()


def test_names_of_ours_cannot_be_registered_again() -> None:
    with pytest.raises(ConfigError, match="own; give yours another"):
        orl.register_learner(SAC)

    class Mine(SAC):
        pass

    assert orl.register_learner(Mine, "mine") is Mine
    assert orl.register_learner(Mine, "mine") is Mine  # a notebook's cell may run twice
    assert LEARNERS["mine"] is Mine
    LEARNERS._classes.pop("mine")
    with pytest.raises(ConfigError, match="derives from Learner"):
        orl.register_learner(Registry, "other")  # type: ignore[type-var]
    assert set(DIVERGENCES.own) == set(DIVERGENCES)
