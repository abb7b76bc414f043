"""Names that a spreadsheet would run stand behind an apostrophe in every CSV file, and read back exactly."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_robust.csv_text import csv_of, escaped, plain
from offline_robust.evaluation.results import Results, results_frame
from offline_robust.reports.folder import write_reports

FORMULAS = ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-5", "=", "＝1+1")
NUMBERS = ("-0.5", "+1", "-1e-3", "-0.5;1.2", ".5;-.5", "1", "-inf")
MIXED = st.text(st.sampled_from("'=+-@\t\r\n;.e1aé,\"")) | st.text()


@given(MIXED)
def test_every_text_reads_back_exactly(text: str) -> None:
    assert plain(escaped(text)) == text


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_never_begins_a_cell(text: str) -> None:
    assert escaped(text)[0] == "'"


@pytest.mark.parametrize("text", [*NUMBERS, "sac", "dr_sac delta=0.5", "", "a=b"])
def test_numbers_and_ordinary_names_are_written_as_they_are(text: str) -> None:
    assert escaped(text) == text


def table(learners: tuple[str, ...]) -> Results:
    """Two episodes of each learner at two levels."""
    frames = [
        results_frame(
            {
                "run": f"{name}-run",
                "learner": name,
                "training_seed": 0,
                "env_id": "Pendulum-v1",
                "condition": condition,
                "nominal": level == "1",
                "perturbation": "gravity",
                "level": level,
                "mode": "scale",
                "episode": np.arange(2),
                "episode_seed": np.arange(2),
                "return": np.array([-1.5, -2.0]) * (k + 1),
                "length": 200,
                "terminated": False,
            }
        )
        for k, name in enumerate(learners)
        for condition, level in (("=gravity x1", "1"), ("gravity x-0.5", "-0.5"))
    ]
    return Results(pd.concat(frames, ignore_index=True))


def test_results_read_back_exactly(tmp_path: Path) -> None:
    results = table((*FORMULAS[:8], "a\rb", "a\r\nb"))
    results.save(tmp_path / "results.csv")
    pd.testing.assert_frame_equal(Results.read(tmp_path / "results.csv").frame, results.frame)
    table(("sac",)).save(tmp_path / "plain.csv")
    assert ",-0.5,scale," in (tmp_path / "plain.csv").read_text()


def test_no_csv_of_a_report_holds_a_formula(tmp_path: Path) -> None:
    write_reports(tmp_path, table(("=1+1", "@SUM(A1)", "-2+3")))
    files = list(tmp_path.rglob("*.csv"))
    assert len(files) > 5
    for path in files:
        for cell in (cell for row in csv.reader(io.StringIO(path.read_text(), newline="")) for cell in row):
            assert escaped(plain(cell)) == cell, (path.name, cell)


def test_heads_are_escaped_too() -> None:
    assert csv_of(pd.DataFrame({"=a": [1.0], "b": ["x"]})).splitlines() == ["'=a,b", "1.0,x"]
