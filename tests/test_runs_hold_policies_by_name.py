"""A run holds the deployed policy, and others by name; one reader opens them all."""

from __future__ import annotations

import pytest
import torch
from toys import line_dataset, run_values, saved, toy_learner

import offline_robust as orl
from offline_robust.errors import CheckpointError
from offline_robust.experiments import train
from offline_robust.experiments.run import POLICIES, save_policies
from offline_robust.learners import SAC


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """SAC that keeps the actor it learns beside the one it deploys."""
    alone = SAC.policies
    monkeypatch.setattr(SAC, "policies", lambda self: {**alone(self), "learning": orl.Policy(self.spec, self.actor)})


def test_every_policy_of_a_learner_is_saved_and_read_by_name(two: None, tmp_path) -> None:
    run = train(run_values(saved(line_dataset(), tmp_path), "sac"), out=tmp_path / "run")
    read = orl.load_run(run.folder)
    assert list(read.policies) == ["policy", "learning"]
    observations = line_dataset().observations
    assert torch.equal(read.policies["policy"].act(observations), read.policy.act(observations))
    file = run.folder / POLICIES / "learning.safetensors"
    assert torch.equal(orl.load_policy(file).act(observations), read.policies["learning"].act(observations))


def test_runs_of_one_policy_have_no_further_folder(tmp_path) -> None:
    run = train(run_values(saved(line_dataset(), tmp_path), "sac"), out=tmp_path / "run")
    assert not (run.folder / POLICIES).exists()
    assert list(run.policies) == ["policy"]


def test_names_that_are_no_names_are_refused(two: None, tmp_path) -> None:
    policies = toy_learner("sac", line_dataset()).policies()
    for name in ("../out", "Upper", "", "a b", "x" * 60):
        with pytest.raises(ValueError, match="no name of a policy"):
            save_policies(tmp_path, {**policies, name: policies["policy"]})
    assert not list(tmp_path.iterdir())
    run = train(run_values(saved(line_dataset(), tmp_path), "sac"), out=tmp_path / "run")
    (run.folder / POLICIES / "learning.safetensors").rename(run.folder / POLICIES / "-x.safetensors")
    with pytest.raises(CheckpointError, match="not the policies of a run"):
        _ = orl.load_run(run.folder).policies
