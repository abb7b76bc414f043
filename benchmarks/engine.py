"""Environment steps a second of the batched MuJoCo engine, beside Gymnasium's own vector loop and beside bare physics.

    python benchmarks/engine.py                       # a random 256-256 policy, N = 64 and 256
    python benchmarks/engine.py --policy FILE.safetensors --steps 500 --json

All variants run in one process, in interleaved rounds, from the same starts, under the same actions: the policy sees
the same N observations in each of them, so that all visit the same states, which is checked. Episodes go on after a
fall (`terminate_when_unhealthy=False`) and the time limit is out of reach, so that no step is spent on resets:
SyncVectorEnv would reset by itself what ended, and the engine would leave it out.

    engine, 1 thread    MuJoCoSimulation and the policy
    engine, 2 threads   the same
    engine, no policy   MuJoCoSimulation on 1 thread, replaying those actions
    Gymnasium           SyncVectorEnv of N environments made without the checker, and the policy
    bare physics        mj_step(model, data, nstep=frame_skip) on N MjData in a Python loop, replaying them too:
                        no policy, no observation, no reward

A ratio is the median of the ratios within a round. Those marked "per core" are of processor time (of all threads),
which other processes on the machine disturb little; those of threads are of wall time and mean something only while
the other processors are free: the table shows both clocks.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from offline_robust.envs.mujoco_engine import MuJoCoSimulation
from offline_robust.networks.policies import load_policy

Act = Callable[[NDArray[Any]], NDArray[Any]]
Clocks = tuple[float, float]
Variant = Callable[[], Clocks]

KWARGS = {"terminate_when_unhealthy": False, "max_episode_steps": 10**9}
AIMS = {"engine / Gymnasium, per core": 1.4, "engine / bare physics, per core": 0.9, "2 threads / 1, wall": 1.7}


def make(env_id: str) -> Any:
    return gym.make(env_id, disable_env_checker=True, **KWARGS)


def random_policy(observations: int, actions: int) -> Act:
    sizes, layers = (observations, 256, 256, actions), []
    for given, wanted in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(given, wanted), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1], torch.nn.Tanh())

    @torch.no_grad()
    def act(rows: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(network(torch.as_tensor(rows, dtype=torch.float32)).numpy())

    return act


def clocked(work: Callable[[], object]) -> Clocks:
    """Wall and processor seconds of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


class Contest:
    """The variants for one number of episodes; each call runs `steps` steps from the same starts."""

    def __init__(self, env_id: str, act: Act, count: int, steps: int) -> None:
        self.act, self.count, self.steps = act, count, steps
        env = make(env_id)
        self.model, self.skip = env.unwrapped.model, env.unwrapped.frame_skip
        self.engines = {n: MuJoCoSimulation(make(env_id), [self.model] * count, threads=n) for n in (1, 2)}
        self.vector = gym.vector.SyncVectorEnv([lambda: make(env_id) for _ in range(count)])
        self.datas = [mujoco.MjData(self.model) for _ in range(count)]
        self.starts = self._starts(env)
        self.actions = np.zeros((steps, count, self.model.nu), np.float32)
        self.returns: dict[str, float] = {}

    def _starts(self, env: Any) -> list[Any]:
        starts = []
        for seed in range(self.count):
            env.reset(seed=seed)
            starts.append(np.zeros(mujoco.mj_stateSize(self.model, int(mujoco.mjtState.mjSTATE_INTEGRATION))))
            data = env.unwrapped.data
            mujoco.mj_getState(self.model, data, starts[-1], int(mujoco.mjtState.mjSTATE_INTEGRATION))
        return starts

    def engine(self, threads: int, replay: bool = False) -> Clocks:
        """The batched engine under the policy, keeping its actions, or under the actions kept."""
        engine = self.engines[threads]
        observations, earned = engine.reset(range(self.count)), np.zeros(self.count)

        def run() -> None:
            nonlocal observations
            for step in range(self.steps):
                action = self.actions[step] if replay else self.act(observations)
                self.actions[step] = action
                observations, rewards, _, _ = engine.step(action)
                earned.__iadd__(rewards)

        clocks = clocked(run)
        self.returns[f"engine {threads} {replay}"] = float(earned.sum())
        return clocks

    def gymnasium(self) -> Clocks:
        """Gymnasium's vector environment under the policy."""
        observations: Any = self.vector.reset(seed=list(range(self.count)))[0]
        earned = np.zeros(self.count)

        def run() -> None:
            nonlocal observations
            for _ in range(self.steps):
                observations, rewards, _, _, _ = self.vector.step(self.act(observations))
                earned.__iadd__(rewards)

        clocks = clocked(run)
        self.returns["gymnasium"] = float(earned.sum())
        return clocks

    def physics(self) -> Clocks:
        """The engine's last actions, replayed by `mj_step` alone."""
        for data, start in zip(self.datas, self.starts, strict=True):
            mujoco.mj_setState(self.model, data, start, int(mujoco.mjtState.mjSTATE_INTEGRATION))

        def run() -> None:
            for actions in self.actions:
                for data, action in zip(self.datas, actions, strict=True):
                    data.ctrl[:] = action
                    mujoco.mj_step(self.model, data, nstep=self.skip)

        return clocked(run)

    def check(self) -> None:
        """All variants have been where the engine was, to the last bit."""
        if len(set(self.returns.values())) != 1:
            raise SystemExit(f"the variants disagree: {self.returns}")
        ends = np.array([data.qpos for data in self.datas])
        if not np.array_equal(ends, self.engines[1]._state["qpos"]):
            raise SystemExit("bare physics went elsewhere than the engine")

    def round(self, order: int) -> dict[str, Clocks]:
        """Every variant once, another one first each time."""
        variants: list[tuple[str, Variant]] = [
            ("engine, 1 thread", lambda: self.engine(1)),
            ("Gymnasium", self.gymnasium),
            ("bare physics", self.physics),
            ("engine, 2 threads", lambda: self.engine(2)),
            ("engine, no policy", lambda: self.engine(1, replay=True)),
        ]
        turn = order % len(variants)
        return {name: variant() for name, variant in variants[turn:] + variants[:turn]}


def measure(env_id: str, act: Act, count: int, steps: int, rounds: int) -> dict[str, Any]:
    contest = Contest(env_id, act, count, steps)
    # Unmeasured: warms up, and leaves actions for the physics of the first round whatever its order.
    contest.round(0)
    contest.check()
    results = [contest.round(order) for order in range(rounds)]
    contest.check()
    work = count * steps

    def ratio(slow: str, fast: str, clock: int) -> float:
        return statistics.median(result[slow][clock] / result[fast][clock] for result in results)

    one, two = "engine, 1 thread", "engine, 2 threads"
    return {
        "episodes": count,
        "steps_per_second": {
            name: {
                clock: round(work / statistics.median(result[name][at] for result in results))
                for at, clock in enumerate(("wall", "processor"))
            }
            for name in results[0]
        },
        "ratios": {
            "engine / Gymnasium, per core": ratio("Gymnasium", one, 1),
            "engine / Gymnasium, wall": ratio("Gymnasium", one, 0),
            "engine / bare physics, per core": ratio("bare physics", one, 1),
            "same without the policy, per core": ratio("bare physics", "engine, no policy", 1),
            "2 threads / 1, wall": ratio(one, two, 0),
            "2 threads / 1, per core": ratio(one, two, 1),
        },
    }


def show(figures: dict[str, Any]) -> None:
    print(f"\n{figures['env']}, {figures['episodes']} episodes, {figures['steps']} steps, {figures['rounds']} rounds")
    print(f"{'environment steps a second':34}{'wall':>10}{'processor':>12}")
    for name, clocks in figures["steps_per_second"].items():
        print(f"{name:34}{clocks['wall']:10,}{clocks['processor']:12,}")
    for name, value in figures["ratios"].items():
        print(f"{name:34}{value:10.2f}" + (f"   (aim: {AIMS[name]})" if name in AIMS else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Hopper-v5", help="one that accepts terminate_when_unhealthy")
    parser.add_argument("--episodes", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--policy", help="a policy file; otherwise a random 256-256 network")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    env = make(options.env)
    sizes = (*env.observation_space.shape, *env.action_space.shape)
    act: Act = load_policy(options.policy).act if options.policy else random_policy(*sizes)
    everything = []
    for count in options.episodes:
        figures = measure(options.env, act, count, options.steps, options.rounds)
        everything.append({"env": options.env, "steps": options.steps, "rounds": options.rounds, **figures})
        if not options.json:
            show(everything[-1])
    if options.json:
        print(json.dumps(everything, indent=2))


if __name__ == "__main__":
    main()
