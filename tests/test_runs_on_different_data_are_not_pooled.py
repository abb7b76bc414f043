"""Two trainings are two seeds of one learner only on the same data: fingerprints decide, whatever files are called."""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_report_says_the_same_in_every_format import record
from test_statistics_match_their_definitions import table
from toys import run_values

from offline_robust.cli import main
from offline_robust.collection import collect
from offline_robust.datasets.writers import write_npz
from offline_robust.evaluation import Results
from offline_robust.experiments import Run, train
from offline_robust.experiments.evaluating import compare_runs
from offline_robust.experiments.labels import distinct_labels
from offline_robust.experiments.reporting import rewrite_report, save_report
from offline_robust.experiments.tracking import group_of
from offline_robust.reports import build_report
from offline_robust.reports.markdown import document
from offline_robust.reports.trained_on import data_names, data_of, different_data
from offline_robust.sweeps.driver import run_sweep
from offline_robust.sweeps.grids import expand, load_sweep
from offline_robust.sweeps.worker import prepare, run_cell


def data_at(path: Path, seed: int) -> None:
    path.unlink(missing_ok=True)
    write_npz(collect(None, "Pendulum-v1", transitions=400, seed=seed), path)


def trained(folder: Path, data: str, seed: int) -> Run:
    return train(run_values(data, "sac", steps=1) | {"seed": seed}, out=folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Seeds 0 and 1 on one file, seed 2 after it was rewritten, seed 3 on a copy of the first under another name."""
    folder = tmp_path_factory.mktemp("rewritten")
    data_at(folder / "data.npz", seed=0)
    shutil.copy(folder / "data.npz", folder / "copy.npz")
    made = {str(seed): trained(folder / f"run{seed}", str(folder / "data.npz"), seed) for seed in (0, 1)}
    data_at(folder / "data.npz", seed=1)
    made["2"] = trained(folder / "run2", str(folder / "data.npz"), 2)
    made["3"] = trained(folder / "run3", str(folder / "copy.npz"), 3)
    made["3 again"] = trained(folder / "run3-again", str(folder / "data.npz"), 3)
    return made


def test_labels(runs: dict[str, Run]) -> None:
    marks = [run.meta["dataset"]["fingerprint"][:8] for run in runs.values()]
    assert marks[0] == marks[1] == marks[3] != marks[2] == marks[4]
    assert distinct_labels([runs["0"], runs["1"]]) == ["sac", "sac"]
    one, two = distinct_labels([runs["0"], runs["2"]])
    assert one.endswith(f"data.npz@{marks[0]}")
    assert two.endswith(f"data.npz@{marks[2]}")
    assert distinct_labels([runs["0"], runs["3"]]) == ["sac", "sac"]  # the same data under another name
    three = distinct_labels([runs["0"], runs["1"], runs["2"], runs["3"]])
    assert three[0] == three[1] == three[3] != three[2]


def test_the_same_seed_on_the_same_data_under_two_names_is_told_apart_by_them(runs: dict[str, Run]) -> None:
    twin = Run(runs["3"].folder, runs["3"].config.model_copy(update={"seed": 0}))
    one, two = distinct_labels([runs["0"], twin])
    assert one.endswith("data.npz")
    assert two.endswith("copy.npz")


def test_compare_and_its_report_say_it(runs: dict[str, Run], tmp_path: Path, capsys, monkeypatch) -> None:
    marks = [runs[seed].meta["dataset"]["fingerprint"][:8] for seed in ("0", "2")]
    folders = [str(runs[seed].folder) for seed in ("0", "1", "2")]
    arguments = ["compare", *folders, "--episodes", "1", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["offline-robust", *arguments])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert not leaving.value.code
    printed = capsys.readouterr()
    assert printed.err.count("the runs were trained on different data of this name") == 1
    assert all(mark in printed.err for mark in marks)
    results = Results.read(tmp_path / "out" / "results.csv")
    trainings = results.frame.groupby("learner")["run"].nunique()
    assert sorted(trainings) == [1, 2]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "different data of this name" in text
    for mark in marks:
        assert f"data.npz@{mark}" in text


def test_a_table_that_pooled_them_is_taken_apart_when_its_report_is_made_again(
    runs: dict[str, Run], tmp_path: Path
) -> None:
    chosen = [runs["0"], runs["2"]]
    with pytest.warns(UserWarning, match="different data"):
        results = compare_runs(chosen, episodes=1)
    pooled = Results(results.frame.assign(learner="sac"), results.meta)
    save_report(tmp_path, pooled, chosen, "")
    assert Results.read(tmp_path / "results.csv").learners == ["sac"]
    rewrite_report(tmp_path)
    statistics = pd.read_csv(tmp_path / "tables" / "statistics.csv")
    assert set(statistics["trainings"]) == {1}
    assert statistics["part"].nunique() == 2


def test_a_sweep_whose_data_changed_under_it(tmp_path: Path) -> None:
    data_at(tmp_path / "data.npz", seed=0)
    values = run_values(str(tmp_path / "data.npz"), "sac", steps=1) | {"evaluation": {"episodes": 1}}
    sweep = load_sweep({"base": values, "seeds": 2})
    cells = expand(sweep)
    for cell in cells:
        folder = tmp_path / "out" / "runs" / cell.name
        folder.mkdir(parents=True)
        prepare(folder, cell.config)
        run_cell(folder)
        data_at(tmp_path / "data.npz", seed=1)
    outcome = run_sweep(sweep, cells, tmp_path / "out")
    assert not outcome.failed
    assert any("different data of this name" in note for note in outcome.notes)
    assert outcome.results is not None
    assert len(set(outcome.results.meta["datasets"].values())) == 2
    assert len(outcome.results.learners) == 2
    statistics = pd.read_csv(tmp_path / "out" / "tables" / "statistics.csv")
    assert set(statistics["trainings"]) == {1}


def test_the_same_data_say_nothing(runs: dict[str, Run]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = compare_runs([runs["0"], runs["1"], runs["3"]], episodes=1)
    assert results.learners == ["sac"]


def test_seeds_on_copies_of_the_data_are_one_part_and_one_seed_on_both_counts_once() -> None:
    rng = np.random.default_rng(0)
    one, two = (table(rng.normal(size=(1, 3, 4)), "a", [0.5, 1.0, 1.5]).frame for _ in range(2))
    records = [record("first", "a"), record("second", "a")]
    for own, name in zip(records, "xy", strict=True):
        own.meta["dataset"] = {"name": name, "fingerprint": "f" * 64}
    for seed, parts in ((1, 1), (0, 2)):
        both = [one.assign(run="first"), two.assign(run="second", training_seed=seed)]
        report = build_report(Results(pd.concat(both, ignore_index=True)), records)
        assert len(report.parts) == parts
        assert "different data" not in document(report.blocks)


def test_groups_of_wandb_follow_the_data(runs: dict[str, Run]) -> None:
    groups = {seed: group_of(run.config, "sac", data_of(run.meta)[1]) for seed, run in runs.items()}
    assert groups["0"] == groups["1"] != groups["2"]


@pytest.mark.parametrize("meta", [{}, {"dataset": None}, {"dataset": "x"}, {"dataset": {"fingerprint": ["a"]}},
                                  {"dataset": {"name": "x", "fingerprint": "../" * 50}}])  # fmt: skip
def test_what_meta_does_not_tell_is_not_made_up(meta: dict) -> None:
    name, mark = data_of(meta, "x")
    assert mark == ""
    assert name == "x"
    assert data_names([("x", ""), ("x", "abc")]) == ["x", "x"]
    assert not different_data([("x", ""), ("x", "abc")])
    assert data_names([("x", ""), ("x", "abc"), ("x", "def")]) == ["x@unknown", "x@abc", "x@def"]
