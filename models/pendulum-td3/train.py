"""Trains the behaviour policy of the bundled Pendulum dataset (needs the d3rlpy extra).

    python models/pendulum-td3/train.py

TD3 learns online in Pendulum-v1 with d3rlpy. The actor's weights and the learning curve are written beside
this file, in the format that `offline_robust.networks.load_policy` reads.
"""

from __future__ import annotations

import json
from pathlib import Path

import d3rlpy
import gymnasium as gym
import numpy as np
import torch
from safetensors.torch import save_file

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
    actor = algo.impl.modules.policy.state_dict()
    layers = ["_encoder._layers.0", "_encoder._layers.2", "_fc"]
    tensors = {}
    for index, name in enumerate(layers):
        tensors[f"trunk.{index}.weight"] = actor[f"{name}.weight"].contiguous()
        tensors[f"trunk.{index}.bias"] = actor[f"{name}.bias"].contiguous()
    observations = env.observation_space.sample()[None].repeat(64, 0) * np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    hidden = torch.as_tensor(observations)
    for index in range(3):
        hidden = hidden @ tensors[f"trunk.{index}.weight"].T + tensors[f"trunk.{index}.bias"]
        hidden = hidden.relu() if index < 2 else hidden.tanh() * 2.0
    np.testing.assert_allclose(hidden.numpy(), algo.predict(observations), atol=1e-5)
    save_file(tensors, HERE / "policy.safetensors")
    (HERE / "learning_curve.json").write_text(json.dumps(curve, indent=1) + "\n")


if __name__ == "__main__":
    main()
