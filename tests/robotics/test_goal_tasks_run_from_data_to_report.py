"""Adroit and the maze tasks of gymnasium-robotics, from Minari's collector to a report by the command line alone.

Run with `make robotics`, in an environment of its own: gymnasium-robotics needs a newer Gymnasium than d3rlpy allows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import gymnasium_robotics  # registers its environments
import minari
import numpy as np
import pytest
from gymnasium import spaces

from offline_robust.datasets import load_dataset
from offline_robust.evaluation import evaluate

gym.register_envs(gymnasium_robotics)
NAMES = ["PointMaze_UMaze-v3", "AntMaze_UMaze-v5", "AdroitHandDoor-v1"]
CONFIG = """
dataset: {data}
learner: {{name: sac, hidden: [32, 32]}}
training: {{steps: 20, log_every: 10, batch_size: 32}}
evaluation: {{episodes: 2}}
"""


def _collected(name: str) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options: dict[str, Any] = {"max_episode_steps": 25}
        if "Maze" in name:
            options |= {"continuing_task": True, "reset_target": False}
        env = minari.DataCollector(gym.make(name, **options))
        env.action_space.seed(0)
        for seed in range(3):
            env.reset(seed=seed)
            done = False
            while not done:
                *_, terminated, truncated, _ = env.step(env.action_space.sample())
                done = terminated or truncated
        made = env.create_dataset(f"{name.split('_')[0].lower()}/own-v0", algorithm_name="random")
        env.close()
    return Path(made.storage.data_path)


def _command(*arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    program = "import sys; from offline_robust.cli import main; sys.argv[0] = 'offline-robust'; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == expect, done.stderr[-3000:]
    return done


@pytest.mark.parametrize("name", NAMES)
def test_from_data_to_report(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    folder = _collected(name)
    told = json.loads(_command("data", "info", folder, "--json").stdout)
    assert told["environment"].startswith(f"{name} with ")
    if "Maze" in name:
        assert told["observation_names"][0] == "achieved_goal[0]"
    _command("data", "check", folder, "--import", "gymnasium_robotics")
    config = tmp_path / "own.yaml"
    config.write_text(CONFIG.format(data=folder))
    run = tmp_path / "run"
    _command("train", config, "--out", run, "--import", "gymnasium_robotics")
    refused = _command("evaluate", run, expect=2).stderr
    assert "--import gymnasium_robotics" in refused
    assert refused.strip().count("\n") == 0
    parameter = "ball_x_gear" if name == "PointMaze_UMaze-v3" else "damping"
    _command("evaluate", run, "--import", "gymnasium_robotics", "--perturb", f"{parameter}=0.5,1")
    assert (run / "report.html").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_returns_are_those_of_the_recovered_environment(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    folder = _collected(name)
    data = load_dataset(folder)
    assert data.environment is not None
    width = data.actions.shape[1]

    def act(seen: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        mixed = np.sin(seen[:, :1].astype(np.float64) * np.arange(1, width + 1))
        return mixed.astype(np.float32)

    results = evaluate(act, data.environment, episodes=2)
    env = minari.MinariDataset(folder).recover_environment()
    returns = []
    for seed in results.frame["episode_seed"].tolist():
        seen, total, done = env.reset(seed=seed)[0], 0.0, False
        while not done:
            flat = spaces.flatten(env.observation_space, seen)
            seen, reward, terminated, truncated, _ = env.step(act(flat[None])[0])
            total, done = total + float(reward), terminated or truncated
        returns.append(total)
    assert results.frame["return"].tolist() == returns
