"""Trains a behaviour policy by PPO on whole episodes of the batched engine; where SAC was too slow.

    python models/ppo.py walker2d-ppo

Writes what `train.py` writes, and takes the same `--snapshots`. One iteration runs a batch of episodes to their ends,
computes generalised advantages (Schulman et al. 2016) and makes a few epochs of clipped steps (Schulman et al. 2017).
It takes a Gaussian squashed by tanh or, where actions are discrete, a softmax, of which the largest entry is kept.
Observations are normalised while it learns; the policy that is saved has the normalisation folded into its first layer.

It is made to be stopped (Ctrl-C) once the policy is good enough, as the shipped ones were: their learning curves say
when.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from offline_robust.environment import EnvironmentSpec
from offline_robust.envs import BatchedEnv, Perturbation, System, make_batch, system
from offline_robust.networks import MLP, Policy, PolicySpec
from offline_robust.networks.policies import build_actor

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Behaviour:
    """How one policy is trained. Constants are PPO's usual ones for MuJoCo unless said otherwise."""

    env_id: str
    steps: int
    episodes: int = 32
    """Run together in one iteration."""
    learning_rate: float = 3e-4
    """Falls linearly to zero over ``steps``."""
    discount: float = 0.99
    trace: float = 0.95
    clip: float = 0.2
    epochs: int = 10
    batch_size: int = 1024
    hidden: tuple[int, ...] = (256, 256)
    initial_std: float = 0.6
    reward_scale: float = 0.01
    """Values of about 1 suit a network that starts near 0."""
    evaluate_every: int = 250_000
    control_range: float = 1.0
    """The motors saturate at this fraction of the action space (RFQI's "mixed" behaviour)."""


BEHAVIOURS = {
    "walker2d-ppo": Behaviour("Walker2d-v5", 12_000_000),
    "lunarlander-continuous-ppo": Behaviour(
        "LunarLanderContinuous-v3", 3_000_000, 16, discount=0.999, trace=0.98, batch_size=512, evaluate_every=100_000
    ),
    "hopper-mixed-ppo": Behaviour("Hopper-v5", 3_000_000, control_range=0.85),
    "halfcheetah-mixed-ppo": Behaviour("HalfCheetah-v5", 3_000_000, control_range=0.85),
    "lunarlander-ppo": Behaviour(
        "LunarLander-v3", 3_000_000, 16, discount=0.999, trace=0.98, batch_size=512, evaluate_every=100_000
    ),
}


def batch_of(of: System, settings: Behaviour, count: int) -> BatchedEnv:
    """Copies of the environment a policy is made for, and evaluated in."""
    limited = () if settings.control_range == 1.0 else (of.ready(Perturbation("ctrlrange", settings.control_range)),)
    return make_batch(of, [limited] * count)


class Normaliser:
    """Running mean and standard deviation of observations."""

    def __init__(self, width: int) -> None:
        self.count, self.mean, self.square = 1e-4, torch.zeros(width), torch.ones(width)

    def add(self, rows: Tensor) -> None:
        share = len(rows) / (self.count + len(rows))
        self.mean = torch.lerp(self.mean, rows.mean(0), share)
        self.square = torch.lerp(self.square, rows.square().mean(0), share)
        self.count += len(rows)

    @property
    def std(self) -> Tensor:
        return (self.square - self.mean.square()).clamp(min=1e-8).sqrt()

    def __call__(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) / self.std


class PPO:
    """A tanh Gaussian policy whose density is taken before the tanh, or a softmax over actions; a value network."""

    def __init__(self, of: System, settings: Behaviour, generator: torch.Generator) -> None:
        space, width = of.action_space, int(of.observation_space.shape[0])
        self.discrete = isinstance(space, gym.spaces.Discrete)
        if self.discrete:
            self.spec = PolicySpec(
                "greedy", width, (), (), settings.hidden, EnvironmentSpec(settings.env_id), int(space.n)
            )
        else:
            low, high = (tuple(map(float, bound)) for bound in (space.low, space.high))
            self.spec = PolicySpec("tanh_gaussian", width, low, high, settings.hidden, EnvironmentSpec(settings.env_id))
        self.settings, self._generator = settings, generator
        self.actor = build_actor(self.spec, generator)
        if not self.discrete:
            nn.init.constant_(self.actor.log_std.bias, math.log(settings.initial_std))
        self.value = MLP([width, *settings.hidden, 1], generator)
        self.normalise = Normaliser(width)
        parameters = [*self.actor.parameters(), *self.value.parameters()]
        self.optimiser = torch.optim.Adam(parameters, lr=settings.learning_rate, eps=1e-5, fused=True)

    def heads(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        hidden = F.relu(self.actor.trunk(rows))
        return self.actor.mean(hidden), self.actor.log_std(hidden).clamp(-3.0, 0.5)

    @torch.no_grad()
    def explore(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """The draw before the tanh (N, A) and the action (N, A), or twice the action (N,)."""
        if self.discrete:
            chances = self.actor.trunk(self.normalise(observations)).softmax(1)
            drawn = torch.multinomial(chances, 1, generator=self._generator)[:, 0]
            return drawn, drawn
        mean, log_std = self.heads(self.normalise(observations))
        u = mean + log_std.exp() * torch.randn(mean.shape, generator=self._generator)
        return u, self.actor.to_range(torch.tanh(u))

    def log_prob(self, rows: Tensor, u: Tensor) -> Tensor:
        if self.discrete:
            return -F.cross_entropy(self.actor.trunk(rows), u, reduction="none")
        mean, log_std = self.heads(rows)
        return (-0.5 * ((u - mean) / log_std.exp()).square() - log_std).sum(1)

    def folded(self) -> Policy:
        """The policy on raw observations."""
        actor = copy.deepcopy(self.actor)
        first = actor.trunk.linears[0]
        with torch.no_grad():
            first.weight /= self.normalise.std
            first.bias -= first.weight @ self.normalise.mean
        return Policy(self.spec, actor)

    def learn(self, rows: Tensor, u: Tensor, advantages: Tensor, returns: Tensor) -> None:
        """Epochs of clipped steps over one batch of episodes; rows are normalised observations."""
        with torch.no_grad():
            old = torch.cat([self.log_prob(r, d) for r, d in zip(rows.split(8192), u.split(8192), strict=True)])
        for _ in range(self.settings.epochs):
            moved = []
            for index in torch.randperm(len(rows), generator=self._generator).split(self.settings.batch_size):
                log_prob = self.log_prob(rows[index], u[index])
                ratio, gain = (log_prob - old[index]).exp(), advantages[index]
                gain = (gain - gain.mean()) / (gain.std(correction=0) + 1e-8)
                clipped = ratio.clamp(1.0 - self.settings.clip, 1.0 + self.settings.clip)
                value_loss = F.mse_loss(self.value(rows[index])[:, 0], returns[index])
                loss = -torch.minimum(ratio * gain, clipped * gain).mean() + 0.5 * value_loss
                self.optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.actor.parameters(), 0.5)
                torch.nn.utils.clip_grad_norm_(self.value.parameters(), 0.5)
                self.optimiser.step()
                moved.append((old[index] - log_prob.detach()).mean())
            if float(torch.stack(moved).mean()) > 0.03:  # the policy has moved far enough on these data
                return


def episodes(batch: Any, learner: PPO, seeds: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One batch of episodes to their ends: observations (T + 1, N, O), draws, rewards, terminated, live (T, N)."""
    observation = torch.as_tensor(batch.reset(seeds), dtype=torch.float32)
    seen, draws, gains, ends, lives = [observation], [], [], [], []
    while batch.live.any():
        lives.append(torch.as_tensor(batch.live.copy()))
        u, action = learner.explore(observation)
        stepped, reward, terminated, _ = batch.step(action.numpy())
        observation = torch.as_tensor(stepped, dtype=torch.float32)
        seen.append(observation)
        draws.append(u)
        gains.append(torch.as_tensor(reward, dtype=torch.float32))
        ends.append(torch.as_tensor(terminated.copy()))
    return torch.stack(seen), torch.stack(draws), torch.stack(gains), torch.stack(ends), torch.stack(lives)


def advantages(learner: PPO, seen: Tensor, rewards: Tensor, ends: Tensor, lives: Tensor) -> tuple[Tensor, Tensor]:
    """Generalised advantages and value targets (T, N)."""
    settings = learner.settings
    with torch.no_grad():
        values = learner.value(learner.normalise(seen).flatten(0, 1)).view(seen.shape[:2])
    gains, following = torch.zeros_like(rewards), torch.zeros(rewards.shape[1])
    for t in range(len(rewards) - 1, -1, -1):
        error = rewards[t] + settings.discount * values[t + 1] * ~ends[t] - values[t]
        next_live = lives[t + 1] if t + 1 < len(lives) else torch.zeros_like(lives[t])
        following = error + settings.discount * settings.trace * following * next_live
        gains[t] = following
    return gains, gains + values[:-1]


@torch.no_grad()
def evaluate(policy: Policy, of: System, settings: Behaviour, count: int = 10) -> list[float]:
    """Undiscounted returns of the deterministic policy from start states of their own."""
    batch = batch_of(of, settings, count)
    observation, totals = batch.reset([10_000 + i for i in range(count)]), np.zeros(count)
    while batch.live.any():
        observation, reward, _, _ = batch.step(policy.act(np.float32(observation)))
        totals += reward
    batch.close()
    return totals.tolist()


def train(name: str, settings: Behaviour, seed: int, snapshots: Path) -> None:
    """Trains one policy; the file on disk is the best of the evaluated snapshots."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    of = system(settings.env_id)
    learner, batch = PPO(of, settings, generator), batch_of(of, settings, settings.episodes)
    curve, best, done, started, begun = [], -math.inf, 0, 0, time.perf_counter()
    snapshots.mkdir(parents=True, exist_ok=True)
    (HERE / name).mkdir(exist_ok=True)
    while done < settings.steps:
        seen, draws, rewards, ends, lives = episodes(
            batch, learner, [seed + started + i for i in range(len(batch.live))]
        )
        started += len(batch.live)
        if started == len(batch.live):
            learner.normalise.add(seen[:-1][lives])
        gains, targets = advantages(learner, seen, settings.reward_scale * rewards, ends, lives)
        for group in learner.optimiser.param_groups:
            group["lr"] = settings.learning_rate * max(0.05, 1.0 - done / settings.steps)
        learner.learn(learner.normalise(seen[:-1][lives]), draws[lives], gains[lives], targets[lives])
        learner.normalise.add(seen[:-1][lives])
        before, done = done, done + int(lives.sum())
        if before // settings.evaluate_every != done // settings.evaluate_every:
            policy = learner.folded()
            returns = evaluate(policy, of, settings)
            mean, minutes = float(np.mean(returns)), (time.perf_counter() - begun) / 60.0
            curve.append({"step": done, "return_mean": mean, "return_std": float(np.std(returns)), "minutes": minutes})
            print(name, json.dumps(curve[-1]), flush=True)
            policy.save(snapshots / f"{name}-{done}.safetensors")
            (HERE / name / "learning_curve.json").write_text(json.dumps(curve, indent=1) + "\n")
            if mean >= best:
                best = mean
                policy.save(HERE / name / "policy.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=list(BEHAVIOURS), help="what to train, in this order")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--snapshots", type=Path, default=Path("runs/behaviour"))
    options = parser.parse_args()
    for name in options.names:
        train(name, BEHAVIOURS[name], options.seed, options.snapshots)


if __name__ == "__main__":
    main()
