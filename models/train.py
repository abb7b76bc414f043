"""Trains the bundled behaviour policies online: SAC, TD3 and double DQN, one thread, no simulator but Gymnasium's.

    python models/train.py hopper-sac
    python models/train.py --list

Writes `policy.safetensors` and `learning_curve.json` into the folder of that name beside this file, and snapshots of
the policy along the way into `--snapshots`, from which the medium policies were taken (`--promote`).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from offline_robust.environment import EnvironmentSpec, register_environments
from offline_robust.networks import EnsembleMLP, Policy, PolicySpec, frozen_copy, load_policy, polyak
from offline_robust.networks.policies import build_actor

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Behaviour:
    """How one policy is trained. Unless said otherwise the constants are SAC's, TD3's and DQN's usual ones."""

    env_id: str
    algorithm: Literal["sac", "td3", "dqn"]
    steps: int
    learning_rate: float = 3e-4
    discount: float = 0.99
    random_steps: int = 5_000
    batch_size: int = 128
    hidden: tuple[int, ...] = (256, 256)
    evaluate_every: int = 10_000
    exploration: float = 0.1
    """TD3: std of the action noise over the half range. DQN: the final probability of a random action."""
    environments: int = 1
    """How many copies are stepped together; ``steps`` counts the transitions of all."""
    updates: int = 1
    """Gradient updates after each joint step."""


BEHAVIOURS = {
    "hopper-sac": Behaviour("Hopper-v5", "sac", 300_000),
    "halfcheetah-sac": Behaviour("HalfCheetah-v5", "sac", 400_000),
    "reacher-sac": Behaviour("Reacher-v5", "sac", 60_000, random_steps=1_000, evaluate_every=5_000),
    "reacher-td3": Behaviour("Reacher-v5", "td3", 60_000, random_steps=1_000, evaluate_every=5_000),
    "cartpole-continuous-td3": Behaviour(
        "ContinuousCartPole-v0", "td3", 60_000, 1e-3, random_steps=1_000, evaluate_every=2_000
    ),
    "cartpole-dqn": Behaviour(
        "CartPole-v1", "dqn", 240_000, random_steps=1_000, evaluate_every=8_000, environments=8, updates=2
    ),
}


class Replay:
    """The last transitions, in flat tensors."""

    def __init__(self, capacity: int, observation_dim: int, action_dim: int, generator: torch.Generator) -> None:
        self.width = 2 * observation_dim + action_dim + 2
        self.rows = torch.zeros(capacity, self.width)
        self._numpy, self._generator = self.rows.numpy(), generator
        self._splits = [observation_dim, action_dim, 1, 1, observation_dim]
        self.size = 0

    def add(self, rows: Any) -> None:
        self._numpy[self.size : self.size + len(rows)] = rows
        self.size += len(rows)

    def sample(self, count: int) -> list[Tensor]:
        index = torch.randint(self.size, (count,), generator=self._generator)
        return list(self.rows[index].split(self._splits, dim=1))


class ActorCritic:
    """SAC with a learned temperature, or TD3; two critics; the actor moves on every second critic step."""

    def __init__(self, policy: Policy, settings: Behaviour, generator: torch.Generator) -> None:
        spec = policy.spec
        self.settings, self.policy, self.actor, self._generator = settings, policy, policy.actor, generator
        self.sac = settings.algorithm == "sac"
        self.critics = EnsembleMLP(2, [spec.observation_dim + spec.action_dim, *settings.hidden, 1], generator)
        self.target_critics, self.target_actor = frozen_copy(self.critics), frozen_copy(self.actor)
        self.log_alpha = torch.zeros((), requires_grad=True)
        rate = settings.learning_rate
        self.critic_optimiser = torch.optim.Adam(self.critics.parameters(), lr=rate, fused=True)
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=rate, fused=True)
        self.alpha_optimiser = torch.optim.Adam([self.log_alpha], lr=rate)
        self.low, self.high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)
        self.half = (self.high - self.low) / 2.0
        self.updates = 0

    @torch.no_grad()
    def explore(self, observations: Tensor) -> Tensor:
        noise = torch.randn((len(observations), len(self.low)), generator=self._generator)
        if self.sac:
            return self.actor.sample(observations, noise)[0]
        return (self.actor(observations) + self.settings.exploration * self.half * noise).clamp(self.low, self.high)

    def update(self, batch: list[Tensor]) -> None:
        observations, actions, rewards, terminated, following = batch
        self.updates += 1
        with torch.no_grad():
            noise = torch.randn(actions.shape, generator=self._generator)
            if self.sac:
                next_actions, log_prob = self.actor.sample(following, noise)
                bonus = -self.log_alpha.exp() * log_prob
            else:
                smoothing = (0.2 * noise).clamp(-0.5, 0.5) * self.half
                next_actions = (self.target_actor(following) + smoothing).clamp(self.low, self.high)
                bonus = torch.zeros(())
            value = self.target_critics(torch.cat([following, next_actions], 1))[..., 0].amin(0) + bonus
            target = rewards[:, 0] + self.settings.discount * (1.0 - terminated[:, 0]) * value
        values = self.critics(torch.cat([observations, actions], 1))[..., 0]
        loss = F.mse_loss(values, target.expand_as(values), reduction="sum") / len(target)
        self.critic_optimiser.zero_grad()
        loss.backward()
        self.critic_optimiser.step()
        if self.updates % 2 == 0:
            self._improve(observations)
        polyak(self.target_critics.parameters(), self.critics.parameters(), 0.005)

    def _improve(self, observations: Tensor) -> None:
        self.critics.requires_grad_(False)
        if self.sac:
            noise = torch.randn((len(observations), len(self.low)), generator=self._generator)
            actions, log_prob = self.actor.sample(observations, noise)
            values = self.critics(torch.cat([observations, actions], 1))[..., 0].amin(0)
            loss = (self.log_alpha.detach().exp() * log_prob - values).mean()
        else:
            values = self.critics(torch.cat([observations, self.actor(observations)], 1))[..., 0][0]
            loss = -values.mean()
        self.actor_optimiser.zero_grad()
        loss.backward()
        self.actor_optimiser.step()
        self.critics.requires_grad_(True)
        if self.sac:
            excess = (log_prob.detach() - len(self.low)).mean()
            self.alpha_optimiser.zero_grad()
            (-self.log_alpha.exp() * excess).backward()
            self.alpha_optimiser.step()
        else:
            polyak(self.target_actor.parameters(), self.actor.parameters(), 0.005)


class DoubleDQN:
    """Double DQN with a slowly moving target and a decaying epsilon."""

    def __init__(self, policy: Policy, settings: Behaviour, generator: torch.Generator) -> None:
        self.settings, self.policy, self.values, self._generator = settings, policy, policy.actor.trunk, generator
        self.targets = frozen_copy(self.values)
        self.optimiser = torch.optim.Adam(self.values.parameters(), lr=settings.learning_rate, fused=True)
        self.updates = 0

    @torch.no_grad()
    def explore(self, observations: Tensor) -> Tensor:
        scores = self.values(observations)
        count, actions = scores.shape
        progress = min(1.0, self.updates * self.settings.environments / (0.3 * self.settings.steps))
        at_random = torch.rand(count, generator=self._generator) < 1.0 - progress * (1.0 - self.settings.exploration)
        return torch.where(at_random, torch.randint(actions, (count,), generator=self._generator), scores.argmax(1))

    def update(self, batch: list[Tensor]) -> None:
        observations, actions, rewards, terminated, following = batch
        self.updates += 1
        with torch.no_grad():
            best = self.values(following).argmax(1, keepdim=True)
            value = self.targets(following).gather(1, best)
            target = rewards + self.settings.discount * (1.0 - terminated) * value
        loss = F.smooth_l1_loss(self.values(observations).gather(1, actions.long()), target)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.values.parameters(), 10.0)
        self.optimiser.step()
        polyak(self.targets.parameters(), self.values.parameters(), 0.005)


def make(settings: Behaviour) -> gym.Env[Any, Any]:
    return gym.make(settings.env_id)


def fresh_policy(env: gym.Env[Any, Any], settings: Behaviour, generator: torch.Generator) -> Policy:
    width = env.observation_space.shape[0]
    if isinstance(env.action_space, gym.spaces.Discrete):
        spec = PolicySpec(
            "greedy", width, (), (), settings.hidden, EnvironmentSpec(settings.env_id), int(env.action_space.n)
        )
    else:
        low, high = (tuple(map(float, bound)) for bound in (env.action_space.low, env.action_space.high))
        kind = "tanh_gaussian" if settings.algorithm == "sac" else "deterministic"
        spec = PolicySpec(kind, width, low, high, settings.hidden, EnvironmentSpec(settings.env_id))
    return Policy(spec, build_actor(spec, generator))


def evaluate(policy: Policy, settings: Behaviour, episodes: int = 10) -> list[float]:
    """Undiscounted returns of the deterministic policy from start states of their own."""
    env, returns = make(settings), []
    for episode in range(episodes):
        observation, _ = env.reset(seed=10_000 + episode)
        done, total = False, 0.0
        while not done:
            observation, reward, terminated, truncated, _ = env.step(_action(policy.act(np.float32(observation))))
            total, done = total + float(reward), terminated or truncated
        returns.append(total)
    return returns


class Copies:
    """Some copies of one environment, stepped together; an episode that ends is followed by the next one."""

    def __init__(self, settings: Behaviour, seed: int) -> None:
        self._envs = [make(settings) for _ in range(settings.environments)]
        self.space = self._envs[0].action_space
        self.space.seed(seed)
        self.observations = np.stack([env.reset(seed=seed + i)[0] for i, env in enumerate(self._envs)])

    def step(self, actions: Any) -> Any:
        """The transitions of one joint step, as rows of the replay memory."""
        rows = []
        for i, (env, action) in enumerate(zip(self._envs, actions, strict=True)):
            following, reward, terminated, truncated, _ = env.step(action)
            rows.append(np.concatenate([self.observations[i], np.atleast_1d(action), [reward, terminated], following]))
            self.observations[i] = env.reset()[0] if terminated or truncated else following
        return np.stack(rows)


def train(name: str, settings: Behaviour, seed: int, snapshots: Path) -> None:
    """Trains one policy; the file on disk is the best of the evaluated snapshots, and its card says so."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    copies = Copies(settings, seed)
    discrete = isinstance(copies.space, gym.spaces.Discrete)
    policy = fresh_policy(make(settings), settings, generator)
    learner = (DoubleDQN if discrete else ActorCritic)(policy, settings, generator)
    width = 1 if discrete else copies.space.shape[0]
    replay = Replay(settings.steps, policy.spec.observation_dim, width, generator)
    curve, best, begun = [], -math.inf, time.perf_counter()
    snapshots.mkdir(parents=True, exist_ok=True)
    for step in range(settings.environments, settings.steps + 1, settings.environments):
        if step <= settings.random_steps:
            actions = [copies.space.sample() for _ in range(settings.environments)]
        else:
            actions = learner.explore(torch.as_tensor(copies.observations, dtype=torch.float32)).numpy()
        replay.add(copies.step([_action(action) for action in actions]))
        if step > settings.random_steps:
            for _ in range(settings.updates):
                learner.update(replay.sample(settings.batch_size))
        if step % settings.evaluate_every == 0:
            returns = evaluate(policy, settings)
            mean = float(np.mean(returns))
            minutes = (time.perf_counter() - begun) / 60.0
            curve.append({"step": step, "return_mean": mean, "return_std": float(np.std(returns)), "minutes": minutes})
            print(name, json.dumps(curve[-1]), flush=True)
            policy.save(snapshots / f"{name}-{step}.safetensors")
            folder = HERE / name
            folder.mkdir(exist_ok=True)
            (folder / "learning_curve.json").write_text(json.dumps(curve, indent=1) + "\n")
            if mean >= best:
                best = mean
                policy.save(folder / "policy.safetensors")


def promote(name: str, step: str, folder: str, snapshots: Path) -> None:
    """Keeps the snapshot of one step, with the learning curve up to there, as a policy of its own."""
    target = HERE / folder
    target.mkdir(exist_ok=True)
    load_policy(snapshots / f"{name}-{step}.safetensors").save(target / "policy.safetensors")
    curve = json.loads((HERE / name / "learning_curve.json").read_text())
    kept = [point for point in curve if point["step"] <= int(step)]
    (target / "learning_curve.json").write_text(json.dumps(kept, indent=1) + "\n")


def _action(value: Any) -> Any:
    array = np.asarray(value)
    return int(array) if array.ndim == 0 else array


def main() -> None:
    register_environments()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*BEHAVIOURS, []], help="what to train, in this order")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--snapshots", type=Path, default=Path("runs/behaviour"))
    parser.add_argument("--list", action="store_true", help="say what there is and stop")
    parser.add_argument("--promote", nargs=3, metavar=("NAME", "STEP", "FOLDER"), help="keep a snapshot, and stop")
    options = parser.parse_args()
    if options.promote:
        promote(*options.promote, options.snapshots)
        return
    if options.list or not options.names:
        for name, settings in BEHAVIOURS.items():
            print(f"{name:28} {settings.algorithm:4} {settings.env_id}, {settings.steps:,} steps")
    for name in options.names:
        train(name, BEHAVIOURS[name], options.seed, options.snapshots)


if __name__ == "__main__":
    main()
