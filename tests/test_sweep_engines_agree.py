"""A sweep on Ray gives the tables and the weights that it gives in processes, cell by cell."""

from __future__ import annotations

from pathlib import Path

import pytest
from sweep_toys import in_process, write_sweep
from test_nothing_runs_from_the_current_folder import set_traps

from offline_robust.sweeps import driver
from offline_robust.sweeps.driver import run_sweep
from offline_robust.sweeps.grids import expand, load_sweep


def test_two_ray_workers_equal_local_cell_by_cell_and_a_failed_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.npz").write_bytes(b"not an archive")
    bad = {"name": "bad", "dataset": str(tmp_path / "bad.npz")}
    path = write_sweep(tmp_path, grid=None, list=[{"learner.tau": 0.005}, {"learner.tau": 0.01}, bad])
    sweep = load_sweep(path)
    cells = expand(sweep)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "engine", lambda name: in_process)
        here = run_sweep(sweep, cells, tmp_path / "here")
    (tmp_path / "trapped").mkdir()
    set_traps(tmp_path / "trapped")
    monkeypatch.chdir(tmp_path / "trapped")
    ray = run_sweep(sweep, cells, tmp_path / "ray", engine_name="ray", jobs=2)
    assert not (tmp_path / "trapped" / "sprung").exists(), "a worker has imported what lay in the current folder"
    assert Path.cwd() == tmp_path / "trapped"
    states = [(state.cell.name, state.state) for state in ray.states]
    assert states == [(state.cell.name, state.state) for state in here.states]
    assert [state for _, state in states].count("failed") == 1
    assert "bad.npz" in ray.failed[0].said[-1]
    assert (tmp_path / "ray" / "results.csv").read_bytes() == (tmp_path / "here" / "results.csv").read_bytes()
    for name, state in states:
        if state == "finished":
            for file in ("policy.safetensors", "checkpoints/last.safetensors", "results.csv"):
                both = [(tmp_path / engine / "runs" / name / file).read_bytes() for engine in ("here", "ray")]
                assert both[0] == both[1], (name, file)
