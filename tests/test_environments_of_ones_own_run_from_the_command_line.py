"""A user's own environment, in a module of theirs: from data to report by the command line alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from toys import SMALL

ROBOT = dedent(
    """
    import gymnasium as gym
    import numpy as np

    class Robot(gym.Env):
        '''A mass on a rail that is pushed to a goal; observations in two named parts.'''

        def __init__(self, mass=1.0):
            self.mass = mass
            self.observation_space = gym.spaces.Dict(
                {"state": gym.spaces.Box(-10, 10, (2,)), "goal": gym.spaces.Box(-1, 1, (1,))}
            )
            self.action_space = gym.spaces.Box(-2, 2, (1,))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.x, self.v, self.goal = 0.0, 0.0, self.np_random.uniform(-1, 1)
            return self.seen(), {}

        def step(self, action):
            self.v += 0.1 * float(action[0]) / self.mass
            self.x += 0.1 * self.v
            return self.seen(), -abs(self.x - self.goal), abs(self.x) > 5, False, {}

        def seen(self):
            return {"state": np.array([self.x, self.v], np.float32), "goal": np.array([self.goal], np.float32)}

    class Halved(gym.RewardWrapper, gym.utils.RecordConstructorArgs):
        def __init__(self, env):
            gym.utils.RecordConstructorArgs.__init__(self)
            gym.RewardWrapper.__init__(self, env)

        def reward(self, reward):
            return reward / 2

    gym.register("my/Robot-v0", "my_robots:Robot", max_episode_steps=15)
    """
)
COLLECT = dedent(
    """
    import sys; sys.path.insert(0, ".")
    import gymnasium as gym, minari, my_robots
    env = my_robots.Halved(gym.make("my/Robot-v0", mass=3.0))
    env = minari.DataCollector(env)
    env.action_space.seed(0)
    for seed in range(4):
        env.reset(seed=seed)
        done = False
        while not done:
            *_, terminated, truncated, _ = env.step(env.action_space.sample())
            done = terminated or truncated
    env.create_dataset("mine/robot-v0", algorithm_name="random")
    """
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the module, its data, and a configuration."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "my_robots.py").write_text(ROBOT)
    _python(folder, "-W", "ignore", "-c", COLLECT)
    config = {
        "dataset": "minari/mine/robot-v0",
        "learner": {"name": "sac", **SMALL},
        "training": {"steps": 4, "log_every": 2, "batch_size": 8},
        "evaluation": {"episodes": 2},
    }
    (folder / "own.yaml").write_text(yaml.safe_dump(config))
    return folder


def _python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"MINARI_DATASETS_PATH": str(folder / "minari"), "PYTHONPATH": root}
    environment |= {"OFFLINE_ROBUST_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def _command(folder: Path, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    program = "import sys; sys.path.remove(''); sys.argv[0] = 'offline-robust'"
    done = _python(folder, "-c", f"{program}; from offline_robust.cli import main; main()", *arguments)
    assert done.returncode == expect, done.stderr[-2000:]
    return done


def test_from_data_to_report(place: Path) -> None:
    told = json.loads(_command(place, "data", "info", "minari/mine/robot-v0", "--json").stdout)
    assert told["environment"] == "my/Robot-v0 with mass=3.0, step_limit=15, Halved()"
    assert told["observation_names"] == ["goal", "state[0]", "state[1]"]
    checked = _command(place, "data", "check", "minari/mine/robot-v0", "--import", "my_robots", "--json")
    assert "from the seeds of 4 episodes" in json.loads(checked.stdout)["environment"]

    _command(place, "train", "own.yaml", "--import", "my_robots", "--out", "run", "--quiet")
    refused = _command(place, "evaluate", "run", expect=2).stderr
    assert "give --import my_robots" in refused
    assert refused.count("\n") == 1

    done = _command(
        place, "evaluate", "run", "--import", "my_robots", "--perturb", "observation_bias.goal=0,0.5", "--json"
    )
    assert json.loads(done.stdout)["report"].endswith("report.html")
    assert (place / "run" / "report.html").is_file()
    meta = json.loads((place / "run" / "results.meta.json").read_text())
    assert meta["environment"]["kwargs"] == {"mass": 3.0}
    assert meta["environment"]["wrappers"] == [{"name": "Halved", "kwargs": {}, "module": "my_robots"}]

    without = _command(
        place, "evaluate", "run", "--import", "my_robots", "--ignore-wrapper", "Halved", "--out", "plain", "--json"
    )
    assert json.loads(without.stdout)
    returns = [_nominal(place / name) for name in ("run", "plain")]
    assert returns[1] == pytest.approx([2 * value for value in returns[0]], rel=1e-12)


def _nominal(folder: Path) -> list[float]:
    import pandas as pd

    frame = pd.read_csv(folder / "results.csv")
    return list(frame[frame["nominal"]]["return"])


def test_a_module_in_front_of_the_id_is_imported(place: Path) -> None:
    _command(place, "evaluate", "pendulum-td3", "--env", "my_robots:my/Robot-v0", "--episodes", "1", "--out", "other")
    assert json.loads((place / "other" / "results.meta.json").read_text())["env_id"] == "my/Robot-v0"
    collected = _command(
        place, "data", "collect", "--policy", "random", "--env", "my_robots:my/Robot-v0", "--transitions", "30",
        "--out", "random-robot", "--quiet",
    )  # fmt: skip
    assert collected.stderr == ""
    missing = _command(place, "evaluate", "pendulum-td3", "--env", "no_such_module:Robot-v0", expect=2)
    assert "--import no_such_module: cannot be imported" in missing.stderr


def test_comparisons_hand_the_module_to_their_runs(place: Path) -> None:
    _command(
        place, "compare", "--dataset", "minari/mine/robot-v0", "--learners", "sac", "--seeds", "1", "--steps", "4",
        "--set", "learner.hidden=[8]", "--set", "training.batch_size=8", "--import", "./my_robots.py", "--out",
        "compared",
        "--jobs", "1", "--quiet",
    )  # fmt: skip
    assert (place / "compared" / "report.html").is_file()


def test_what_came_with_a_run_is_never_imported(place: Path) -> None:
    """meta.json names the module: it is told in the error, and not imported."""
    (place / "evil_module.py").write_text("open('imported', 'w').close()")
    _command(place, "train", "own.yaml", "--import", "my_robots", "--out", "foreign", "--quiet")
    meta: dict[str, Any] = json.loads((place / "foreign" / "meta.json").read_text())
    meta["environment"] |= {"id": "Gone-v0", "imports": ["evil_module"]}
    meta["environment"]["wrappers"][0]["module"] = "evil_module"
    (place / "foreign" / "meta.json").write_text(json.dumps(meta))
    done = _command(place, "evaluate", "foreign", expect=2)
    assert "--import evil_module" in done.stderr
    assert not (place / "imported").exists()
