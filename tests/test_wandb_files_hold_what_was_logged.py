"""Weights & Biases for real, offline: its files hold what was trained and evaluated, and nothing needs a network."""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from test_statistics_match_their_definitions import table
from toys import run_values, saved
from wandb_files import Logged, read_wandb

from offline_robust.collection import collect
from offline_robust.evaluation import Results
from offline_robust.experiments import Run, tracking, train
from offline_robust.experiments.config import WandbConfig, load_config
from offline_robust.experiments.metrics import MetricsFile
from offline_robust.experiments.publishing import condition_table, evaluation_values, log_evaluation, log_report
from offline_robust.experiments.tracking import group_of
from offline_robust.reports import RunRecord, build_report, write_reports

KEY = "0" * 40
FULL = OSError(28, "No space left on device")


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if wandb.run is not None:
        wandb.finish()


def values(tmp_path: Path, mode: str = "offline", **training: Any) -> dict[str, Any]:
    if not (tmp_path / "data.npz").exists():
        saved(collect(None, "Pendulum-v1", transitions=400), tmp_path)
    settings = {"mode": mode, "project": "proj", "tags": ["mine"]}
    base = run_values(str(tmp_path / "data.npz"), "sac", **training)
    return base | {"env": "Pendulum-v1", "seed": 3, "wandb": settings}


def trained(tmp_path: Path, name: str = "run", **options: Any) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return train(values(tmp_path, **options), out=tmp_path / name)


def results(run: str = "run") -> Results:
    returns = np.random.default_rng(0).normal(-300.0, 30.0, size=(1, 3, 20))
    frame = table(returns, "sac", [0.5, 1.0, 1.5]).frame.assign(run=run, training_seed=3)
    return Results(frame, {"suite": "three"})


def logged(run: Run) -> list[Logged]:
    paths = sorted(run.folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.parent.name)
    return [read_wandb(path) for path in paths]


def test_the_file_of_a_training_holds_its_name_group_config_and_metrics(tmp_path: Path) -> None:
    run = trained(tmp_path)
    (content,) = logged(run)
    meta = content.run
    assert (meta.project, meta.display_name, meta.job_type) == ("proj", "sac-seed3", "train")
    assert meta.run_id == json.loads((run.folder / "wandb.json").read_text())["id"]
    assert meta.run_group == group_of(run.config, "sac", run.meta["dataset"]["fingerprint"])
    assert {"mine", "v0.1.0"} <= set(meta.tags)
    commit = run.meta["git"].get("commit")
    assert commit is None or any(f"-g{commit[:7]}" in tag for tag in meta.tags)
    top = {key: content.config[key] for key in ("algo", "dataset", "env_id", "seed")}
    assert top == {"algo": "sac", "dataset": str(tmp_path / "data.npz"), "env_id": "Pendulum-v1", "seed": 3}
    assert content.config["run"]["learner"]["name"] == "sac"
    assert len(content.history) == len(run.metrics) == 6
    for told, line in zip(content.history, run.metrics, strict=True):
        assert told["_step"] == line["step"]
        expected = {key: value for key, value in line.items() if "/" in key}
        assert {key: told[key] for key in expected} == pytest.approx(expected)
        assert {key.split("/")[0] for key in expected} <= {"train", "model", "dual", "time"}


def test_an_evaluation_goes_into_the_same_run_with_its_table_and_files(tmp_path: Path) -> None:
    run = trained(tmp_path)
    table_ = results()
    table_.save(run.folder / "results.csv")
    write_reports(run.folder, table_)
    log_evaluation(run.config, run.folder, "sac", "Pendulum-v1", table_)
    first, second = logged(run)
    assert first.run.run_id == second.run.run_id
    assert first.run.run_group == second.run.run_group
    told = {key: value for line in second.history for key, value in line.items()}
    expected = evaluation_values(table_.frame)
    assert {key: told[key] for key in expected} == pytest.approx(expected)
    assert {key: second.summary[key] for key in expected} == pytest.approx(expected)
    assert told["_step"] > run.metrics[-1]["step"]
    assert told["eval/conditions"]["nrows"] == 3
    assert told["eval/episodes"]["nrows"] == 60
    names = {entry.path for artifact in second.artifacts for entry in artifact.manifest.contents}
    assert {"results.csv", "results.meta.json", "report.html", "report.md"} <= names


def test_the_names_of_an_evaluations_values_are_the_documented_ones() -> None:
    frame = results().frame
    told = evaluation_values(frame)
    scopes = ("eval/all", "eval/nominal", "eval/perturb/length/x0.5", "eval/perturb/length/x1.5")
    assert set(told) == {f"{scope}/{name}" for scope in scopes for name in ("mean", "iqm", "cvar10")} | {
        "eval/worst_level"
    }
    low = frame.loc[frame["level"] == "0.5", "return"]
    assert told["eval/perturb/length/x0.5/mean"] == pytest.approx(low.mean())
    assert told["eval/perturb/length/x0.5/cvar10"] == pytest.approx(np.sort(low)[:2].mean())
    assert told["eval/worst_level"] == pytest.approx(frame.groupby("level")["return"].mean().min())
    twice = frame.assign(condition=frame["condition"] + frame["episode"].map(lambda k: " a" if k < 10 else " b"))
    assert len(evaluation_values(twice)) == 3 * 6 + 1
    nasty = frame.assign(perturbation="a/b\x00+c", level="1;2", mode="absolute;scale ramp", nominal=False)
    assert "eval/perturb/a_b_+c/=1;x2 ramp/mean" in evaluation_values(nasty)
    assert condition_table(frame)["episodes"].tolist() == [20, 20, 20]


def test_seeds_make_a_group_and_any_other_setting_another(tmp_path: Path) -> None:
    base = load_config(values(tmp_path))
    same = [{"seed": 9}, {"wandb.project": "other"}, {"evaluation.episodes": 3}]
    other = [{"training.batch_size": 16}, {"learner.discount": 0.9}, {"env": "CartPole-v1"}]
    group = group_of(base, "sac")
    assert {group_of(load_config(values(tmp_path), change), "sac") for change in same} == {group}
    assert len({group} | {group_of(load_config(values(tmp_path), change), "sac") for change in other}) == 4
    assert "data.npz" in group
    assert str(tmp_path) not in group
    assert len(group_of(base, "x" * 500)) <= 128
    minari = load_config(values(tmp_path), {"dataset": "mujoco/hopper/medium-v0"})
    assert group_of(minari, "sac").startswith("sac mujoco/hopper/medium-v0 ")


def test_without_a_network_the_run_is_written_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Online, with a key, and a server that refuses: the training is whole and its W&B run waits on disk."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(tracking, "START", 2)
    with pytest.warns(UserWarning, match=r"cannot be reached .* written offline") as caught:
        run = train(values(tmp_path, "online"), out=tmp_path / "run")
    assert len([w for w in caught if "Weights & Biases" in str(w.message)]) == 1  # the garbage collector warns too
    assert json.loads((run.folder / "wandb.json").read_text())["mode"] == "offline"
    assert len(run.metrics) == 6
    assert any(len(content.history) == 6 for content in logged(run))


@pytest.mark.parametrize("broken", ["metrics.jsonl", "checkpoint"])
def test_a_full_disk_stops_a_training_and_a_resumed_one_ends_like_any_other(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = train(values(tmp_path, "disabled"), out=tmp_path / "reference")
    with monkeypatch.context() as patch:
        if broken == "metrics.jsonl":
            write = MetricsFile.write

            def fails(self: MetricsFile, line: dict[str, Any]) -> None:
                if line["step"] >= 50:
                    raise FULL
                write(self, line)

            patch.setattr(MetricsFile, "write", fails)
        else:
            # The package's `train` is the function, which hides the module of that name.
            module = importlib.import_module("offline_robust.experiments.train")
            save, calls = module.save_checkpoint, []

            def fails_later(*arguments: Any) -> None:
                calls.append(1)
                if len(calls) > 1:
                    raise FULL
                save(*arguments)

            patch.setattr(module, "save_checkpoint", fails_later)
        with pytest.raises(OSError, match="No space left"):
            train(values(tmp_path), out=tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").is_file()
    assert not list((tmp_path / "run").glob("**/.tmp-*"))
    run = train(values(tmp_path), out=tmp_path / "run", resume=True)
    for name in ("policy.safetensors", "checkpoints/last.safetensors"):
        assert (run.folder / name).read_bytes() == (reference.folder / name).read_bytes()


def test_a_full_disk_costs_an_evaluation_its_wandb_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path)

    def fails(*_: Any, **__: Any) -> None:
        raise FULL

    files = [
        path for path in run.folder.rglob("*") if path.is_file() and "wandb" not in str(path.relative_to(run.folder))
    ]
    before = {path: path.read_bytes() for path in files}
    monkeypatch.setattr(tracking, "attach", fails)
    with pytest.warns(UserWarning, match="No space left"):
        log_evaluation(run.config, run.folder, "sac", "Pendulum-v1", results())
    assert before
    assert {path: path.read_bytes() for path in files} == before


def test_a_report_for_wandb_is_built_and_checked_without_an_account(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    both = Results.concat([table(rng.normal(size=(2, 3, 5)), name, [0.5, 1.0, 1.5]) for name in ("sac", "<b>'x'")])
    folder = tmp_path / "comparison"
    folder.mkdir()
    both.save(folder / "results.csv")
    record = RunRecord("sac-0", "sac", metrics={"train/critic_loss": (np.arange(2.0), np.arange(2.0))})
    report = write_reports(folder, both, [record], title="Two learners", command="offline-robust compare a b")
    groups = ["sac pendulum 01234567", "it's 'quoted' 89abcdef"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert log_report(WandbConfig(mode="offline", project="proj"), folder, report, groups) == ""
    spec = json.loads((folder / "wandb-report.json").read_text())
    text = json.dumps(spec)
    assert spec["displayName"] == "Two learners"
    for group in groups:
        assert json.dumps(group)[1:-1] in text
    for words in ("eval/nominal/mean", "train/critic_loss", "offline-robust compare a b", "Who is best where"):
        assert words in text
    grid = next(block for block in spec["spec"]["blocks"] if block["type"] == "panel-grid")
    (runs,) = grid["metadata"]["runSets"]
    assert [key["name"] for key in runs["grouping"]] == ["group"]
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    content = read_wandb(path)
    assert content.run.job_type == "report"
    assert content.config["algo"] == ["sac", "<b>'x'"]
    names = {entry.path for artifact in content.artifacts for entry in artifact.manifest.contents}
    assert {"results.csv", "report.html", "report.md", "figures/levels.png", "figures/levels.csv"} <= names


def test_a_report_that_cannot_be_logged_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = build_report(results())
    monkeypatch.setattr(wandb, "init", lambda **_: (_ for _ in ()).throw(FULL))
    with pytest.warns(UserWarning, match="the report is in its folder"):
        log_report(WandbConfig(mode="offline"), tmp_path, report, [])
