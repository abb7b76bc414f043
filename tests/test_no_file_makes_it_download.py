"""A Minari id is downloaded where a person asked for it, never because a configuration, sweep or run names it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import minari
import pytest
import yaml
from toys import run_values

from offline_robust.cli import main
from offline_robust.datasets import load_dataset
from offline_robust.errors import DatasetNotFound
from offline_robust.experiments import train

ID = "somebody/data-v0"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What was asked of Minari's hub, which is not there."""
    found: list[str] = []

    def download(dataset_id: str) -> None:
        found.append(dataset_id)
        raise ConnectionError("no route to host")

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "huggingface_hub" else real(name))
    monkeypatch.setattr(minari, "download_dataset", download)
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(yaml.safe_dump(run_values(ID, "sac")))
    Path("sweep.yaml").write_text(yaml.safe_dump({"base": "config.yaml", "seeds": 1}))
    Path("compare.yaml").write_text(yaml.safe_dump({"comparison": {"datasets": [ID], "learners": ["sac"], "seeds": 1}}))
    return found


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["offline-robust", *arguments])
    with pytest.raises(SystemExit) as leaving:
        main()
    error = capsys.readouterr().err
    assert (leaving.value.code, error.count("error:")) == (2, 1), error
    return error


FROM_FILES = (
    ["train", "config.yaml"],
    ["sweep", "sweep.yaml", "--out", "out"],
    ["compare", "compare.yaml", "--out", "out"],
)
BY_A_PERSON = (
    *([*arguments, "--download"] for arguments in FROM_FILES),
    ["train", "sac/pendulum", "--set", f"dataset={ID}"],
    ["compare", "--dataset", ID, "--learners", "sac", "--out", "out"],
    ["data", "info", ID],
    ["data", "check", ID],
    ["data", "convert", ID, "x.npz"],
)


@pytest.mark.parametrize("arguments", FROM_FILES, ids=lambda arguments: arguments[0])
def test_no_file_downloads(arguments: list[str], asked: list[str], monkeypatch, capsys) -> None:
    error = call(monkeypatch, capsys, *arguments)
    assert asked == []
    assert ID in error
    assert "--download" in error


@pytest.mark.parametrize("arguments", BY_A_PERSON, ids=" ".join)
def test_a_person_downloads(arguments: list[str], asked: list[str], monkeypatch, capsys) -> None:
    call(monkeypatch, capsys, *arguments)
    assert set(asked) == {ID}


def test_from_python(asked: list[str]) -> None:
    def fails(action: Any, *arguments: Any, **named: Any) -> list[str]:
        asked.clear()
        with pytest.raises(DatasetNotFound):
            action(*arguments, **named)
        return list(asked)

    assert fails(load_dataset, ID) == [ID]
    assert fails(load_dataset, ID, download=False) == []
    assert fails(train, "config.yaml") == []
    assert fails(train, "config.yaml", download=True) == [ID]
    assert fails(train, "sac/pendulum", {"dataset": ID}) == [ID]
