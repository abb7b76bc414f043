"""An environment that a file names imports nothing, neither by its id nor by its arguments, wherever it is read."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from dataset_files import episode, minari_folder
from toys import line_dataset, run_values, saved

from offline_robust.cli import main
from offline_robust.collection import load_recipe
from offline_robust.datasets import load_dataset
from offline_robust.environment import EnvironmentSpec
from offline_robust.errors import UserError
from offline_robust.evaluation.levels import nominal_level
from offline_robust.experiments import load_run, train
from offline_robust.experiments.config import load_config
from offline_robust.experiments.evaluating import open_subject
from offline_robust.networks import Policy, PolicySpec
from offline_robust.untrusted import CodeRefused, refuse_code

REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "module": ("harmful_module:Pendulum-v1", {}),
    "gym 0.21": ("GymV21Environment-v0", {"env_id": "harmful_module:Env"}),
    "gym 0.26": ("GymV26Environment-v0", {}),
    "gym 0.26 in a namespace": ("shimmy/GymV26Environment-v0", {}),
    "env_id": ("Pendulum-v1", {"env_id": "CartPole-v1"}),
    "entry point": ("Pendulum-v1", {"a": {"entry_point": "x"}}),
    "text in a list": ("Pendulum-v1", {"a": [1, {"b": ["harmful_module:Env-v0"]}]}),
    "target": ("Pendulum-v1", {"_target_": "os.system"}),
}
ALLOWED: dict[str, tuple[Any, Any]] = {
    "numbers": ("Pendulum-v1", {"g": 9.5, "a": [1, 2], "b": None}),
    "a model file": ("Hopper-v5", {"xml_file": "/home/me/my model.xml", "frame_skip": 4}),
    "a Windows path": ("Hopper-v5", {"xml_file": "C:\\models\\a.xml"}),
    "a URL and a device": ("some/Env-v1", {"a": "https://example.org/x", "b": "cuda:0", "c": "12:30"}),
    "nothing": (None, None),
    "no text": (5, [1]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_import_code_is_refused(name: str) -> None:
    with pytest.raises(CodeRefused, match="script of yours") as error:
        refuse_code(*REFUSED[name])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_data_is_allowed(name: str) -> None:
    refuse_code(*ALLOWED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_configurations_and_recipes_are_refused(name: str, tmp_path: Path) -> None:
    env_id, env_kwargs = REFUSED[name]
    with pytest.raises(UserError, match="script of yours"):
        load_config({"dataset": "a", "learner": {"name": "sac"}, "env": env_id, "env_kwargs": env_kwargs})
    recipe = {"name": "a", "env_id": env_id, "env_kwargs": env_kwargs, "seed": 0, "description": "", "transitions": 5}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"epsilon": 1.0}))
    with pytest.raises(UserError, match="script of yours"):
        load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("name", REFUSED)
def test_a_dataset_keeps_no_such_environment(name: str, tmp_path: Path) -> None:
    env_id, env_kwargs = REFUSED[name]
    spec = json.dumps({"id": env_id, "kwargs": env_kwargs})
    own = {"env_id": env_id, "env_kwargs": env_kwargs}
    folder = minari_folder(tmp_path / "x", [episode(3)], env_spec=spec, offline_robust=own)
    dataset = load_dataset(folder)
    assert dataset.environment is None


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("done")
    train(run_values(saved(line_dataset(), folder), "sac", steps=10), out=folder / "run")
    return folder / "run"


@pytest.mark.parametrize("name", ["module", "gym 0.21", "gym 0.26 in a namespace"])
def test_run_folders_and_policies_are_refused(name: str, done: Path, tmp_path: Path) -> None:
    env_id = REFUSED[name][0]
    run = Path(shutil.copytree(done, tmp_path / "run"))
    meta = json.loads((run / "meta.json").read_text())
    (run / "meta.json").write_text(json.dumps(meta | {"env_id": env_id}))
    with pytest.raises(UserError, match="script of yours"):
        load_run(run)
    spec = PolicySpec("deterministic", 3, (-2.0,), (2.0,), (8,), EnvironmentSpec(env_id))
    Policy(spec).save(tmp_path / "policy.safetensors")
    with pytest.raises(UserError, match="script of yours"):
        open_subject(tmp_path / "policy.safetensors")


def test_a_results_table_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report asks the environment for its nominal levels."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "harmful_module.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    assert np.isnan(nominal_level("gravity", "absolute", "harmful_module:Pendulum-v1"))
    assert not (tmp_path / "imported").exists()


def test_arguments_that_break_an_environment_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {"name": "a", "env_id": "Pendulum-v1", "seed": 0, "description": "", "transitions": 5, "epsilon": 1.0}
    for value in ("éé", [1, 2], {"a": 1}):
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"env_kwargs": {"g": value}}))
        arguments = ["offline-robust", "data", "collect", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as leaving:
            main()
        error = capsys.readouterr().err
        assert (leaving.value.code, error.count("\n")) == (2, 1), error
        assert "does not work with" in error
