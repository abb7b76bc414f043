"""What was evaluated under another suite, seed or environment is never overwritten; the latest is shown."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from toys import run_values

from offline_robust.cli import main
from offline_robust.evaluation import Results
from offline_robust.experiments import load_run, train
from offline_robust.experiments.earlier import earlier_results, name_of, save_results
from offline_robust.experiments.evaluating import compare_runs, open_subject
from offline_robust.experiments.reporting import rewrite_report, save_report
from offline_robust.sweeps.worker import is_finished, prepare, run_cell


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = run_values("pendulum-td3", "sac", steps=1) | {"evaluation": {"episodes": 1, "suite": "pendulum-gravity"}}
    return train(values, out=tmp_path_factory.mktemp("kept") / "run").folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, not evaluated yet, in the working folder."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.yaml", "meta.json", "metrics.jsonl", "policy.safetensors"):
        (folder / name).write_bytes((trained / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return folder


def asked(folder: Path, perturb: str = "mass=0.8", **options: object) -> Results:
    """Evaluates the run, saves it, and gives the table."""
    run = load_run(folder)
    results = compare_runs([run], perturb=[perturb], **{"episodes": 1, **options})
    save_results(folder, results)
    return results


def say(capsys, monkeypatch, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["offline-robust", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        main()
    printed = capsys.readouterr()
    assert not leaving.value.code, printed.err
    return printed.out


def test_another_question_keeps_the_table_before_it(run: Path) -> None:
    first = asked(run)
    second = asked(run, seed=1)
    third = asked(run, "mass=0.9")
    assert Results.read(run / "results.csv").frame.equals(third.frame)
    kept = {path.stem: Results.read(path) for path in earlier_results(run)}
    assert set(kept) == {name_of(first), name_of(second)}
    for table in (first, second):
        assert kept[name_of(table)].frame.equals(table.frame)
        assert kept[name_of(table)].meta["seed"] == table.meta["seed"]


def test_the_same_question_is_answered_anew(run: Path) -> None:
    asked(run)
    more = asked(run, episodes=2)
    assert not earlier_results(run)
    assert len(Results.read(run / "results.csv")) == len(more)
    other = asked(run, "mass=0.9")
    again = asked(run, episodes=3)  # no table of that question but the latest is left
    assert [path.stem for path in earlier_results(run)] == [name_of(other)]
    assert len(Results.read(run / "results.csv")) == len(again)


def test_the_page_says_that_it_shows_the_latest_and_makes_those_of_the_others(run: Path, capsys, monkeypatch) -> None:
    options = ("run", "--episodes", "1", "--perturb")
    assert "earlier" not in say(capsys, monkeypatch, "evaluate", *options, "mass=0.8")
    assert "latest evaluation" not in (run / "report.md").read_text()
    said = say(capsys, monkeypatch, "evaluate", *options, "mass=0.9")
    (kept,) = earlier_results(run)
    assert f"earlier evaluations, kept: run/results/{kept.name}" in said
    text = (run / "report.md").read_text()
    assert "latest evaluation" in text
    assert f"results/{kept.name}" in text
    assert "mass x0.9" in text
    answer = json.loads(say(capsys, monkeypatch, "evaluate", *options, "mass=0.9", "--json"))
    assert answer["earlier"] == [f"run/results/{kept.name}"]
    page = say(capsys, monkeypatch, "report", f"run/results/{kept.name}").removeprefix("report: ").strip()
    assert Path(page) == Path("run/results") / kept.stem / "report.html"
    earlier = Path(page).with_suffix(".md").read_text()
    assert "mass x0.8" in earlier
    assert "latest evaluation" not in earlier
    assert "run" in earlier.partition("## Set-up")[2]  # the run behind it is found
    before = (run / "report.md").read_text()
    say(capsys, monkeypatch, "report", "run/results.csv")
    assert (run / "report.md").read_text() == before


def test_old_and_damaged_tables_are_no_obstacle(run: Path) -> None:
    asked(run)
    (run / "results.meta.json").unlink()  # nothing says what was asked but the table itself
    asked(run, "mass=0.9")
    assert len(earlier_results(run)) == 1
    assert "mass x0.8" in set(Results.read(earlier_results(run)[0]).frame["condition"])
    (run / "results.csv").write_text("damaged")
    asked(run, "mass=0.7")
    assert len(earlier_results(run)) == 1
    assert rewrite_report(run).is_file()


def test_different_runs_in_one_folder(run: Path) -> None:
    policy = open_subject("pendulum-td3")
    for subjects in ([load_run(run), policy], [load_run(run)]):
        results = compare_runs(subjects, perturb=["mass=0.8"], episodes=1)
        save_report(Path("comparison"), results, subjects, "")
    (kept,) = earlier_results(Path("comparison"))
    assert Results.read(kept).learners == ["sac", "pendulum-td3"]


def test_a_cell_of_a_sweep(run: Path) -> None:
    config = load_run(run).config
    prepare(run, config)
    run_cell(run)
    assert is_finished(run, config)
    mine = asked(run)
    run_cell(run)  # the sweep wants its own
    assert Results.read(run / "results.csv").meta["suite"] == "pendulum-gravity"
    assert [path.stem for path in earlier_results(run)] == [name_of(mine)]


def test_names_of_tables_are_plain_whatever_is_in_them(run: Path) -> None:
    results = asked(run)
    results.meta["suite"] = "../../etc/x y[/b]\x00" + "é" * 500
    save_results(run, results)
    asked(run)
    (kept,) = earlier_results(run)
    assert kept.name.isascii()
    assert len(kept.name) < 100
    assert kept.parent == run / "results"


@pytest.mark.parametrize("named", [".", "../run", "run/..", "link"])
def test_a_run_is_called_after_its_folder_however_it_is_opened(named: str, run: Path, monkeypatch) -> None:
    (run.parent / "link").symlink_to(run)
    (run / "run").mkdir()
    monkeypatch.chdir(run.parent if named == "link" else run)
    opened = open_subject(named)
    results = compare_runs([opened], perturb=["mass=0.8"], episodes=1)
    assert set(results.frame["run"]) == {"run"}
    save_report(Path(named), results, [opened], "")
    assert "## Training" in (run / "report.md").read_text()  # its record is found under the same name


def test_all_are_evaluated_as_the_first_one_says(run: Path) -> None:
    """A policy has no suite of its own: the run after it is then evaluated on the nominal system alone, too."""
    results = compare_runs([open_subject("pendulum-td3"), load_run(run)], episodes=1)
    assert set(results.frame["condition"]) == {"nominal"}
    assert len(set(compare_runs([load_run(run), open_subject("pendulum-td3")]).frame["condition"])) == 11
