"""The report: one file that loads nothing, runs nothing it was given, says what the numbers allow, and repeats."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_statistics_match_their_definitions import table

from offline_robust.errors import EvaluationError
from offline_robust.evaluation import Results, evaluate
from offline_robust.reports import (
    RunRecord,
    headline,
    heat_figure,
    level_figure,
    metric_figure,
    save_png,
    summary_table,
    write_report,
)
from offline_robust.reports.canvas import svg
from offline_robust.reports.text import number, safe, span

NASTY = "$\\frac{$ <script>alert(1)</script>\" onload='x' &"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def two_learners(trainings: int = 3, gain: float = 50.0, a: str = "robust", b: str = "plain") -> Results:
    rng = np.random.default_rng(0)
    starts = 30.0 * rng.normal(size=(1, 1, 10))
    base = -300.0 + starts + 5.0 * rng.normal(size=(trainings, 11, 10))
    rise = np.where(np.abs(np.arange(11) - 5) >= 3, gain, 0.0)[None, :, None]
    other = -300.0 + starts + rise + 5.0 * rng.normal(size=(trainings, 11, 10))
    return Results.concat([table(other, a), table(base, b)])


def run_folder(folder: Path, learner: str = "robust") -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text("learner:\n  delta: 0.5  # <b>\n")
    meta = {
        "learner": learner,
        "seed": 3,
        "dataset": {"name": "pendulum-td3", "fingerprint": "abc123"},
        "command": "offline-robust train x.yaml",
        "training_minutes": 2.5,
        "versions": {"torch": "2.13"},
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    lines = [json.dumps({"step": k, "train/critic_loss": 1.0 / (k + 1), "dual/beta": k}) for k in range(50)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 5')
    model = {
        "rmse": [0.1, 0.2],
        "spread": [0.01],
        "step_std": [0.5, 0.0],
        "names": ["cos", "sin"],
        "coverage": {"nominal": [0.5, 0.9], "observed": [0.4, 0.7]},
        "warnings": ["hardly any spread"],
    }
    (folder / "model.json").write_text(json.dumps(model))
    return folder


def test_the_page_loads_nothing_and_needs_no_script(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, two_learners(), [RunRecord.read(run_folder(tmp_path / "r"))], command="offline-robust report")
    text = path.read_text()
    page = Page(text)
    assert not {"script", "link", "iframe", "img", "object", "embed"} & set(page.tags)
    assert "://" not in text
    assert "@import" not in text
    for name, value in page.attributes:
        if name in ("href", "src"):
            assert value.startswith("#")
    # Levels, difference, profile, training and dual, each for a large and for a small screen.
    assert page.tags.count("svg") == 10
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | {v[1:] for k, v in page.attributes if k == "href"}
    assert used <= set(ids)
    for words in ("offline-robust report", "offline-robust train x.yaml", "abc123", "hardly any spread", "delta: 0.5",
                  "1 line of metrics.jsonl could not be read", "50 % interval holds 40 %"):  # fmt: skip
        assert words in page.text


def test_names_from_outside_cannot_become_markup_or_formulas(tmp_path: Path) -> None:
    results = two_learners(a=NASTY, b="</style><b>" + "\x00\ud800")
    folder = run_folder(tmp_path / "r", learner=NASTY)
    (folder / "model.json").write_text(json.dumps({"names": [NASTY], "rmse": [1], "warnings": [NASTY]}))
    record = RunRecord.read(folder)
    write_report(tmp_path / "x.html", results, [record], title=NASTY, command=NASTY)
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert NASTY in page.text
    assert text.count("</style>") == text.count("<style")
    assert safe("<a>\x07&\"'") == "&lt;a&gt;&amp;&quot;&#x27;"


def test_the_same_input_gives_the_same_page(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(tmp_path / name, two_learners(), title="t")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_headline_claims_a_difference_only_where_the_interval_shows_one() -> None:
    short, long = headline(two_learners(gain=50.0))
    assert short == "Far from nominal, robust returns more than plain."
    assert "length x0.7 and below, x1.3 and above" in long
    assert "in favour of robust" in long
    assert long.count("not distinguishable from zero") == 1
    assert headline(two_learners(gain=-50.0))[0] == "Far from nominal, robust returns less than plain."
    assert headline(two_learners(gain=0.0))[0] == "Far from nominal, robust cannot be told apart from plain."


def test_few_trainings_are_said_out_loud(tmp_path: Path) -> None:
    for trainings, words in ((1, "a single training"), (2, "only 2 trainings"), (5, None)):
        write_report(tmp_path / "r.html", two_learners(trainings))
        text = Page((tmp_path / "r.html").read_text()).text
        assert ("At least one learner has" in text) == (words is not None)
        assert words is None or words in text
    short, long = headline(two_learners(1))
    assert short == "Far from nominal, robust returns more than plain, as far as these trained policies go."
    assert "for these trained policies" in long


def test_one_learner_alone_gets_a_report_with_its_worst_condition(tmp_path: Path) -> None:
    returns = np.full((2, 11, 4), -100.0)
    returns[:, 0] = -900.0
    results = table(returns, "solo")
    (sentence,) = headline(results)
    assert "Its worst condition is length x0.5, with −900" in sentence
    write_report(tmp_path / "r.html", results)
    assert "Differences" not in Page((tmp_path / "r.html").read_text()).text


def test_numbers_in_the_page_are_the_tables_numbers(tmp_path: Path) -> None:
    results = two_learners()
    write_report(tmp_path / "r.html", results, baseline="robust")
    text = Page((tmp_path / "r.html").read_text()).text
    for _, row in results.summary().iterrows():
        assert number(row["value"]) in text
        assert span(row["low"], row["high"]) in text
    assert "plain − robust" in text
    terminal = summary_table(results)
    assert "CVaR 10 %" in terminal
    assert number(results.summary()["value"].iloc[0]) in terminal
    with pytest.raises(EvaluationError, match="did you mean 'robust'"):
        write_report(tmp_path / "r.html", results, baseline="robst")


def test_the_curves_in_the_figure_are_the_means() -> None:
    results = two_learners()
    figure = level_figure(results)
    assert figure is not None
    lines = figure.axes[0].get_lines()
    frame = results.frame[results.frame["learner"] == "robust"]
    expected = frame.groupby("condition", sort=False)["return"].mean().to_numpy()
    thick = [line for line in lines if line.get_linewidth() > 2]
    np.testing.assert_allclose(np.asarray(thick[0].get_ydata()), expected)
    np.testing.assert_allclose(np.asarray(thick[0].get_xdata()), 0.5 + 0.1 * np.arange(11))


def test_a_grid_becomes_a_heat_map_of_its_means(tmp_path: Path) -> None:
    results = evaluate(
        lambda o: np.ones((len(o), 1)), "Pendulum-v1", perturb=["length=0.5,1", "mass=1,2,3"], episodes=2, learner="x"
    )
    assert level_figure(results) is None
    figure = heat_figure(results)
    assert figure is not None
    shown = np.asarray(figure.axes[0].images[0].get_array())
    expected = results.frame.groupby("condition", sort=False)["return"].mean().to_numpy().reshape(2, 3)
    np.testing.assert_allclose(shown, expected)
    write_report(tmp_path / "r.html", results)
    assert "Mean return over the grid" in (tmp_path / "r.html").read_text()


def test_a_run_folder_may_lack_or_break_anything_but_itself(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no such run folder"):
        RunRecord.read(tmp_path / "none")
    empty = tmp_path / "empty"
    empty.mkdir()
    record = RunRecord.read(empty)
    assert len(record.notes) == 3
    broken: dict[str, Any] = {
        "meta.json": "[1, 2", "model.json": '{"rmse": "x", "coverage": 3, "names": 5, "radius": null, "warnings": 1}',
        "metrics.jsonl": '{"step": "a"}\n[]\nnull\n{"step": 1, "train/x": NaN, "train/y": 1e999, "train/z": 3}\n',
        "config.yaml": "a: [",
    }  # fmt: skip
    for name, content in broken.items():
        (empty / name).write_text(content)
    record = RunRecord.read(empty)
    assert any("3 lines of metrics.jsonl" in note for note in record.notes)
    assert record.metrics["train/z"][1].tolist() == [3.0]
    assert record.metrics["train/x"][1].size == 0
    write_report(tmp_path / "r.html", two_learners(), [record, RunRecord("bare")])
    assert "meta.json does not hold a JSON object" in Page((tmp_path / "r.html").read_text()).text


def test_long_metrics_are_thinned_and_figures_become_png(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"step": k, "train/loss": k}) for k in range(5_000))
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(lines)
    record = RunRecord.read(folder)
    steps, values = record.metrics["train/loss"]
    assert 300 <= len(steps) <= 600
    np.testing.assert_array_equal(steps, values)
    figure = metric_figure([record], ["x"], ["train/"])
    assert figure is not None
    save_png(figure, tmp_path / "f.png")
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert metric_figure([record], ["x"], ["dual/"]) is None
    assert svg(figure, "t", "p") == svg(figure, "t", "p")


def test_numbers_read_well() -> None:
    assert [number(x) for x in (-1234.5, 12.34, 1.234, 0.01234, 0.0, float("nan"), -0.0001)] == [
        "−1,234", "12.3", "1.23", "0.012", "0.000", "–", "0.000"
    ]  # fmt: skip
    assert span(-7.13, 83.6, signed=True) == "−7.1 to +83.6"
    assert span(0.25, 183.0) == "0.250 to 183"
