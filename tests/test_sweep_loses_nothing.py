"""A sweep may be killed, may fail in part, may be started again: what is finished stays, what is not goes on."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweep_toys import base, contents, in_process, write_sweep, written_elsewhere

from offline_robust.cli import main
from offline_robust.errors import ConfigError, FolderInUse
from offline_robust.evaluation import Results
from offline_robust.experiments import load_run
from offline_robust.experiments.checkpoints import load_checkpoint
from offline_robust.sweeps import driver, engines, worker
from offline_robust.sweeps.driver import load_of, run_sweep
from offline_robust.sweeps.engines import Load
from offline_robust.sweeps.grids import expand, load_sweep
from offline_robust.sweeps.worker import LOG, is_finished

COMMAND = [sys.executable, "-c", "from offline_robust.cli import main; main()", "sweep"]


@pytest.fixture
def processless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps compute their cells in this process and draw no figures: these tests are about neither."""
    monkeypatch.setattr(driver, "engine", lambda name: in_process)
    monkeypatch.setattr(driver, "save_report", no_report)


def no_report(out: Path, *_: Any) -> Path:
    """In the place of a report, which would take longer than the sweep."""
    return out / "report.html"


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["offline-robust", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        main()
    captured = capsys.readouterr()
    return int(leaving.value.code or 0), captured.out, captured.err


def run(path: Path, out: Path, **more: Any) -> driver.SweepOutcome:
    sweep = load_sweep(path)
    return run_sweep(sweep, expand(sweep), out, **more)


def wait_for(condition: Any, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


def test_killed_with_its_whole_group_and_started_again_gives_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processes of their own both times, and as one process computes it that is never stopped."""
    path = write_sweep(tmp_path, base=base(steps=400, log_every=20, checkpoint_every=40))
    out = tmp_path / "out"
    folders = [out / "runs" / f"tau={tau}-seed0" for tau in ("0.005", "0.01")]
    checkpoints = [folder / "checkpoints" / "last.safetensors" for folder in folders]
    command = [*COMMAND, str(path), "--out", str(out), "--quiet"]
    cut = subprocess.Popen([*command, "--jobs", "2"], start_new_session=True)
    wait_for(lambda: all(file.exists() for file in checkpoints), cut)
    os.killpg(cut.pid, signal.SIGKILL)
    assert cut.wait() == -signal.SIGKILL, "the sweep was over before it could be killed"
    assert not (out / "results.csv").exists()
    reached = [load_checkpoint(file)["step"] for file in checkpoints]
    assert all(0 < step <= 400 for step in reached)
    monkeypatch.setattr(driver, "save_report", no_report)
    assert [state.state for state in run(path, out, jobs=2).states] == ["finished", "finished"]

    # Beside it the same sweep, never stopped.
    cells = expand(load_sweep(path))
    for cell in cells:
        folder = tmp_path / "whole" / "runs" / cell.name
        folder.mkdir(parents=True)
    monkeypatch.setattr(driver, "engine", lambda name: in_process)
    run(path, tmp_path / "whole")
    assert (out / "results.csv").read_bytes() == (tmp_path / "whole" / "results.csv").read_bytes()
    for folder in folders:
        for name in ("policy.safetensors", "checkpoints/last.safetensors", "results.csv"):
            twin = tmp_path / "whole" / "runs" / folder.name / name
            assert (folder / name).read_bytes() == twin.read_bytes(), name


@pytest.mark.usefixtures("processless")
def test_a_finished_sweep_is_not_touched_and_a_larger_one_does_only_what_is_new(tmp_path: Path) -> None:
    first = run(write_sweep(tmp_path), tmp_path / "out")
    assert [state.state for state in first.states] == ["finished", "finished"]
    before = contents(tmp_path / "out" / "runs")
    again = run(write_sweep(tmp_path, grid={"learner.tau": [0.01, 0.005, 0.02]}), tmp_path / "out")
    after = contents(tmp_path / "out" / "runs")
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"tau=0.02-seed0"}
    assert again.results is not None
    assert again.results.learners == ["sac tau=0.01", "sac tau=0.005", "sac tau=0.02"]


@pytest.mark.usefixtures("processless")
def test_another_evaluation_is_done_anew_on_the_policies_that_are_there(tmp_path: Path) -> None:
    run(write_sweep(tmp_path), tmp_path / "out")
    policy = tmp_path / "out" / "runs" / "tau=0.01-seed0" / "policy.safetensors"
    made = policy.stat().st_mtime_ns
    outcome = run(write_sweep(tmp_path, evaluation={"episodes": 3}), tmp_path / "out")
    assert outcome.results is not None
    assert set(outcome.results.frame["condition"]) == {"nominal"}
    assert outcome.results.frame["episode"].max() == 2
    assert policy.stat().st_mtime_ns == made


@pytest.mark.usefixtures("processless")
def test_a_suite_file_that_changed_is_evaluated_anew(tmp_path: Path) -> None:
    path = write_sweep(tmp_path)
    run(path, tmp_path / "out")
    suite = tmp_path / "suite.yaml"
    suite.write_text(suite.read_text().replace("0.8", "0.7"))
    outcome = run(path, tmp_path / "out")
    assert outcome.results is not None
    assert set(outcome.results.frame["condition"]) == {"length x0.7", "length x1"}


@pytest.mark.usefixtures("processless")
def test_two_processes_that_share_a_folder_fill_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process finishes while this one works is in this one's table and index."""
    sweep = load_sweep(write_sweep(tmp_path))
    first, second = expand(sweep)
    work = driver.engine("local")

    def meanwhile(folders: Any, load: Any) -> Iterator[Any]:
        monkeypatch.setattr(driver, "engine", lambda name: work)
        run_sweep(sweep, [first, second], tmp_path / "out", chosen=[second])
        yield from work(folders, load)

    monkeypatch.setattr(driver, "engine", lambda name: meanwhile)
    outcome = run_sweep(sweep, [first, second], tmp_path / "out", chosen=[first])
    assert [state.state for state in outcome.states] == ["finished", "finished"]
    assert Results.read(tmp_path / "out" / "results.csv").learners == ["sac tau=0.005", "sac tau=0.01"]
    cells = json.loads((tmp_path / "out" / "cells.json").read_text())["cells"]
    assert [cell["state"] for cell in cells] == ["finished", "finished"]


@pytest.mark.usefixtures("processless")
def test_results_overwritten_by_hand_are_made_again(tmp_path: Path) -> None:
    path = write_sweep(tmp_path)
    run(path, tmp_path / "out")
    cell = expand(load_sweep(path))[0]
    folder = tmp_path / "out" / "runs" / cell.name
    table = folder / "results.csv"
    whole = table.read_bytes()
    table.write_bytes(whole.splitlines(keepends=True)[0])
    assert not is_finished(folder, cell.config)
    run(path, tmp_path / "out")
    assert table.read_bytes() == whole


@pytest.mark.usefixtures("processless")
def test_an_evaluation_that_was_not_marked_yet_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the table was there and the mark was not: the cells of the evaluation still are, and serve."""
    path = write_sweep(tmp_path, grid=None)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            run(path, tmp_path / "out")
    folder = tmp_path / "out" / "runs" / "base-seed0"
    table = (folder / "results.csv").read_bytes()
    assert len(list((folder / "cells").iterdir())) == 2
    monkeypatch.setattr("offline_robust.evaluation.rollout.run_conditions", killed)
    run(path, tmp_path / "out")
    assert (folder / "results.csv").read_bytes() == table
    assert not (folder / "cells").exists()


@pytest.mark.usefixtures("processless")
def test_a_failed_run_is_told_with_its_last_lines_and_loses_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.npz").write_bytes(b"not an archive")
    bad = {"name": "bad", "dataset": str(tmp_path / "bad.npz")}
    path = write_sweep(tmp_path, grid=None, list=[{"name": "good"}, bad, {"learner.tau": 0.01}])
    out = tmp_path / "out"
    status, printed, errors = call(capsys, monkeypatch, "sweep", str(path), "--out", str(out))
    assert status == 1
    assert "failed: bad-seed0: error: " in errors
    assert "bad.npz" in errors
    assert str(out / "runs" / "bad-seed0" / LOG) in errors.replace("\n", "")
    assert "3 runs: 2 finished, 1 failed" in printed
    index = {cell["name"]: cell for cell in json.loads((out / "cells.json").read_text())["cells"]}
    assert {name: cell["state"] for name, cell in index.items()} == {
        "good-seed0": "finished",
        "bad-seed0": "failed",
        "tau=0.01-seed0": "finished",
    }
    assert "bad.npz" in index["bad-seed0"]["error"][-1]
    assert sorted(Results.read(out / "results.csv").frame["run"].unique()) == ["good-seed0", "tau=0.01-seed0"]


@pytest.mark.usefixtures("processless")
def test_a_bug_in_a_run_is_its_own_and_leaves_a_traceback_in_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The package's `train` is the function, which hides the module of that name.
    module = importlib.import_module("offline_robust.experiments.train")
    whole = module.train

    def broken(config: Any, **more: Any) -> Any:
        if config.learner.tau == 0.01:
            raise ZeroDivisionError("a bug")
        return whole(config, **more)

    monkeypatch.setattr(module, "train", broken)
    outcome = run(write_sweep(tmp_path), tmp_path / "out")
    assert [state.state for state in outcome.states] == ["finished", "failed"]
    assert outcome.failed[0].said[-1] == "ZeroDivisionError: a bug"
    assert "Traceback" in (outcome.failed[0].folder / LOG).read_text()


@pytest.mark.usefixtures("processless")
def test_every_cell_is_an_ordinary_run(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, seeds=[4])
    run(path, tmp_path / "out")
    for cell in expand(load_sweep(path)):
        opened = load_run(tmp_path / "out" / "runs" / cell.name)
        assert opened.config == cell.config
        assert opened.policy.spec.env_id == "Pendulum-v1"
    table = Results.read(tmp_path / "out" / "results.csv")
    assert set(table.frame["training_seed"]) == {4}
    assert table.meta["datasets"] == dict.fromkeys(table.frame["run"].unique(), "pendulum-td3")
    resolved = tmp_path / "out" / "sweep.yaml"
    assert [c.name for c in expand(load_sweep(resolved))] == [c.name for c in expand(load_sweep(path))]


@pytest.mark.usefixtures("processless")
def test_data_without_an_environment_are_trained_on_and_not_evaluated(tmp_path: Path) -> None:
    from toys import line_dataset, saved

    values = base() | {"dataset": saved(line_dataset(), tmp_path)}
    del values["env"]
    path = write_sweep(tmp_path, base=values)
    outcome = run(path, tmp_path / "out")
    assert [state.state for state in outcome.states] == ["finished", "finished"]
    assert outcome.results is None
    before = contents(tmp_path / "out" / "runs")
    run(path, tmp_path / "out")
    assert contents(tmp_path / "out" / "runs") == before


@pytest.mark.usefixtures("processless")
def test_a_folder_of_another_configuration_is_refused_before_anything_runs(tmp_path: Path) -> None:
    path = write_sweep(tmp_path)
    run(path, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"holds a run with training\.steps=40, not 41; choose another --out"):
        run(write_sweep(tmp_path, base=base(steps=41)), tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_a_dry_run_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_sweep(tmp_path)
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    status, printed, _ = call(capsys, monkeypatch, "sweep", str(path), "--dry-run")
    assert (status, printed.splitlines()) == (
        0,
        ["new       tau=0.005-seed0", "new       tau=0.01-seed0", "2 runs: 2 new"],
    )
    assert contents(tmp_path) == before
    status, printed, _ = call(capsys, monkeypatch, "sweep", str(path), "learner.tau=0.01", "--dry-run", "--json")
    assert [cell["name"] for cell in json.loads(printed)["cells"]] == ["tau=0.01-seed0"]
    assert contents(tmp_path) == before


def test_a_run_that_another_process_has_in_hand_is_left_alone(tmp_path: Path) -> None:
    path = write_sweep(tmp_path)
    cell = expand(load_sweep(path))[0]
    worker.prepare(tmp_path / cell.name, cell.config)
    with written_elsewhere(tmp_path / cell.name), pytest.raises(FolderInUse, match="another thread of this process"):
        worker.run_cell(tmp_path / cell.name)


@pytest.mark.usefixtures("processless")
def test_a_run_in_other_hands_has_not_failed(tmp_path: Path) -> None:
    path = write_sweep(tmp_path)
    taken, _ = expand(load_sweep(path))
    folder = tmp_path / "out" / "runs" / taken.name
    folder.mkdir(parents=True)
    with written_elsewhere(folder):
        outcome = run(path, tmp_path / "out")
    assert [state.state for state in outcome.states] == ["new", "finished"], "nothing is written there yet"
    assert not outcome.failed
    assert any(f"has them in hand: {taken.name}" in note for note in outcome.notes)
    assert [state.state for state in run(path, tmp_path / "out").states] == ["finished", "finished"]


@pytest.mark.usefixtures("processless")
def test_a_run_that_ends_in_other_hands_meanwhile_stays_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left alone at first, finished by the other process before this one writes its table."""
    sweep = load_sweep(write_sweep(tmp_path))
    taken, own = expand(sweep)
    work = driver.engine("local")

    def others_hand(folders: Any, load: Any) -> Iterator[Any]:
        first, second = folders
        yield [(first, None), (first, worker.IN_HAND)]
        yield from work([second], load)
        yield from ([] for _ in work([first], load))  # the other process: this one hears nothing of it

    monkeypatch.setattr(driver, "engine", lambda name: others_hand)
    outcome = run_sweep(sweep, [taken, own], tmp_path / "out")
    assert [state.state for state in outcome.states] == ["finished", "finished"]
    assert not outcome.notes
    assert Results.read(tmp_path / "out" / "results.csv").learners == ["sac tau=0.005", "sac tau=0.01"]


class TestProcesses:
    """The local engine, with processes that only wait for their standard input to end."""

    @pytest.fixture(autouse=True)
    def _waiting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def start(folder: Path, threads: int) -> subprocess.Popen[bytes]:
            program = [sys.executable, "-I", "-S", "-c", f"import time; time.sleep({folder.name})"]
            return subprocess.Popen(program, stdin=subprocess.PIPE)

        monkeypatch.setattr(engines, "_start", start)
        monkeypatch.setattr(engines, "_TICK", 0.01)

    def test_no_more_at_once_than_asked_for_and_all_in_the_end(self) -> None:
        running: set[Path] = set()
        most, ended = 0, []
        folders = [Path(f"0.0{number}") for number in range(1, 8)]
        for events in engines.run_local(folders, Load(3)):
            for folder, status in events:
                if status is None:
                    running.add(folder)
                else:
                    running.remove(folder)
                    ended.append((folder, status))
            most = max(most, len(running))
        assert most == 3
        assert sorted(ended) == [(folder, 0) for folder in folders]

    def test_stopping_ends_every_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        started: list[subprocess.Popen[bytes]] = []
        start = engines._start
        monkeypatch.setattr(engines, "_start", lambda *a: started.append(start(*a)) or started[-1])
        folders = [Path("100"), Path("200"), Path("300")]
        with (
            pytest.raises(KeyboardInterrupt),
            contextlib.closing(engines.run_local(folders, Load(2))) as events,
        ):
            interrupt(events)
        assert len(started) == 2
        assert all(process.poll() is not None for process in started)


def interrupt(events: Iterator[Any]) -> None:
    next(events)
    raise KeyboardInterrupt


def test_a_cell_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Also by kill -9 of the driver alone, when no signal reaches its cells: their standard input ends."""
    path = write_sweep(tmp_path, base=base(steps=10_000_000, log_every=50, checkpoint_every=100))
    cell = expand(load_sweep(path))[0]
    folder = tmp_path / cell.name
    from offline_robust.sweeps.worker import prepare

    prepare(folder, cell.config)
    process = engines._start(folder, 1)
    wait_for((folder / "metrics.jsonl").exists, process)
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=60) == 1


def test_jobs_times_threads_stay_within_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "cores", lambda: 8)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for threads, at_once in ((1, 8), (2, 4), (3, 2), (16, 1)):
        cells = expand(load_sweep({"base": base(threads=threads), "seeds": 30}))
        assert load_of(cells, None) == load_of(cells, None, "ray") == Load(at_once, threads)
        assert load_of(cells, 5) == Load(5, threads)
    on_gpu = expand(load_sweep({"base": base(device="cuda"), "seeds": 30}))
    assert load_of(on_gpu, None) == Load(1, 1, gpus=1)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert load_of(on_gpu, None, "ray") == Load(30, 1, gpus=1)
    assert load_of(on_gpu, None).at_once == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{sweep}", "--engine", "rey"], "--engine rey: unknown engine; did you mean 'ray'"),
        (["none.yaml"], "no such sweep file"),
        (["{sweep}", "seed"], "expected KEY=VALUE"),
        (["{sweep}", "learner.tua=1"], "does not vary 'learner.tua'; did you mean 'learner.tau'"),
        (["{sweep}", "--out", "{sweep}/below"], "cannot be written"),
        (["{sweep}", "--wandb", "sometimes"], "wandb.mode"),
        (["{sweep}", "--wandb-file", "{sweep}/below.yaml"], "cannot be written"),
        (["{sweep}", "--score", "d4rl-v2"], "not for Pendulum-v1"),
        (["{no suite}"], "did you mean 'pendulum-mass'"),
        (["{other suite}"], "is made for CartPole-v1"),
        (["{no data}"], "nothing.npz: no such file"),
        (["{bad key}"], "unknown key 'grids'; did you mean 'grid'"),
        (["{same thing}"], "'learner' and 'learner.tau' set the same thing"),
        (["{no end}"], "evaluation.seed"),
    ],
)
def test_bad_input_is_one_line_and_status_two(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_sweep(tmp_path)
    changed = {
        "no suite": {"evaluation": {"suite": "pendulum-mas"}},
        "other suite": {"evaluation": {"suite": "ddrq"}},
        "no data": {"base": base() | {"dataset": "nothing.npz"}},
        "bad key": {"grids": {}},
        "same thing": {"list": [{"learner": {"name": "sac"}}]},
        "no end": {"evaluation": {"seed": 2**63}},
    }
    for name, changes in changed.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    files = {"{sweep}": path} | {f"{{{name}}}": tmp_path / f"{name}.yaml" for name in changed}
    for name, file in files.items():
        arguments = [argument.replace(name, str(file)) for argument in arguments]
    status, _, errors = call(capsys, monkeypatch, "sweep", *arguments)
    assert (status, errors.count("\n")) == (2, 1), errors
    assert said in errors
    assert not list(tmp_path.glob("runs*"))
