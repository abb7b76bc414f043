"""The numbers of `data info` against numbers by hand, and the command line around them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dataset_files import columns, d4rl_file, episode, minari_folder
from gymnasium import spaces
from typer.testing import CliRunner

from offline_robust.cli.data import app
from offline_robust.datasets import describe, load_dataset
from offline_robust.errors import DatasetError, DatasetNotFound


def test_returns_lengths_and_ends_by_hand() -> None:
    content = columns(6, ends={1: "terminal", 3: "timeout"}, rewards=np.array([1.0, 2, 3, 4, 5, 6]))
    content.pop("next_observations")
    about = describe(load_dataset(content))
    assert about["returns"] == pytest.approx(
        {
            "mean": 7,
            "std": np.std([3, 7, 11]),
            "q00": 3,
            "q10": 3.8,
            "q25": 5,
            "q50": 7,
            "q75": 9,
            "q90": 10.2,
            "q100": 11,
        }
    )
    assert about["episode_lengths"]["mean"] == 2
    assert about["episodes_terminated"] == pytest.approx(1 / 3)
    assert about["episodes_truncated"] == pytest.approx(2 / 3)
    assert about["rows_without_next_observation"] == 3


def test_one_step_change_leaves_out_rows_without_a_next_observation() -> None:
    content = columns(6, ends={2: "terminal"}, next_observations=None)
    content["observations"] = np.array([0.0, 1.0, 3.0, 900.0, 901.0, 903.0])[:, None]
    assert describe(load_dataset(content))["one_step_change_std"] == [0.5]


def test_coverage_of_uniform_single_and_discrete_actions() -> None:
    space = spaces.Box(-1, 1, (2,), np.float32)
    actions = np.stack([(np.arange(200) % 20) / 10 - 0.95, np.full(200, 0.5)], axis=1)
    uniform, single = describe(load_dataset(columns(200, actions=actions) | {"action_space": space}))["coverage"]
    assert uniform["entropy"] == pytest.approx(1.0)
    assert uniform["share_of_range"] == pytest.approx(0.95)
    assert single == {"entropy": 0.0, "share_of_range": 0.0}
    about = describe(load_dataset(columns(8, actions=np.array([0, 1] * 4)) | {"action_space": spaces.Discrete(4)}))
    assert about["coverage"] == [{"share_of_range": 0.5, "entropy": 0.5}]
    assert [row["count"] for row in about["actions"]] == [4, 4, 0, 0]


def test_the_description_is_json() -> None:
    assert json.loads(json.dumps(describe(load_dataset("pendulum-td3", cache=False))))["transitions"] == 100_000


def test_the_fingerprint_passes_over_fillers_and_the_sign_of_zero() -> None:
    content = columns(4, next_observations=None)
    content["observations"][0] = 0.0
    one = load_dataset(content)
    other = load_dataset(
        content | {"observations": np.where(content["observations"] == 0, -0.0, content["observations"])}
    )
    assert one.fingerprint == other.fingerprint
    changed = content | {"rewards": content["rewards"] + 1}
    assert one.fingerprint != load_dataset(changed).fingerprint


def run(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_check_leaves_with_2_when_the_data_do_not_load(tmp_path: Path) -> None:
    good = minari_folder(tmp_path / "good", [episode(3)])
    bad = minari_folder(tmp_path / "bad", [episode(3), episode(3, observations=np.zeros((3, 3)))])
    assert run("check", good, "--quiet") == (0, "")
    assert run("check", bad, "--quiet") == (2, "")
    status, text = run("check", bad, "--json")
    content = json.loads(text)
    assert (status, content["errors"]) == (2, 1)
    assert "episode_1" in content["problems"][0]["where"]


def test_info_and_list_print_json_for_scripts() -> None:
    assert json.loads(run("info", "pendulum-td3", "--json")[1])["episodes"] == 500
    assert "pendulum-td3" in [row["name"] for row in json.loads(run("list", "--json")[1])]


def test_tables_name_what_they_show(tmp_path: Path) -> None:
    status, text = run("info", d4rl_file(tmp_path / "x.hdf5", columns(8, ends={3: "terminal"})))
    assert status == 0
    assert "fingerprint" in text
    assert "actions" in text


def test_convert_and_collect_write_what_they_say(tmp_path: Path) -> None:
    source = d4rl_file(tmp_path / "x.hdf5", columns(8, ends={3: "terminal"}))
    told = json.loads(run("convert", source, tmp_path / "y", "--to", "minari", "--json")[1])
    assert told["fingerprint"] == load_dataset(tmp_path / "y", cache=False).fingerprint
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: t\nenv_id: Pendulum-v1\nepsilon: 1.0\ntransitions: 20\nseed: 0\ndescription: x\n")
    told = json.loads(run("collect", recipe, "--out", tmp_path / "z", "--json")[1])
    assert told["transitions"] == 20
    assert told["fingerprint"] == load_dataset(tmp_path / "z", cache=False).fingerprint


def test_errors_are_left_to_the_main_command(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound):
        run("info", tmp_path / "nothing.hdf5")
    with pytest.raises(DatasetError, match="exists already"):
        run("convert", d4rl_file(tmp_path / "x.hdf5", columns(4)), tmp_path / "x.hdf5")
