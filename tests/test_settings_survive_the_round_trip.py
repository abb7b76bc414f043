"""A setting that a run was started with is the setting it is resumed and evaluated with: infinite values included."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from toys import run_values

from offline_robust.collection import collect
from offline_robust.datasets import load_dataset
from offline_robust.datasets.writers import write_npz
from offline_robust.environment import make_spec
from offline_robust.experiments import load_run, train
from offline_robust.experiments.config import load_config
from offline_robust.experiments.evaluating import compare_runs
from offline_robust.experiments.reporting import save_report
from offline_robust.sweeps.grids import digest
from offline_robust.sweeps.worker import prepare, refuse_another

LIMITS = {"healthy_z_range": [0.5, math.inf], "healthy_state_range": [-math.inf, 100.0]}
ODD = {**LIMITS, "deep": {"nan": math.nan, "list": [[-math.inf], None, True, "inf"]}}


def test_as_yaml(tmp_path: Path) -> None:
    config = load_config("sac/pendulum", {"env_kwargs": ODD})
    assert str(config.to_dict()["env"]["kwargs"]) == str(ODD)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    again = load_config(tmp_path / "config.yaml")
    assert str(again.to_dict()) == str(config.to_dict())
    assert digest(again) == digest(config)


def test_a_cell_of_a_sweep_is_its_own(tmp_path: Path) -> None:
    config = load_config("sac/pendulum", {"env_kwargs": ODD})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    prepare(tmp_path, load_config("sac/pendulum", {"env_kwargs": ODD}))
    with pytest.raises(Exception, match="healthy_z_range"):
        refuse_another(tmp_path, load_config("sac/pendulum", {"env_kwargs": ODD | {"healthy_z_range": [0.5, 2.0]}}))


def test_from_training_to_results(tmp_path: Path) -> None:
    data = collect(None, make_spec("Hopper-v5", LIMITS), transitions=300, seed=0)
    write_npz(data, tmp_path / "data.npz")
    assert load_dataset(tmp_path / "data.npz", cache=False).environment.kwargs == LIMITS
    values = run_values(str(tmp_path / "data.npz"), "sac", steps=2) | {"env_kwargs": LIMITS}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(values, out=tmp_path / "run", progress=stop)
    run = load_run(train(values, out=tmp_path / "run", resume=True).folder)
    assert run.environment.kwargs == run.config.env.kwargs == LIMITS
    results = compare_runs([run], episodes=2, cells=tmp_path / "cells")
    told = []
    again = compare_runs([run], episodes=2, cells=tmp_path / "cells", progress=lambda *what: told.append(what[1]))
    assert told[0] == 1  # from its cells, all of it
    assert again.frame.equals(results.frame)
    save_report(run.folder, results, [run], "")
    assert json.loads((run.folder / "results.meta.json").read_text())["environment"]["kwargs"] == LIMITS
