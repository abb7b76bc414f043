"""`compare --dataset ... --learners ...`: the same data, updates and evaluation for all, and policies beside runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from sweep_toys import SUITE, contents, in_process

from offline_robust.cli import main
from offline_robust.datasets import load_dataset, write_npz
from offline_robust.environment import EnvironmentSpec
from offline_robust.errors import CheckpointError, ConfigError
from offline_robust.evaluation import Results
from offline_robust.experiments import load_run
from offline_robust.experiments.config import TrainingConfig, load_config
from offline_robust.experiments.evaluating import evaluate_run, open_subject
from offline_robust.learners import LEARNERS
from offline_robust.sweeps import comparison as sweep_comparison
from offline_robust.sweeps import driver
from offline_robust.sweeps.comparison import bundled_config, comparison_sweep, load_comparison
from offline_robust.sweeps.grids import expand

TINY = ["learner.hidden=[16,16]", "training.batch_size=32", "training.log_every=10"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(driver, "engine", lambda name: in_process)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(SUITE))
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["offline-robust", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        main()
    captured = capsys.readouterr()
    return int(leaving.value.code or 0), captured.out, captured.err


def cells_of(**values: Any) -> list[Any]:
    return list(expand(comparison_sweep(load_comparison({"datasets": ["pendulum-td3"], "seeds": 1} | values))))


def test_a_learner_trains_as_its_bundled_configuration_says_on_the_dataset_asked_for() -> None:
    own, other = cells_of(datasets=["halfcheetah-sac"], learners=["dr_sac", "sac"])
    expected = load_config("dr_sac/halfcheetah")
    assert own.config.learner == expected.learner
    assert own.config.training == expected.training
    assert own.config.dataset == other.config.dataset == "halfcheetah-sac"
    assert own.config.evaluation == other.config.evaluation == expected.evaluation
    assert bundled_config("sac", "Pendulum-v1") == "sac/pendulum"  # not pendulum-paper
    assert bundled_config("sac", "Nowhere-v0") is None


def test_a_learner_without_a_configuration_makes_as_many_updates_as_the_first_that_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweep_comparison, "_bundled_configs", lambda: (("sac/pendulum", "sac", "Pendulum-v1"),))
    steps = load_config("sac/pendulum").training.steps
    assert steps != TrainingConfig().steps
    defaults, own = cells_of(learners=["d3rlpy:IQL", "sac"])
    assert defaults.config.learner.name == "d3rlpy:IQL"
    assert defaults.config.training.steps == own.config.training.steps == steps
    assert {cell.config.training.steps for cell in cells_of(learners=["sac", "d3rlpy:IQL"], steps=77)} == {77}
    nothing, modelled = cells_of(datasets=["hopper-sac"], learners=["sac", "dr_sac"])
    assert nothing.config.training.steps == modelled.config.training.steps == TrainingConfig().steps
    assert modelled.config.model is not None
    assert nothing.config.model is None


@pytest.mark.parametrize("dataset", ["pendulum-td3", "reacher-sac", "cartpole-dqn-eps03"])
def test_every_learner_makes_a_run_of_every_dataset_without_a_configuration_of_its_own(
    dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = sweep_comparison._bundled_configs()
    shares = {name: load_config(name).training for name, of, _ in known if of == "fqi"}
    monkeypatch.setattr(
        sweep_comparison, "_bundled_configs", lambda: tuple(found for found in known if found[2] == "Hopper-v5")
    )
    sweep_comparison._share.cache_clear()
    names = [*(name for name in LEARNERS if ":" not in name), "d3rlpy:IQL"]
    found = {cell.config.learner.name: cell.config for cell in cells_of(datasets=[dataset], learners=names)}
    sweep_comparison._share.cache_clear()
    assert set(found) == set(names)
    assert found["dr_sac"].model is not None
    assert found["dr_sac"].training.model_steps == 2_500  # a quarter: no bundled configuration is left to say
    own = shares["fqi/hopper"]
    assert found["fqi"].training.model_steps == round(own.model_steps / own.steps * TrainingConfig().steps)
    assert {found[name].training.model_steps for name in ("sac", "rfqi", "d3rlpy:IQL")} == {0}
    assert found["fqi"].model is None


def test_a_learner_set_to_need_nothing_before_its_policy_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_comparison, "_bundled_configs", lambda: ())
    without = [
        {"learner": "fqi", "set": {"learner.density_filter": False}},
        {"learner": "dr_sac", "set": {"learner.next_states": "data"}},
    ]
    for cell in cells_of(learners=without):
        assert (cell.config.model, cell.config.training.model_steps) == (None, 0), cell.name


def test_model_steps_set_for_all_reach_the_learners_that_have_a_use_for_them() -> None:
    given = cells_of(learners=["sac", "dr_sac", "fqi", "rfqi"], set={"training.model_steps": 7})
    assert [cell.config.training.model_steps for cell in given] == [0, 7, 7, 0]


def test_configs_stand_for_learners_and_single_learners_have_overrides_of_their_own() -> None:
    entries = ["sac/pendulum-paper", {"learner": "sac", "name": "wide", "set": {"learner.hidden": [128, 128]}}, "sac"]
    found = cells_of(learners=entries, set={"training.batch_size": 64})
    assert [cell.name for cell in found] == ["sac-pendulum-paper-seed0", "wide-seed0", "sac-seed0"]
    assert [cell.config.learner.hidden for cell in found][1:] == [(128, 128), (64, 64)]
    assert {cell.config.training.batch_size for cell in found} == {64}


def test_several_datasets_are_told_apart_in_names_and_evaluated_in_their_own_environment() -> None:
    found = cells_of(datasets=["pendulum-td3", "reacher-sac"], learners=["sac", "dr_sac"])
    assert [cell.name for cell in found] == [
        f"{dataset}-{learner}-seed0" for dataset in ("pendulum-td3", "reacher-sac") for learner in ("sac", "dr_sac")
    ]
    assert [cell.config.env_id for cell in found] == ["Pendulum-v1"] * 2 + [load_config("sac/reacher").env_id] * 2
    assert [cell.config.evaluation.suite for cell in found] == ["pendulum-gravity"] * 2 + ["dr_sac"] * 2


def test_one_command_trains_evaluates_and_reports_and_says_how_much_each_trains(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [option for text in TINY for option in ("--set", text)]
    command = ["compare", "--dataset", "pendulum-td3", "--learners", "sac,dr_sac", "--seeds", "2,5", "--steps", "20"]
    command += [*options, "--suite", "two.yaml", "--episodes", "1", "--out", "out"]
    # The nominal model of DR-SAC would train for 3,000 updates.
    command += ["--set", "training.model_steps=0"]
    status, printed, errors = call(capsys, monkeypatch, *command)
    assert status == 0, errors
    assert "updates: 20 of every learner" in printed
    assert "4 runs: 4 finished" in printed
    results = Results.read(folder / "out" / "results.csv")
    assert results.learners[0] == "sac"
    assert len(results.learners) == 2
    assert set(results.frame["training_seed"]) == {2, 5}
    # Every learner and seed meets the same episodes under the same conditions.
    conditions = results.frame.groupby("run").apply(
        lambda own: tuple(zip(own["condition"], own["episode_seed"], strict=True)), include_groups=False
    )
    assert conditions.nunique() == 1
    prints = {load_run(path).meta["dataset"]["fingerprint"] for path in (folder / "out" / "runs").iterdir()}
    assert len(prints) == 1
    assert (folder / "out" / "report.html").is_file()
    costs = pd.read_csv(folder / "out" / "tables" / "costs.csv")
    assert (costs[["updates_per_s", "training_minutes", "peak_memory_mib"]] > 0).all().all()
    again = "offline-robust train out/runs/sac-seed2/cell.yaml"
    assert load_run(folder / "out" / "runs" / "sac-seed2").meta["command"] == again
    before = contents(folder / "out" / "runs")
    table = (folder / "out" / "results.csv").read_bytes()
    assert call(capsys, monkeypatch, *command)[0] == 0
    assert contents(folder / "out" / "runs") == before
    assert (folder / "out" / "results.csv").read_bytes() == table


def test_a_file_says_the_same_as_the_options(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"datasets": ["pendulum-td3"], "learners": ["sac", "dr_sac"], "seeds": 2, "evaluation": {"suite": "rrls"}}
    (folder / "mine.yaml").write_text(yaml.safe_dump({"comparison": content | {"steps": 30}}))
    arguments = ["--dataset", "pendulum-td3", "--learners", "sac,dr_sac", "--seeds", "2", "--steps", "30"]
    arguments += ["--suite", "pendulum-mass"]
    listed = []
    for given in (["mine.yaml", "--suite", "pendulum-mass"], arguments):
        status, printed, _ = call(capsys, monkeypatch, "compare", *given, "--dry-run", "--json")
        assert status == 0
        listed.append(json.loads(printed))
    assert listed[0] == listed[1]
    assert listed[0]["notes"] == ["updates: sac 30; dr_sac 30 after 3,000 of its model"]


def test_policies_are_evaluated_and_compared_by_file_and_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = open_subject("pendulum-td3").policy
    policy.save(folder / "mine.safetensors")
    protocol = ["--suite", "two.yaml", "--episodes", "2", "--quiet"]
    assert call(capsys, monkeypatch, "evaluate", "pendulum-td3", *protocol, "--out", "one")[0] == 0
    assert call(capsys, monkeypatch, "compare", "mine.safetensors", "pendulum-td3", *protocol, "--out", "both")[0] == 0
    one, both = (Results.read(folder / name / "results.csv") for name in ("one", "both"))
    assert one.learners == ["pendulum-td3"]
    assert both.learners == ["mine", "pendulum-td3"]
    assert [list(both.frame["return"][:4]), list(both.frame["return"][4:])] == [list(one.frame["return"])] * 2


def test_several_suites_are_one_evaluation_in_which_nothing_runs_twice(folder: Path) -> None:
    (folder / "three.yaml").write_text(
        yaml.safe_dump({"name": "three", "sweeps": [{"parameter": "length", "mode": "scale", "levels": [0.8, 1.2]}]})
    )
    subject = open_subject("pendulum-td3")
    found = evaluate_run(subject, suite="two.yaml, three.yaml", episodes=1)
    labels = list(found.frame["condition"])
    assert labels.count("length x0.8") == labels.count("length x1.2") == 1
    assert found.meta["suite"] == "two-lengths, three"
    alone = evaluate_run(subject, suite="two.yaml", episodes=1).frame.set_index("condition")["return"]
    assert found.frame.set_index("condition")["return"].loc[alone.index].tolist() == alone.tolist()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dataset", "pendulum-td3", "--learners", "sac,dr_sacc"], "did you mean 'dr_sac'"),
        (["--dataset", "pendulum-td3", "--learners", "d3rlpy:CQLL"], "did you mean 'd3rlpy:CQL"),
        (["--dataset", "pendulum-td4", "--learners", "sac"], "did you mean 'pendulum-td3'"),
        (["--dataset", "pendulum-td3"], "--learners is missing"),
        (["--learners", "sac"], "--dataset is missing"),
        (["--dataset", "pendulum-td3", "--learners", "sac,sac"], "learner sac is there twice"),
        (["--dataset", "pendulum-td3", "--learners", "sac", "--seeds", "many"], "--seeds many: expected a number"),
        (["--dataset", "pendulum-td3", "--learners", "sac", "--set", "learner.tua=1"], "did you mean 'tau'"),
        (["--dataset", "pendulum-td3", "--learners", "sac", "--suite", "rfqii"], "no suite 'rfqii'"),
        (["--dataset", "pendulum-td3", "--learners", "sac", "--suite", "ddrq"], "is made for CartPole-v1"),
        (["--dataset", "pendulum-td3", "--learners", "sac", "--env", "Hopper-v5"], "is Pendulum-v1 in"),
        (["--dataset", "pendulum-td3", "--learners", "sac", "--max-steps", "9"], "compare runs that are there"),
        (["--dataset", "pendulum-td3", "--learners", "sac", "--seeds", " "], "expected a number of seeds"),
        (["--dataset", "pendulum-td3", "--learners", "sac", "--suite", ","], "names none"),
        (["--dataset", "pendulum-td3", "--learners", "sac", "--set", "dataset=x"], "a comparison chooses itself"),
        (["pendulum-td3", "--seeds", "3"], "give one or the other"),
        (["pendulum-td3", "--jobs", "3"], "need learners to train"),
        (["pendulum-td33"], "did you mean 'pendulum-td3'"),
        (["hopper-sac", "pendulum-td3"], "different environments"),
        ([], "nothing to compare"),
        (["broken.yaml"], "unknown key 'learner'; did you mean 'learners'"),
    ],
)
def test_bad_input_is_one_line_and_status_two(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "broken.yaml").write_text(yaml.safe_dump({"comparison": {"datasets": ["a"], "learner": ["sac"]}}))
    status, _, errors = call(capsys, monkeypatch, "compare", *arguments)
    assert (status, errors.count("\n")) == (2, 1), errors
    assert said in errors
    assert not (folder / "runs").exists()


def test_a_policy_whose_environment_would_import_code_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    from offline_robust.networks import Policy

    policy = open_subject("pendulum-td3").policy
    evil = Policy(replace(policy.spec, environment=EnvironmentSpec("os:Pendulum-v1")), policy.actor)
    evil.save(tmp_path / "evil.safetensors")
    with pytest.raises(CheckpointError, match="import code"):
        open_subject(tmp_path / "evil.safetensors")


def test_a_comparison_file_holds_one_comparison(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"datasets": ["pendulum-td3"], "learners": ["sac"]}))
    with pytest.raises(ConfigError, match="expected one key, comparison"):
        load_comparison(path)


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    data = load_dataset("pendulum-td3")
    paths = []
    for folder in ("first", "second"):
        paths.append(tmp_path / folder / "data.npz")
        paths[-1].parent.mkdir()
        write_npz(data.select(data.episode < 2), paths[-1])
    values = {"datasets": [str(path) for path in paths], "learners": ["sac"], "seeds": 1, "set": {"env": "Pendulum-v1"}}
    cells = expand(comparison_sweep(load_comparison(values)))
    assert [cell.name for cell in cells] == ["first-data-sac-seed0", "second-data-sac-seed0"]
