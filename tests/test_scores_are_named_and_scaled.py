"""Scores: only on a named reference, never guessed, differences and deviations scaled but not shifted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_report_stands_alone import Page, two_learners

from offline_robust.errors import EvaluationError
from offline_robust.evaluation import Results, ScoreReference, score_reference
from offline_robust.evaluation.scores import read_scores
from offline_robust.files import bundled
from offline_robust.reports import summary_table, write_report
from offline_robust.reports.text import number, span

ENTRY: dict[str, Any] = {
    "random": {"mean": -1200.0, "std": 300.0, "episodes": 100, "seed": 1},
    "policies": {
        "weak": {"mean": -900, "std": 50.5, "episodes": 100, "seed": 1},
        "good": {"mean": -200.0, "std": 80.0, "episodes": 50, "seed": 1},
    },
    "versions": {"gymnasium": "1.0.0"},
    "command": "python measure.py",
}


def written(folder: Path, content: Any) -> Path:
    path = folder / "scores.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_ends_are_0_and_100_and_nothing_is_clipped() -> None:
    reference = score_reference("d4rl-v2", "Hopper-v5")
    np.testing.assert_allclose(
        reference.score(np.array([-20.272305, 3234.3, 0.5 * (3234.3 - 20.272305)])), [0, 100, 50]
    )
    assert reference.score(2 * 3234.3) > 190
    assert reference.score(-1e6) < 0
    assert "v5" in reference.note
    assert {name: score_reference("d4rl-v2", f"{name}-v4").high for name in ("HalfCheetah", "Walker2d", "Ant")} == {
        "HalfCheetah": 12135.0, "Walker2d": 4592.3, "Ant": 3879.7
    }  # fmt: skip


def test_a_deviation_is_scaled_and_not_shifted() -> None:
    reference = ScoreReference("x", "Any-v0", -300.0, 100.0, "made up")
    returns = np.random.default_rng(0).normal(-50.0, 40.0, 1000)
    np.testing.assert_allclose(reference.spread(returns.std()), reference.score(returns).std())
    np.testing.assert_allclose(reference.spread(7.0), reference.score(10.0) - reference.score(3.0))
    assert reference.spread(0.0) == 0.0


@pytest.mark.parametrize(
    ("name", "env_id", "message"),
    [
        ("d4rl-v2", "Pendulum-v1", "is for Hopper-v4 and -v5.* not for Pendulum-v1"),
        ("d4rl-v2", "Hopper-v50", "not for Hopper-v50"),
        ("d4rl-v2", "AntMaze-v4", "not for AntMaze-v4"),
        ("ours", "Nothing-v0", "'ours' has nothing for Nothing-v0"),
        ("d4rl", "Hopper-v5", "did you mean 'd4rl-v2'"),
        ("missing.yaml", "Hopper-v5", "cannot read"),
    ],
)
def test_what_was_not_measured_is_refused_in_one_line(name: str, env_id: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message) as caught:
        score_reference(name, env_id)
    assert "\n" not in str(caught.value)


def test_the_high_end_of_a_measured_reference_is_the_best_policy(tmp_path: Path) -> None:
    reference = score_reference(str(written(tmp_path, {"environments": {"Toy-v0": ENTRY}})), "Toy-v0")
    assert (reference.low, reference.high, reference.name) == (-1200.0, -200.0, "scores.yaml")
    assert "good over 50 (python measure.py)" in reference.source
    with pytest.raises(EvaluationError, match="it has Toy-v0"):
        score_reference(str(tmp_path / "scores.yaml"), "Other-v0")


def test_the_bundled_file_is_sound_and_names_policies_that_exist() -> None:
    for env_id, entry in read_scores(bundled("configs") / "scores.yaml").items():
        assert score_reference("ours", env_id).low < score_reference("ours", env_id).high
        for policy in entry["policies"]:
            assert (bundled("models") / policy / "policy.safetensors").is_file()


@pytest.mark.parametrize(
    "damage",
    [
        {"extra": 1}, {"random": None}, {"policies": {}}, {"policies": {"a": {"mean": 1.0}}}, {"versions": [1]},
        {"command": 3}, {"random": ENTRY["random"] | {"mean": float("nan")}}, {"random": ENTRY["random"] | {"std": -1}},
        {"random": ENTRY["random"] | {"mean": "1"}}, {"random": ENTRY["random"] | {"episodes": 0}},
        {"random": ENTRY["random"] | {"episodes": True}}, {"random": ENTRY["random"] | {"mean": 0.0}},
        {"versions": {"torch": 2.13}},
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, damage: dict[str, Any]) -> None:
    path = written(tmp_path, {"environments": {"Toy-v0": {**ENTRY, **damage}}})
    with pytest.raises(EvaluationError) as caught:
        score_reference(str(path), "Toy-v0")
    assert "\n" not in str(caught.value)
    assert "Toy-v0" in str(caught.value)
    for content in ([], {"environments": [1]}, {"environment": {}}, {"environments": {3: ENTRY}}):
        with pytest.raises(EvaluationError):
            read_scores(written(tmp_path, content))


def test_page_and_terminal_show_the_return_first_and_then_the_score(tmp_path: Path) -> None:
    results = two_learners()
    reference = ScoreReference("mine", "Pendulum-v1", -1000.0, -100.0, "made up", "know this")
    write_report(tmp_path / "r.html", results, score=reference)
    text = Page((tmp_path / "r.html").read_text()).text
    row = results.summary().iloc[0]
    value, low, high = (float(reference.score(row[name])) for name in ("value", "low", "high"))
    expected = f"{number(row['value'])}{span(row['low'], row['high'])}score {number(value)}{span(low, high)}"
    assert expected in text
    assert "'mine' for Pendulum-v1, 0 at a return of -1000 and 100 at -100: made up" in text
    assert "Know this." in text
    terminal = summary_table(results, reference)
    assert f"score {number(value)} ({span(low, high)})" in terminal
    assert "'mine'" in terminal
    write_report(tmp_path / "plain.html", results)
    assert "score" not in Page((tmp_path / "plain.html").read_text()).text
    assert "score" not in summary_table(results)


def test_differences_on_the_page_are_scaled_without_the_shift(tmp_path: Path) -> None:
    results: Results = two_learners(gain=50.0)
    reference = ScoreReference("mine", "Pendulum-v1", -1000.0, -100.0, "made up")
    write_report(tmp_path / "r.html", results, score=reference)
    text = Page((tmp_path / "r.html").read_text()).text
    differences = text[text.index("Differences in mean return") :]
    found = re.findall(r"([+−][\d.]+) ?[▲▼]?[+−][\d.]+ to [+−][\d.]+score ([+−][\d.]+)", differences)
    assert len(found) >= 11
    for shown, score in found:
        difference, points = (float(part.replace("−", "-")) for part in (shown, score))
        assert abs(points - difference / 9.0) < 0.1
