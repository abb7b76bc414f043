"""HTML, Markdown, PNG and CSV of one report: the same numbers, files that are there, names that stay text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_report_stands_alone import NASTY, Page, two_learners
from test_statistics_match_their_definitions import table

from offline_robust.evaluation import Results, compare, per_condition
from offline_robust.evaluation.scores import ScoreReference
from offline_robust.reports import RunRecord, build_report, level_figure, metric_figure, write_report, write_reports
from offline_robust.reports.analysis import Analysis
from offline_robust.reports.blocks import Picture, pictures
from offline_robust.reports.costs import cost_data
from offline_robust.reports.curves import metric_data
from offline_robust.reports.markdown import document, escaped
from offline_robust.reports.standing import words
from offline_robust.reports.text import number, summary_table


def record(name: str, learner: str, offset: float = 0.0, dataset: str = "d", **meta: Any) -> RunRecord:
    steps = np.arange(0.0, 50.0, 10.0)
    curves = {"train/critic_loss": (steps, steps + offset), "dual/beta": (steps, 0 * steps + offset)}
    return RunRecord(name, learner, meta={"dataset": {"name": dataset}, "seed": 0} | meta, metrics=curves)


def parts(datasets: bool) -> tuple[Results, list[RunRecord]]:
    """Two learners in two environments, or on two datasets of one."""
    rng = np.random.default_rng(0)
    frames, records = [], []
    for k, (env, data) in enumerate((("Pendulum-v1", "one"), ("Pendulum-v1" if datasets else "Hopper-v5", "two"))):
        for learner, level in (("sac", 0.0), ("dr_sac", 40.0)):
            returns = 1000.0 * k + level + rng.normal(size=(2, 3, 6))
            own = table(returns, learner, [0.5, 1.0, 1.5]).frame.assign(env_id=env)
            frames.append(own.assign(run=own["run"] + f"-{data}"))
            records += [record(f"{learner}-{s}-{data}", learner, dataset=data) for s in range(2)]
    return Results(pd.concat(frames, ignore_index=True)), records


def test_every_figure_lies_beside_the_report_with_its_numbers(tmp_path: Path) -> None:
    records = [record("robust-0", "robust"), record("robust-1", "robust", 2.0), record("plain-0", "plain", 1.0)]
    report = write_reports(tmp_path, two_learners(), records, command="offline-robust compare x y")
    keys = [picture.key for picture in pictures(report.blocks)]
    assert keys == ["levels", "difference", "profile", "train", "dual"]
    text = (tmp_path / "report.md").read_text()
    for key in keys:
        assert f"(figures/{key}.png)" in text
        assert (tmp_path / "figures" / f"{key}.png").read_bytes().startswith(b"\x89PNG")
        assert len(pd.read_csv(tmp_path / "figures" / f"{key}.csv")) > 0
        assert f"figures/{key}.csv" in (tmp_path / "report.html").read_text()
    assert "    offline-robust compare x y" in text
    assert {path.stem for path in (tmp_path / "tables").iterdir()} >= {
        "statistics", "conditions", "leaders", "iqm", "improvement", "differences"
    }  # fmt: skip


def test_the_numbers_of_a_figure_are_the_figures_numbers(tmp_path: Path) -> None:
    results = two_learners()
    write_reports(tmp_path, results)
    told = pd.read_csv(tmp_path / "figures" / "levels.csv")
    figure = level_figure(results)
    assert figure is not None
    thick = [line for line in figure.axes[0].get_lines() if line.get_linewidth() > 2]
    for line, (_, own) in zip(thick, told.groupby("learner", sort=False), strict=True):
        np.testing.assert_allclose(np.asarray(line.get_xdata(), float), own["level"])
        np.testing.assert_allclose(np.asarray(line.get_ydata(), float), own["value"])
    means = per_condition(results)
    np.testing.assert_allclose(told["low"], means["low"])
    differences = pd.read_csv(tmp_path / "figures" / "difference.csv")
    expected = compare(results, "robust", "plain").query("scope == 'condition'")
    np.testing.assert_allclose(differences["difference"], expected["difference"])


def test_markdown_has_the_tables_of_the_page(tmp_path: Path) -> None:
    results = two_learners()
    write_reports(tmp_path, results)
    text = (tmp_path / "report.md").read_text()
    for value in results.summary()["value"]:
        assert number(value) in text
    tables = [block for block in text.split("\n\n") if block.startswith("| ")]
    assert len(tables) >= 5
    for block in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


def test_names_from_outside_stay_text_in_markdown(tmp_path: Path) -> None:
    nasty = NASTY + " [a](x) ![b](y) `c` *d* | e\n# f"
    text = document(build_report(two_learners(a=nasty, b="b"), title=nasty, command=nasty).blocks)
    assert "<script" not in re.sub(r"^    .*$", "", text, flags=re.MULTILINE)  # but in preformatted text
    assert escaped("[a](x) `c` | <b> *d*") == r"\[a\](x) \`c\` \| &lt;b&gt; \*d\*"
    assert not re.search(r"(?<!\\)!\[b", text.replace("    " + nasty.split("\n")[0], ""))
    assert not any(line.startswith("# f") for line in text.splitlines())


def test_learning_curves_are_the_mean_over_runs_and_their_range() -> None:
    runs = [record("a", "x", 0.0), record("b", "x", 4.0), record("c", "y", 1.0)]
    told = metric_data(runs, ["train/"])
    own = told[told["learner"] == "x"]
    np.testing.assert_allclose(own["mean"], own["step"] + 2.0)
    np.testing.assert_allclose(own["low"], own["step"])
    np.testing.assert_allclose(own["high"], own["step"] + 4.0)
    assert set(own["runs"]) == {2}
    figure = metric_figure(runs, ["x", "y"], ["train/"])
    assert figure is not None
    assert [len(axis.get_lines()) for axis in figure.axes] == [2]
    # Other steps: the mean is taken where both have values, in between by straight lines.
    other = RunRecord("d", "x", metrics={"train/critic_loss": (np.array([5.0, 25.0]), np.array([5.0, 25.0]))})
    mixed = metric_data([runs[0], other], ["train/"])
    np.testing.assert_allclose(mixed["mean"], mixed["step"])
    assert (mixed["step"].min(), mixed["step"].max()) == (5.0, 25.0)


def test_costs_are_told_per_learner_and_only_where_they_are_known(tmp_path: Path) -> None:
    runs = [
        record("a", "x", updates_per_s=100.0, training_minutes=2.0, peak_memory_mib=512),
        record("b", "x", updates_per_s=300.0, training_minutes=4.0),
        record("c", "y", updates_per_s="fast"),
    ]
    told = cost_data(runs)
    assert told["updates_per_s"].tolist()[:2] == [100.0, 300.0]
    assert told["updates_per_s"].isna().tolist() == [False, False, True]
    assert told["steps"].tolist() == [40.0] * 3
    write_report(tmp_path / "r.html", two_learners(a="x", b="y"), runs)
    text = Page((tmp_path / "r.html").read_text()).text
    assert "Peak memory" in text
    assert "100 to 300" in text
    write_report(tmp_path / "r.html", two_learners(), [RunRecord("z", "robust")])
    assert "Training cost" not in Page((tmp_path / "r.html").read_text()).text


def test_who_is_best_where_is_said_in_words_that_the_intervals_bear() -> None:
    said = " ".join(words(Analysis(two_learners(gain=50.0))))
    assert "robust returns most under perturbed length by" in said
    assert "not told apart from it: " in said  # at nominal
    said = " ".join(words(Analysis(two_learners(gain=0.0))))
    assert "No single best learner under perturbed length" in said
    assert words(Analysis(table(np.zeros((2, 3, 4))))) == []


@pytest.mark.parametrize("datasets", [False, True])
def test_environments_and_datasets_get_a_section_each_and_no_common_mean(datasets: bool, tmp_path: Path) -> None:
    results, records = parts(datasets)
    report = build_report(results, records, command="c")
    names = [part.name for part in report.parts]
    assert names == ["Pendulum-v1 · one", "Pendulum-v1 · two" if datasets else "Hopper-v5 · two"]
    for k, part in enumerate(report.parts):
        assert part.known.first.returns.mean() == pytest.approx(1000.0 * k, abs=2.0)
        assert len(part.records) == 4
    keys = [picture.key for picture in pictures(report.blocks)]
    assert len(keys) == len(set(keys))
    assert not any("all" in key for key in keys)
    write_report(tmp_path / "r.html", results, records)
    page = Page((tmp_path / "r.html").read_text())
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {v[1:] for k, v in page.attributes if k == "href"} <= set(ids)
    assert "Scores over all parts" not in page.text


def test_scores_over_all_environments_need_a_named_reference_for_each() -> None:
    results, records = parts(datasets=False)
    references = {
        "Pendulum-v1": ScoreReference("ours", "Pendulum-v1", 0.0, 40.0, "s"),
        "Hopper-v5": ScoreReference("ours", "Hopper-v5", 1000.0, 1040.0, "s"),
    }
    found = {picture.key: picture for picture in pictures(build_report(results, records, score=references).blocks)}
    assert isinstance(found["all-profile"], Picture)
    curve = found["all-profile"].data.query("learner == 'dr_sac' and 20 < tau < 80")["value"]
    assert set(curve) == {1.0}
    assert "ours" in found["all-profile"].caption
    one = build_report(results, records, score={"Hopper-v5": references["Hopper-v5"]})
    assert "all-profile" not in [picture.key for picture in pictures(one.blocks)]


def test_a_learner_keeps_its_colour_in_every_section() -> None:
    results, records = parts(datasets=False)
    frame = results.frame[~((results.frame["env_id"] == "Hopper-v5") & (results.frame["learner"] == "sac"))]
    report = build_report(Results(frame.reset_index(drop=True)), records)
    assert [part.known.place("dr_sac") for part in report.parts] == [1, 1]


def test_labels_that_differ_by_dataset_stay_in_one_table() -> None:
    results, records = parts(datasets=True)
    frame = results.frame.assign(learner=results.frame["learner"] + " " + results.frame["run"].str.split("-").str[-1])
    assert len(build_report(Results(frame), records).parts) == 1


def test_a_run_goes_by_the_name_that_the_table_has_for_it() -> None:
    results, _ = parts(datasets=False)
    report = build_report(results, [record("dr_sac-0-one", "another label")])
    assert [r.learner for part in report.parts for r in part.records] == ["dr_sac"]


def test_learning_curves_count_updates_of_the_policy_whatever_came_before(tmp_path: Path) -> None:
    lines = [{"step": k, "phase": "model", "model/loss": 1.0} for k in (10, 20)]
    lines += [{"step": k, "phase": "train", "train/critic_loss": 1.0, "dual/beta": 2.0} for k in (30, 40)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    modelled = replace(RunRecord.read(tmp_path), name="a", learner="a")
    records = [modelled, RunRecord("b", "b", metrics={"train/critic_loss": (np.array([10.0, 20.0]), np.ones(2))})]
    for prefix in ("train/", "dual/", "model/"):
        for _, own in metric_data(records, (prefix,)).groupby("learner"):
            assert own["step"].tolist() == [10.0, 20.0], prefix


def test_simulations_that_broke_down_are_told() -> None:
    results = two_learners()
    meta = {"parts": [{"env_id": "Pendulum-v1", "broken": {"length x1.5": 2}} for _ in range(2)]}
    assert "length x1.5: 4 episodes" in document(build_report(Results(results.frame, meta)).blocks)
    assert "Broken simulations" not in document(build_report(results).blocks)


@pytest.mark.parametrize("learners", [1, 2])
def test_a_report_on_the_nominal_system_alone_says_nothing_of_perturbations(learners: int) -> None:
    """Its one condition is neither "all conditions" nor the worst of several; its verdict is about that system."""
    rng = np.random.default_rng(0)
    whole = [table(rng.normal(size=(2, 1, 6)) + level, name, [1.0]).frame for name, level in (("a", 9), ("b", 0))]
    results = Results(pd.concat(whole[:learners], ignore_index=True))
    assert results.frame["nominal"].all()
    report = build_report(results)
    text = document(report.blocks)
    assert report.heading.endswith(" in Pendulum-v1, on the nominal system")
    for said in ("perturbed, ", ", perturbed", "ll conditions", "Worst", "worst condition", "Far"):
        found = [line for line in text.splitlines() if said in line and "Performance profile" not in line]
        # What a column means is explained in the same words whatever was evaluated.
        assert not [line for line in found if line.startswith((">", "|", "#"))], said
    assert ("On the nominal system, a returns more than b" in text) == (learners == 2)
    assert ("Nothing was perturbed." in text) == (learners == 1)
    assert "Worst level" not in summary_table(results)


def test_a_report_on_perturbed_systems_says_so() -> None:
    report = build_report(two_learners())
    assert report.heading.endswith(", perturbed")
    assert "worst" in document(report.blocks).lower()
