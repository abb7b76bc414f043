"""`kill -9` in the middle of an evaluation: what is finished is not run again, and the table is the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from offline_robust.environment import EnvironmentSpec
from offline_robust.envs import Axis, Suite, sweeps
from offline_robust.errors import EvaluationError
from offline_robust.evaluation import Results, clear_cells, evaluate, rollout
from offline_robust.networks import Policy, load_policy, policy_spec

ENV = "Pendulum-v1"
LENGTHS = "length=0.6,0.8,1,1.2,1.4"

CUT_SHORT = """
import sys, time
from offline_robust.evaluation import evaluate, rollout
from offline_robust.networks import load_policy

rollout._ROWS = 6  # two conditions at a time
stall = lambda done, total, label: time.sleep(600) if done >= 2 else None
evaluate(load_policy(sys.argv[1]), "Pendulum-v1", perturb=sys.argv[2], episodes=3, cells=sys.argv[3], progress=stall)
"""


def make_policy(seed: int = 0) -> Policy:
    policy = Policy(policy_spec("deterministic", 3, gym.spaces.Box(-2.0, 2.0, (1,)), (8,), EnvironmentSpec(ENV)))
    rng = np.random.default_rng(seed)
    for parameter in policy.actor.parameters():
        parameter.data.copy_(parameter.new_tensor(rng.normal(size=parameter.shape)))
    return policy


def cells_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.cell.json"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every call of any policy of ours."""
    counted: list[int] = []
    act = Policy.act

    def count(self: Policy, observations: NDArray[Any], **options: Any) -> Any:
        counted.append(len(observations))
        return act(self, observations, **options)

    monkeypatch.setattr(Policy, "act", count)
    return counted


def run(cells: Path | None, perturb: str | None = LENGTHS, policy: Policy | None = None, **options: Any) -> Results:
    chosen = {"perturb": perturb, "episodes": 3, "max_steps": 5, "run": "r", "learner": "x"} | options
    return evaluate(policy or make_policy(), ENV, cells=cells, **chosen)


def test_killed_and_resumed_equals_uninterrupted_and_runs_nothing_twice(tmp_path: Path, calls: list[int]) -> None:
    file, cells = tmp_path / "policy.safetensors", tmp_path / "cells"
    make_policy().save(file)
    command = [sys.executable, "-c", CUT_SHORT, str(file), LENGTHS, str(cells)]
    cut = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while len(cells_in(cells)) < 2 and cut.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(cut.pid, signal.SIGKILL)
    assert cut.wait() == -signal.SIGKILL
    assert len(cells_in(cells)) == 2

    told: list[tuple[int, int, str]] = []
    again = evaluate(
        load_policy(file), ENV, perturb=LENGTHS, episodes=3, cells=cells, progress=lambda *a: told.append(a)
    )
    assert len(calls) == 3 * 200
    assert told[0] == (2, 5, "2 of 5 conditions were there already")
    whole = evaluate(load_policy(file), ENV, perturb=LENGTHS, episodes=3)
    for name, results in (("again", again), ("whole", whole)):
        results.save(tmp_path / f"{name}.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert again.meta == whole.meta


def test_finished_conditions_serve_whatever_the_rest_of_the_suite_is(tmp_path: Path, calls: list[int]) -> None:
    run(tmp_path, "length=0.6,1,1.4")
    calls.clear()
    suite = Suite.of("other", sweeps([Axis("mass", (0.9, 1.1)), Axis("length", (1.4, 0.7))]))
    mixed = run(tmp_path, None, suite=suite)
    assert len(calls) == 4 * 5  # length x1.4 is there; nominal, which no sweep named, is not
    np.testing.assert_array_equal(mixed.frame["return"], run(None, None, suite=suite).frame["return"])


@pytest.mark.parametrize(
    "change",
    [
        {"policy": make_policy(1)},
        {"seed": 1},
        {"episodes": 4},
        {"max_steps": 6},
        {"env_kwargs": {"g": 9.81}},
        {"perturb": "length=absolute@0.6,0.8,1,1.2,1.4"},
        {"perturb": "length=0.60000000000004,0.80000000000004,1.00000000000004,1.2000000000004,1.400000000004"},
    ],
)
def test_whatever_changes_the_numbers_runs_again(tmp_path: Path, calls: list[int], change: dict[str, Any]) -> None:
    run(tmp_path)
    calls.clear()
    run(tmp_path)
    assert calls == []
    found = run(tmp_path, **change)
    assert calls
    np.testing.assert_array_equal(found.frame["return"], run(None, **change).frame["return"])


def test_another_version_or_other_code_runs_again(
    tmp_path: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path)
    calls.clear()
    for name, value in (("versions", {"mujoco": "0"}), ("_code", "another")):
        with monkeypatch.context() as patch:
            patch.setattr(f"offline_robust.evaluation.finished.{name}", lambda value=value: value)
            run(tmp_path)
        assert len(calls) == 25, name
        calls.clear()


def test_damaged_and_foreign_cells_are_left_with_a_warning(tmp_path: Path, calls: list[int]) -> None:
    run(tmp_path)
    paths = cells_in(tmp_path)
    assert len(paths) == 5
    content = json.loads(paths[0].read_text())
    calls.clear()
    texts = [
        "", "[]", "\x80\x04.", "{" * 50_000, '{"format": "offline-robust-cell-1"}', paths[1].read_text(), " " * 10**6,
        *(json.dumps(content | {name: value}) for name, value in (
            ("return", [1.0, 2.0, 3.0]), ("length", [5, 5]), ("key", {}), ("format", "x"),
        )),
    ]  # fmt: skip
    for text in texts:
        paths[0].write_text(text)
        with pytest.warns(UserWarning, match=r"not a finished condition of this run .*run again") as warned:
            found = run(tmp_path)
        assert len(warned) == 1
        assert "\n" not in str(warned[0].message)
        assert len(calls) == 5
        calls.clear()
        np.testing.assert_array_equal(found.frame["return"], run(None).frame["return"])
        calls.clear()


def test_numbers_that_a_checksum_cannot_judge_are_refused(tmp_path: Path, calls: list[int]) -> None:
    """A forged cell may carry a right checksum: what it holds is looked at all the same."""
    from offline_robust.evaluation.finished import _digest

    run(tmp_path, "length=1")
    (path,) = cells_in(tmp_path)
    content = json.loads(path.read_text())
    del content["sha256"]
    forged: list[dict[str, Any]] = [
        {"return": [1.0, float("nan"), 2.0]}, {"return": [1.0, float("inf"), 2.0]}, {"return": [1.0, 2, True]},
        {"length": [5, 5, -1]}, {"length": [5, 5, 10**30]}, {"terminated": [0, 0, 0]}, {"return": 3.0},
    ]  # fmt: skip
    for change in forged:
        path.write_text(json.dumps({**content, **change, "sha256": _digest({**content, **change})}))
        calls.clear()
        with pytest.warns(UserWarning, match="not a finished condition"):
            run(tmp_path, "length=1")
        assert len(calls) == 5, change


def test_a_diverged_condition_is_one_line_and_the_finished_ones_survive(
    tmp_path: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rollout.run_conditions

    def diverge(*arguments: Any) -> Any:
        found = whole(*arguments)
        for condition, columns in zip(arguments[2], found, strict=True):
            if condition.label in ("length x0.8", "length x1.4"):
                columns["return"][1] = np.nan
        return found

    monkeypatch.setattr(rollout, "run_conditions", diverge)
    with pytest.raises(EvaluationError, match=r"length x0.8 and 1 more of 5 conditions: the simulation diverged") as e:
        run(tmp_path)
    assert "\n" not in str(e.value)
    assert len(cells_in(tmp_path)) == 3
    calls.clear()
    assert len(run(tmp_path, "length=0.6,1,1.2")) == 9
    assert calls == []


def test_policies_that_cannot_be_told_apart_are_refused_before_anything_runs(tmp_path: Path) -> None:
    changed = make_policy()
    changed.act = lambda observations, **_: observations[:, :1]  # type: ignore[method-assign, assignment]
    for policy in (lambda observations: observations[:, :1], changed):
        with pytest.raises(EvaluationError, match="leave out cells"):
            evaluate(policy, ENV, episodes=1, cells=tmp_path / "cells")
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match="not a folder"):
        run(tmp_path / "file")
    assert not (tmp_path / "cells").exists()


def test_clearing_removes_cells_and_leftovers_of_a_kill_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    run(folder)
    (folder / ".tmp-orl-0123456789abcdef").mkdir()
    (folder / "mine.txt").write_text("kept")
    clear_cells(folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    (folder / "mine.txt").unlink()
    clear_cells(folder)
    assert not folder.exists()
    clear_cells(folder)


def test_clearing_after_one_evaluation_leaves_the_cells_of_another(tmp_path: Path, calls: list[int]) -> None:
    folder = tmp_path / "cells"
    run(folder)
    done = run(folder, "mass=1.1")
    assert len(done.cells) == 2
    clear_cells(folder, done.cells)
    calls.clear()
    run(folder)
    assert calls == []
