"""The results table: exact through the file, refused when damaged, never half-written, nothing counted twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from offline_robust.errors import EvaluationError
from offline_robust.evaluation import COLUMNS, Results, evaluate
from offline_robust.evaluation.results import results_frame


def small(run: str = 'run, "a"', **changed: object) -> Results:
    row: dict[str, object] = {
        "run": run, "learner": "sac", "training_seed": 1, "env_id": "Pendulum-v1", "condition": "nominal",
        "nominal": True, "perturbation": "nominal", "level": "", "mode": "", "episode": np.arange(3),
        "episode_seed": np.arange(3) + 2**32 - 3, "return": np.array([-0.1 - 0.2, 1e-300, 1 / 3]),
        "length": 200, "terminated": False,
    }  # fmt: skip
    return Results(results_frame({**row, **changed}), {"suite": "x", "seed": 0})


def test_what_is_saved_is_what_is_read_to_the_last_bit(tmp_path: Path) -> None:
    results = small(run="NA")
    results.save(tmp_path / "results.csv")
    again = Results.read(tmp_path / "results.csv")
    pd.testing.assert_frame_equal(results.frame, again.frame, check_exact=True)
    assert again.meta == results.meta
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results.csv", "results.meta.json"]


def test_an_evaluation_survives_too(tmp_path: Path) -> None:
    results = evaluate(lambda o: o[:, :1], "Pendulum-v1", perturb=["length=0.5,1", "mass=1,2"], episodes=2, run="r")
    results.save(tmp_path / "r.csv")
    again = Results.read(tmp_path / "r.csv")
    pd.testing.assert_frame_equal(results.frame, again.frame, check_exact=True)
    assert again.meta == results.meta
    assert list(again.frame["level"].unique()) == ["0.5;1", "0.5;2", "1;1", "1;2"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1e-300", "nan", "NaN or infinite"),
        ("1e-300", "inf", "NaN or infinite"),
        ("1e-300", "", "line 3: return is ''"),
        (",200,False", ",2x0,False", "line 2: length is '2x0', expected int"),
        (",200,False", ",-1,False", "negative"),
        (",200,False", "," + "9" * 30 + ",False", "expected int"),
        (",200,False", ",200,maybe", "terminated is 'maybe', expected bool"),
        ("training_seed", "seed", "the columns must be"),
        ("sac", "x" * 501, "longer than 500"),
        (",1,4294967294,", ",0,4294967294,", "twice"),
    ],
)
def test_a_damaged_table_is_refused_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "results.csv"
    small().save(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(EvaluationError, match=message) as caught:
        Results.read(path)
    assert "results.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_empty_and_binary_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    with pytest.raises(EvaluationError, match="cannot read"):
        Results.read(path)
    for content in (b"", b"\xff\xfe\x00", ",".join(COLUMNS).encode() + b"\n", b'"a'):
        path.write_bytes(content)
        with pytest.raises(EvaluationError):
            Results.read(path)


def test_a_damaged_meta_file_is_refused_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    small().save(tmp_path / "results.csv")
    (tmp_path / "results.meta.json").write_text("[1]")
    with pytest.raises(EvaluationError, match="JSON object"):
        Results.read(tmp_path / "results.csv")
    (tmp_path / "results.meta.json").unlink()
    assert Results.read(tmp_path / "results.csv").meta == {}


def test_concat_keeps_every_row_and_refuses_the_same_run_twice() -> None:
    one, two = small("a"), small("b")
    both = Results.concat([one, two])
    assert len(both) == 6
    assert both.meta["suite"] == "x"
    assert both.meta["parts"] == [one.meta, two.meta]
    assert json.dumps(both.meta)
    with pytest.raises(EvaluationError, match=r"'a' .seed 1. has episode 0 of condition 'nominal' twice"):
        Results.concat([one, small("a")])
    with pytest.raises(EvaluationError, match="no results"):
        Results.concat([])
