"""The command line: a stopped evaluation goes on, scores are shown where named, and the catalogue lists what fits."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from test_report_stands_alone import Page
from toys import run_values

from offline_robust.cli import main
from offline_robust.envs import list_suites, load_suite, system
from offline_robust.evaluation import Results, rollout
from offline_robust.experiments import load_run, train
from offline_robust.experiments.evaluating import compare_runs
from offline_robust.experiments.reporting import save_report

PERTURB = ["--perturb", "length=0.8,1,1.2", "--episodes", "2", "--seed", "3"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(run_values("pendulum-td3", "sac", steps=4, log_every=2, checkpoint_every=4), out=folder)
    return folder


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["offline-robust", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        main()
    captured = capsys.readouterr()
    return int(leaving.value.code or 0), captured.out, captured.err


def test_a_stopped_comparison_goes_on_and_leaves_no_cells(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    command = ["compare", str(trained), *PERTURB, "--quiet", "--out"]
    assert call(capsys, monkeypatch, *command, str(whole))[0] == 0
    assert not (whole / "cells").exists()

    monkeypatch.setattr(rollout, "_ROWS", 2)
    run_conditions, ran = rollout.run_conditions, []

    def stop_at_second(*arguments: Any) -> Any:
        if ran:
            raise KeyboardInterrupt
        ran.append(arguments[2][0].label)
        return run_conditions(*arguments)

    monkeypatch.setattr(rollout, "run_conditions", stop_at_second)
    status, _, errors = call(capsys, monkeypatch, *command, str(cut))
    assert (status, ran) == (130, ["length x0.8"])
    assert "a comparison when started again" in errors
    assert len(list((cut / "cells").iterdir())) == 1
    assert not (cut / "results.csv").exists()

    told: list[tuple[Any, ...]] = []

    def record(*arguments: Any) -> Any:
        ran.extend(condition.label for condition in arguments[2])
        return run_conditions(*arguments)

    monkeypatch.setattr(rollout, "run_conditions", record)
    monkeypatch.setattr("offline_robust.cli.progress.Bar.evaluation", lambda _, *a: told.append(a))
    assert call(capsys, monkeypatch, *command, str(cut))[0] == 0
    assert ran == ["length x0.8", "length x1", "length x1.2"]
    assert told[0] == ("run", 1, 3, "1 of 3 conditions were there already")
    assert (cut / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    assert sorted(path.name for path in cut.iterdir()) == sorted(path.name for path in whole.iterdir())
    assert not (cut / "cells").exists()


def test_scores_are_shown_where_named_and_kept_when_the_report_is_rewritten(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["evaluate", str(trained), *PERTURB]
    status, out, _ = call(capsys, monkeypatch, *command, "--score", "ours", "--json")
    content = json.loads(out)
    assert status == 0
    assert content["score"]["name"] == "ours"
    row = content["summary"][0]
    low, high = content["score"]["low"], content["score"]["high"]
    assert row["score"] == pytest.approx(100 * (row["value"] - low) / (high - low))
    assert row["score_low"] <= row["score"] <= row["score_high"]
    report = trained / "report.html"
    assert "reference 'ours' for Pendulum-v1" in Page(report.read_text()).text
    report.unlink()
    assert call(capsys, monkeypatch, "report", str(trained))[0] == 0
    assert "reference 'ours' for Pendulum-v1" in Page(report.read_text()).text

    status, out, _ = call(capsys, monkeypatch, *command)
    assert status == 0
    # The page also prints the command line of the training, which is that of these tests.
    assert "on the scale of reference" not in out + Page(report.read_text()).text
    assert call(capsys, monkeypatch, "report", str(trained), "--score", "ours")[0] == 0
    assert "reference 'ours' for Pendulum-v1" in Page(report.read_text()).text


def test_a_reference_that_does_not_fit_is_refused_before_anything_runs(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "run_conditions", lambda *_: pytest.fail("something ran"))
    for score, message in (("d4rl-v2", "not for Pendulum-v1"), ("our", "did you mean 'ours'")):
        status, _, errors = call(capsys, monkeypatch, "evaluate", str(trained), *PERTURB, "--score", score)
        assert status == 2
        assert message in errors
        assert errors.count("\n") == 1


def test_every_result_keeps_the_protocol_and_the_versions(trained: Path, tmp_path: Path) -> None:
    results = compare_runs([load_run(trained)], perturb=["length=1"], episodes=1)
    save_report(tmp_path, results, [], "")
    meta = Results.read(tmp_path / "results.csv").meta
    assert meta["checkpoint"] == "last"
    assert set(meta["versions"]) >= {"python", "offline-robust", "numpy", "torch", "gymnasium", "mujoco"}
    assert meta["env_id"] == "Pendulum-v1"


def test_suites_are_listed_with_the_conditions_they_have(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, _ = call(capsys, monkeypatch, "suites", "--json")
    assert status == 0
    assert [row["name"] for row in json.loads(out)] == list_suites()
    status, out, _ = call(capsys, monkeypatch, "suites", "Pendulum-v1", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert "pendulum-length" in rows
    of = system("Pendulum-v1")
    for name, row in rows.items():
        assert row["conditions"] == {"Pendulum-v1": len(load_suite(name).for_system(of))}
        assert row["source"]
    assert set(list_suites()) - set(rows) == {
        name for name in list_suites() if load_suite(name).env_ids and "Pendulum-v1" not in load_suite(name).env_ids
    }
    status, out, _ = call(capsys, monkeypatch, "suites", "Pendulum-v1")
    assert status == 0
    assert "pendulum-length" in out


def test_parameters_are_listed_with_unit_nominal_range_and_mode(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, _ = call(capsys, monkeypatch, "parameters", "Pendulum-v1", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert status == 0
    assert set(rows) == set(system("Pendulum-v1").parameters)
    gravity = {key: rows["gravity"][key] for key in ("unit", "nominal", "default_mode", "target")}
    assert gravity == {"unit": "m/s^2", "nominal": [10.0], "default_mode": "scale", "target": "physics"}
    assert rows["random_action"]["high"] == 1.0
    status, out, _ = call(capsys, monkeypatch, "parameters", "Pendulum-v1")
    assert status == 0
    assert "gravity" in out
    for command in ("parameters", "suites"):
        status, _, errors = call(capsys, monkeypatch, command, "Pendulm-v1")
        assert status == 2
        assert "did you mean 'Pendulum-v1'" in errors
        assert errors.count("\n") == 1
