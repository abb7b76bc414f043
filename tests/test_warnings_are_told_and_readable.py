"""What the user should know is told once, in one line that any terminal and log can show."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml
from toys import line_dataset, run_values, saved

from offline_robust.cli import main
from offline_robust.datasets import TransitionDataset
from offline_robust.errors import readable
from offline_robust.experiments import train
from offline_robust.learners.futures import future_warnings


def ending_everywhere(next_valid: bool) -> TransitionDataset:
    """The line, each row the end of an episode."""
    line = line_dataset()
    return replace(
        line,
        terminated=torch.ones_like(line.terminated),
        truncated=torch.zeros_like(line.truncated),
        next_valid=torch.full_like(line.next_valid, next_valid),
        episode=torch.arange(len(line)),
    )


@pytest.mark.parametrize("next_valid", [True, False])
@pytest.mark.parametrize("learner", ["sac", "dr_sac"])
def test_data_of_ends_alone(learner: str, next_valid: bool, tmp_path: Path) -> None:
    """A model that never saw a next observation, and values of one step, are not a robust policy."""
    path = saved(ending_everywhere(next_valid), tmp_path)
    with pytest.warns(UserWarning, match="every row of the data ends its episode") as told:
        run = train(run_values(path, learner), out=tmp_path / "run")
    unseen = [str(w.message) for w in told if "the nominal model sees none" in str(w.message)]
    assert bool(unseen) == (learner == "dr_sac" and not next_valid)
    assert [text for text in run.meta["warnings"] if "ends its episode" in text]


def test_ordinary_data_say_nothing_of_the_kind() -> None:
    for data in (line_dataset(), line_dataset(truncate=False), line_dataset(episodes=1, length=2)):
        assert not future_warnings(data, modelled=True)
    ends = line_dataset(truncate=False)
    assert not future_warnings(replace(ends, next_valid=~ends.terminated), modelled=True)


def test_rows_that_nothing_is_learned_from_do_not_hide_it() -> None:
    data = ending_everywhere(next_valid=False)
    cut = torch.arange(len(data)) % 2 == 0
    assert len(future_warnings(replace(data, terminated=~cut, truncated=cut), modelled=True)) == 2


def test_colours_of_gymnasiums_warnings_are_taken_out(tmp_path: Path, capsys, monkeypatch) -> None:
    """Environments of v4 warn in yellow, whether or not a terminal listens."""
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        gym.make("Hopper-v4").close()
    assert any("\x1b[33m" in str(warning.message) for warning in told)
    rows = 200
    rng = np.random.default_rng(0)
    np.savez(
        "data.npz",
        observations=rng.normal(size=(rows, 11)).astype(np.float32),
        actions=rng.uniform(-1, 1, (rows, 3)).astype(np.float32),
        rewards=np.zeros(rows, np.float32),
        terminals=np.zeros(rows, bool),
        timeouts=np.arange(rows) % 50 == 49,
    )
    Path("config.yaml").write_text(yaml.safe_dump(run_values("data.npz", "sac", steps=1) | {"env": "Hopper-v4"}))
    for arguments in (["train", "config.yaml", "--out", "run"], ["evaluate", "run", "--episodes", "1"]):
        monkeypatch.setattr(sys, "argv", ["offline-robust", *arguments])
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            with pytest.raises(SystemExit) as leaving:
                main()
        said = capsys.readouterr().err
        assert not leaving.value.code, said
    assert "Hopper-v4 is out of date" in said
    assert "\x1b" not in said
    assert "[33m" not in said
    assert said.strip().replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[33mWARN: old\x1b[0m", "WARN: old"),
        ("\x1b[1;31ma\x1b[m\n  b", "a b"),
        ("\x1b]0;title\x07", "?]0;title?"),
        ("a[33m", "a[33m"),
    ],
)
def test_one_readable_line(text: str, shown: str) -> None:
    assert readable(text) == shown
