"""Trains the behaviour policy of the bundled Pendulum dataset (needs the d3rlpy extra).

    python models/pendulum-td3/train.py

TD3 learns online in Pendulum-v1 with d3rlpy. The actor's weights and the learning curve are written beside
this file, the first in the format that `load_policy` reads.
"""

from __future__ import annotations

import json
from pathlib import Path

import d3rlpy
import gymnasium as gym
import numpy as np
import torch

from offline_robust.environment import EnvironmentSpec
from offline_robust.networks import Policy, PolicySpec

STEPS = 30_000
SEED = 0
HERE = Path(__file__).parent


def evaluate(algo: d3rlpy.algos.TD3, episodes: int = 20) -> list[float]:
    """Undiscounted returns of the deterministic policy from fixed start states."""
    env = gym.make("Pendulum-v1")
    returns = []
    for episode in range(episodes):
        observation, _ = env.reset(seed=10_000 + episode)
        done, total = False, 0.0
        while not done:
            observation, reward, terminated, truncated, _ = env.step(algo.predict(observation[None])[0])
            total += float(reward)
            done = terminated or truncated
        returns.append(total)
    return returns


def export(algo: d3rlpy.algos.TD3) -> Policy:
    """The actor in this library's format, checked against d3rlpy's own predictions."""
    policy = Policy(PolicySpec("deterministic", 3, (-2.0,), (2.0,), (256, 256), EnvironmentSpec("Pendulum-v1")))
    source, target = algo.impl.modules.policy.state_dict(), policy.actor.state_dict()
    for index, layer in enumerate(["_encoder._layers.0", "_encoder._layers.2", "_fc"]):
        for part in ("weight", "bias"):
            target[f"trunk.layers.{index}.{part}"] = source[f"{layer}.{part}"]
    policy.actor.load_state_dict(target)
    observations = np.random.default_rng(0).uniform(-1, 1, (64, 3)).astype(np.float32)
    np.testing.assert_allclose(policy.act(observations), algo.predict(observations), atol=1e-5)
    return policy


def main() -> None:
    d3rlpy.seed(SEED)
    torch.set_num_threads(1)
    env = gym.make("Pendulum-v1")
    env.reset(seed=SEED)
    env.action_space.seed(SEED)
    config = d3rlpy.algos.TD3Config(
        actor_learning_rate=5e-4,
        critic_learning_rate=5e-4,
        batch_size=256,
        gamma=0.99,
        action_scaler=d3rlpy.preprocessing.MinMaxActionScaler(minimum=-2.0, maximum=2.0),
    )
    algo = config.create(device="cpu")
    buffer = d3rlpy.dataset.create_fifo_replay_buffer(limit=STEPS, env=env)
    curve: list[dict[str, float]] = []

    def record(current: d3rlpy.algos.TD3, epoch: int, step: int) -> None:
        if step % 2_500 == 0:
            returns = evaluate(current)
            curve.append({"step": step, "return_mean": float(np.mean(returns)), "return_std": float(np.std(returns))})
            print(curve[-1], flush=True)

    algo.fit_online(
        env,
        buffer,
        explorer=d3rlpy.algos.NormalNoise(std=0.1),
        n_steps=STEPS,
        n_steps_per_epoch=2_500,
        random_steps=1_000,
        callback=record,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        show_progress=False,
    )
    policy = export(algo)
    policy.save(HERE / "policy.safetensors")
    (HERE / "learning_curve.json").write_text(json.dumps(curve, indent=1) + "\n")


if __name__ == "__main__":
    main()
