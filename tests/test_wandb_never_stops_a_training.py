"""Weights & Biases beside a training: the right run when it works, and the same policy when it breaks."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from toys import line_dataset, run_values, saved
from wandb_files import wait_for_wandb

from offline_robust.collection import collect
from offline_robust.errors import ConfigError, MissingExtra
from offline_robust.experiments import Run, load_run, train
from offline_robust.sweeps.driver import run_sweep
from offline_robust.sweeps.grids import expand, load_sweep


class Stop(Exception):
    """The training is cut here."""


class FakeRun:
    """What `wandb.init` returns, remembering what it was told; `fails` names the method that raises, from call `at`."""

    def __init__(self, fails: str = "", error: Exception | None = None, at: int = 1) -> None:
        self.id = "abc123"
        self.fails, self.error, self.at = fails, error, at
        self.init: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.artifacts: list[Any] = []
        self.finished = 0
        self.calls = 0

    def __call__(self, **arguments: Any) -> FakeRun:
        self.init.append(arguments)
        self._fail("init")
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self._fail("log")
        self.logged.append((step, values))

    def log_artifact(self, artifact: Any) -> None:
        self.artifacts.append(artifact)

    def finish(self, *_: Any, **__: Any) -> None:
        self._fail("finish")
        self.finished += 1

    def _fail(self, method: str) -> None:
        if self.error is not None and method == self.fails:
            self.calls += 1
            if self.calls >= self.at:
                raise self.error


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    return saved(collect(None, "Pendulum-v1", transitions=400), tmp_path)


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key in the environment or in a home, and no run left open by another test."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("NETRC", raising=False)
    if wandb.run is not None:
        wandb.finish()


def values(dataset: str, mode: str, **fields: Any) -> dict[str, Any]:
    settings = {"mode": mode, "project": "proj", "tags": ["mine"]} | fields
    return run_values(dataset, "sac") | {"env": "Pendulum-v1", "seed": 3, "wandb": settings}


def intercept(monkeypatch: pytest.MonkeyPatch, **fails: Any) -> FakeRun:
    fake = FakeRun(**fails)
    monkeypatch.setattr(wandb, "init", fake)
    return fake


def cut_at_50(phase: str, step: int, total: int, rate: float) -> None:
    if step >= 50:
        raise Stop


def untimed(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if "time" not in key} for line in run.metrics]


def assert_same_training(run: Run, reference: Run) -> None:
    for name in ("policy.safetensors", "checkpoints/last.safetensors"):
        assert (run.folder / name).read_bytes() == (reference.folder / name).read_bytes(), name
    assert untimed(run) == untimed(reference)
    assert "training_minutes" in run.meta


def quietly(*arguments: Any, **options: Any) -> Run:
    """Trains; a warning to the user is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return train(*arguments, **options)


def test_offline_writes_a_run_without_network_or_key(dataset: str, tmp_path: Path) -> None:
    """The real thing: a .wandb file under the run's folder that holds name, config and metrics; and equal weights."""
    run = quietly(values(dataset, "offline"), out=tmp_path / "run")
    identity = json.loads((run.folder / "wandb.json").read_text())
    assert identity["mode"] == "offline"
    (record,) = run.folder.glob("wandb/offline-run-*/run-*.wandb")
    assert record.name == f"run-{identity['id']}.wandb"
    wait_for_wandb(record)
    content = record.read_bytes()
    for text in ("proj", "sac-seed3", "mine", "Pendulum-v1", "train/critic_loss", "time/updates_per_s"):
        assert text.encode() in content, text
    assert wandb.run is None
    assert_same_training(run, train(values(dataset, "disabled"), out=tmp_path / "disabled"))


def test_the_run_is_named_grouped_and_described(dataset: str, tmp_path: Path, monkeypatch) -> None:
    fake = intercept(monkeypatch)
    run = quietly(values(dataset, "offline", entity="lab"), out=tmp_path / "run")
    (init,) = fake.init
    assert (init["project"], init["entity"], init["mode"], init["job_type"]) == ("proj", "lab", "offline", "train")
    assert init["dir"] == str(run.folder)
    assert init["id"] is None
    assert init["name"] == "sac-seed3"
    assert init["group"].startswith("sac ")
    assert init["group"].startswith("sac")
    assert "mine" in init["tags"]
    assert any(tag.startswith("v") and tag[1].isdigit() for tag in init["tags"])
    top = {key: init["config"][key] for key in ("algo", "dataset", "env_id", "seed")}
    assert top == {"algo": "sac", "dataset": dataset, "env_id": "Pendulum-v1", "seed": 3}
    assert init["config"]["run"] == run.config.to_dict()
    assert fake.finished == 1


def test_seeds_share_a_group_and_radii_do_not(dataset: str, tmp_path: Path, monkeypatch) -> None:
    fake = intercept(monkeypatch)
    base = run_values(dataset, "dr_sac", steps=1, model_steps=1) | {"wandb": {"mode": "offline"}}
    for index, (seed, delta) in enumerate(((0, 0.5), (1, 0.5), (0, 0.25))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one step of the model predicts badly
            train(base, {"seed": seed, "learner.delta": delta}, out=tmp_path / str(index))
    groups, names = ([init[key] for init in fake.init] for key in ("group", "name"))
    assert groups[0] == groups[1] != groups[2]
    assert len(set(names)) == 3


def test_every_line_of_metrics_is_logged_at_its_step(dataset: str, tmp_path: Path, monkeypatch) -> None:
    fake = intercept(monkeypatch)
    run = quietly(values(dataset, "offline"), out=tmp_path / "run")
    expected = [(line["step"], {key: v for key, v in line.items() if "/" in key}) for line in run.metrics]
    assert len(expected) == 6
    assert all("train/critic_loss" in line for _, line in expected)
    assert fake.logged == expected


@pytest.mark.parametrize(
    ("method", "at"), [("init", 1), ("log", 1), ("log", 4), ("finish", 1)], ids=["init", "log", "later log", "finish"]
)
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), wandb.Error("broken"), RuntimeError("no core")], ids=repr
)
def test_a_failure_is_warned_of_once_and_changes_nothing(
    method: str, at: int, error: Exception, dataset: str, tmp_path: Path, monkeypatch
) -> None:
    reference = train(values(dataset, "disabled"), out=tmp_path / "disabled")
    fake = intercept(monkeypatch, fails=method, error=error, at=at)
    with pytest.warns(UserWarning, match="Weights & Biases stopped") as caught:
        run = train(values(dataset, "offline"), out=tmp_path / "run")
    (message,) = (str(each.message) for each in caught if "Weights & Biases" in str(each.message))
    assert str(error) in message
    assert "metrics.jsonl" in message
    assert fake.calls == at, "a broken W&B is not asked again"
    assert_same_training(run, reference)


def test_a_damaged_wandb_json_does_not_stop_a_resumed_training(dataset: str, tmp_path: Path, monkeypatch) -> None:
    reference = train(values(dataset, "disabled"), out=tmp_path / "disabled")
    intercept(monkeypatch)
    with pytest.raises(Stop):
        train(values(dataset, "offline"), out=tmp_path / "run", progress=cut_at_50)
    (tmp_path / "run" / "wandb.json").write_text('{"id": ')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same_training(train(values(dataset, "offline"), out=tmp_path / "run", resume=True), reference)


@pytest.mark.parametrize(("mode", "how"), [("offline", None), ("online", "allow")])
def test_a_resumed_training_continues_the_same_run(
    mode: str, how: str | None, dataset: str, tmp_path: Path, monkeypatch
) -> None:
    fake = intercept(monkeypatch)
    with pytest.raises(Stop):
        train(values(dataset, mode), out=tmp_path / "run", progress=cut_at_50)
    quietly(values(dataset, mode), out=tmp_path / "run", resume=True)
    first, second = fake.init
    assert (first["id"], first["resume"]) == (None, None)
    assert (second["id"], second["resume"]) == ("abc123", how)
    assert (first["name"], first["group"]) == (second["name"], second["group"])
    assert [step for step, _ in fake.logged] == [10, 20, 30, 40, 50, 50, 60]


@pytest.mark.parametrize(("key", "mode"), [("", "offline"), ("0" * 40, "online")])
def test_auto_is_online_exactly_where_there_is_a_key(
    key: str, mode: str, dataset: str, tmp_path: Path, monkeypatch
) -> None:
    fake = intercept(monkeypatch)
    monkeypatch.setenv("WANDB_API_KEY", key)
    quietly(values(dataset, "auto"), out=tmp_path / "run")
    assert fake.init[0]["mode"] == mode


def test_disabled_never_imports_wandb(dataset: str, tmp_path: Path) -> None:
    """In a fresh process: a whole training from the command line, with wandb made impossible to import."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values(dataset, "disabled")))
    code = (
        "import sys; sys.modules['wandb'] = None\n"
        "from offline_robust.experiments import train\n"
        "train('config.yaml', out='run')\n"
        "assert not [name for name in sys.modules if name.startswith('wandb.')]\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "policy.safetensors").is_file()
    assert not (tmp_path / "run" / "wandb").exists()
    assert not (tmp_path / "run" / "wandb.json").exists()


def test_a_missing_wandb_is_named_with_its_extra(dataset: str, tmp_path: Path, monkeypatch) -> None:
    without_wandb(monkeypatch)
    with pytest.raises(MissingExtra, match=r"wandb.mode offline needs wandb: pip install 'offline-robust\[wandb\]'"):
        train(values(dataset, "offline"), out=tmp_path / "run")


def test_a_missing_wandb_leaves_nothing_behind(dataset: str, tmp_path: Path, monkeypatch) -> None:
    without_wandb(monkeypatch)
    with pytest.raises(MissingExtra):
        train(values(dataset, "offline"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tags": ["good", "t" * 65]}, "65 characters"),
        ({"tags": [""]}, "0 characters"),
        ({"project": "a/b"}, "holds '/'"),
    ],
)
def test_what_wandb_would_refuse_is_refused_before_the_start(settings, said, dataset: str, tmp_path: Path) -> None:
    """And by W&B itself, or the refusal would be for nothing; a run with such a tag of old can still be opened."""
    with pytest.raises(Exception, match=r"Tag|project"):
        wandb.Settings(**{{"tags": "run_tags"}.get(key, key): value for key, value in settings.items()})
    config = values(dataset, "offline") | {"wandb": {"mode": "offline", **settings}}
    with pytest.raises(ConfigError, match=said):
        train(config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    sweep = load_sweep({"base": config, "seeds": 2})
    with pytest.raises(ConfigError, match=said):
        run_sweep(sweep, expand(sweep), tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()
    run = train(config | {"wandb": {"mode": "disabled", **settings}}, out=tmp_path / "run")
    text = (run.folder / "config.yaml").read_text().replace("mode: disabled", "mode: offline")
    (run.folder / "config.yaml").write_text(text)
    assert load_run(run.folder).config.wandb.mode == "offline"


def test_a_tag_as_long_as_wandb_takes_is_taken(dataset: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(values(dataset, "offline") | {"wandb": {"mode": "offline", "tags": ["t" * 64]}}, out=tmp_path / "run")


def test_a_failed_training_does_not_lend_its_run_to_the_next(dataset: str, tmp_path: Path) -> None:
    try:
        with pytest.raises(Stop):
            train(values(dataset, "offline"), out=tmp_path / "first", progress=cut_at_50)
        second = train(values(dataset, "offline"), out=tmp_path / "second")
        first_id, second_id = (
            json.loads((tmp_path / name / "wandb.json").read_text())["id"] for name in ("first", "second")
        )
        assert first_id != second_id
        assert (second.folder / "wandb").is_dir()
    finally:
        wandb.finish()


def test_the_callers_own_run_is_left_alone(dataset: str, tmp_path: Path) -> None:
    theirs = wandb.init(mode="offline", dir=str(tmp_path), settings=wandb.Settings(silent=True))
    try:
        run = train(values(dataset, "offline"), out=tmp_path / "run")
        assert json.loads((run.folder / "wandb.json").read_text())["id"] != theirs.id
    finally:
        wandb.finish()


def test_different_datasets_are_not_averaged_in_one_group(tmp_path: Path, monkeypatch) -> None:
    fake = intercept(monkeypatch)
    for name, noise in (("calm", 0.01), ("windy", 0.3)):
        (tmp_path / name).mkdir()
        source = saved(line_dataset(noise=noise), tmp_path / name)
        train(run_values(source, "sac", steps=1) | {"wandb": {"mode": "offline"}}, out=tmp_path / name / "run")
    assert fake.init[0]["group"] != fake.init[1]["group"]


def test_env_id_comes_from_the_dataset_where_the_config_is_silent(tmp_path: Path, monkeypatch) -> None:
    fake = intercept(monkeypatch)
    train(run_values("pendulum-td3", "sac", steps=1) | {"wandb": {"mode": "offline"}}, out=tmp_path / "run")
    assert fake.init[0]["config"]["env_id"] == "Pendulum-v1"


def without_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    """`find_spec` answers as where wandb is not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "wandb" else find(name, *more))
