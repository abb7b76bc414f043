"""Every bundled configuration trains, evaluates under its own suite and reports, at a fraction of its size."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from offline_robust.collection import collect
from offline_robust.datasets.writers import write_npz
from offline_robust.envs import load_suite, system
from offline_robust.experiments import load_config, train
from offline_robust.experiments.evaluating import compare_runs
from offline_robust.experiments.reporting import save_report
from offline_robust.files import bundled

LEARNERS = ("sac", "dr_sac", "fqi", "rfqi")
NAMES = sorted(
    str(path.relative_to(bundled("configs")).with_suffix(""))
    for learner in (*LEARNERS, "d3rlpy")
    for path in bundled("configs").glob(f"{learner}/*")
)
PAPER = ("cartpole", "lunarlander", "reacher", "halfcheetah")


def test_the_papers_environments_have_a_configuration_each() -> None:
    assert {f"{learner}/{env}" for learner in LEARNERS for env in PAPER} <= set(NAMES)


@pytest.mark.parametrize("env", PAPER)
def test_the_baseline_differs_from_dr_sac_in_the_ball_alone(env: str) -> None:
    robust, plain = (load_config(f"{learner}/{env}") for learner in ("dr_sac", "sac"))
    own = {"name", "delta", "samples", "dual", "dual_learning_rate", "train_model", "sampling_precision", "dual_steps"}
    own |= {"divergence", "next_states"}
    left, right = (
        {key: value for key, value in config.learner.model_dump().items() if key not in own}
        for config in (robust, plain)
    )
    assert left == right
    assert (robust.dataset, robust.env, robust.training.steps) == (plain.dataset, plain.env, plain.training.steps)
    assert robust.evaluation == plain.evaluation


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_evaluates_and_reports(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    assert config.env_id is not None
    data = tmp_path / "data.npz"
    write_npz(collect(None, config.env_id, transitions=120), data)
    small = {
        "dataset": str(data),
        "training.steps": 3,
        "training.log_every": 1,
        "training.batch_size": 16,
        "evaluation.suite": str(_thinned(config.evaluation.suite, config.env_id, tmp_path)),
        "evaluation.episodes": 1,
    }
    if config.learner.name in ("fqi", "rfqi"):
        small |= {"learner.vae_hidden": [16], "learner.hidden": [16], "learner.act_candidates": 4}
    if config.learner.name == "fqi":
        small |= {"learner.density_hidden": [16], "training.model_steps": 2}
    if config.model is not None:
        small |= {"training.model_steps": 2, "learner.samples": 4}
    run = train(name, small, out=tmp_path / "run")
    results = compare_runs([run])
    assert (results.frame["env_id"] == config.env_id).all()
    assert len(results.frame) >= 2
    page = save_report(tmp_path / "report", results, [run], "test").read_text()
    assert config.env_id in page


def _thinned(suite: str | None, env: str, folder: Path) -> Path:
    """The first and last condition of a suite, so that a thousand steps of HalfCheetah are not run thirty times."""
    conditions = [c for c in load_suite(suite or "").for_system(system(env)) if not c.nominal]
    chosen = [
        [{"parameter": p.parameter, "level": p.level, "mode": p.mode} for p in c.perturbations]
        for c in (conditions[0], conditions[-1])
    ]
    path = folder / "thin.yaml"
    path.write_text(yaml.safe_dump({"name": "thin", "conditions": chosen}))
    return path
