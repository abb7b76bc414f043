"""What robustness can buy on Pendulum at best: exact robust dynamic programming on a grid, no learning.

    python docs/findings/pendulum_dp.py

States (angle, velocity) on 121 x 121 points with bilinear interpolation, 13 torques, discount 0.97. The nominal law is
the true dynamics with a Gaussian on the torque (7 quadrature nodes), whose std is a share of the logged actions' std
(1.41 N m): what `model.action_smoothing` does. The ball is `KL(delta)` around it. The greedy policy is then run from
100 start states in pendulums of other gravity, mass and length. Takes about three minutes on one core.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from offline_robust.divergences import KL

ANGLES, VELOCITIES, TORQUES = 121, 121, 13
ACTION_STD = 1.408  # of the bundled data
SETTINGS = ((0.0, 0.0), (0.3, 0.0), (0.3, 0.1), (0.3, 0.5))
TESTS = [("length", k) for k in (0.5, 1.0, 1.3, 1.4, 1.5)]
TESTS += [("gravity", k) for k in (0.5, 1.2, 1.3, 1.4, 1.5)] + [("mass", k) for k in (0.5, 1.5, 2.0)]

angle = torch.linspace(-math.pi, math.pi, ANGLES + 1)[:-1]
velocity = torch.linspace(-8, 8, VELOCITIES)
torque = torch.linspace(-2, 2, TORQUES)
nodes, weights = (torch.tensor(x, dtype=torch.float32) for x in np.polynomial.hermite_e.hermegauss(7))
weights = weights / weights.sum()


def step(t: Tensor, v: Tensor, u: Tensor, gravity: float = 1.0, mass: float = 1.0, length: float = 1.0):
    """Gymnasium's Pendulum-v1 with factors on its parameters."""
    push = 15.0 * gravity / length * torch.sin(t) + 3.0 / (mass * length**2) * u
    v = (v + push * 0.05).clamp(-8, 8)
    return t + v * 0.05, v


def reward(t: Tensor, v: Tensor, u: Tensor) -> Tensor:
    """Gymnasium's Pendulum-v1."""
    return -((torch.remainder(t + math.pi, 2 * math.pi) - math.pi).square() + 0.1 * v.square() + 0.001 * u.square())


def at(values: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """Bilinear interpolation, periodic in the angle."""
    x = torch.remainder((t + math.pi) / (2 * math.pi) * ANGLES, ANGLES)
    y = ((v + 8) / 16 * (VELOCITIES - 1)).clamp(0, VELOCITIES - 1 - 1e-4)
    i, k = x.floor().long() % ANGLES, y.floor().long()
    j, fx, fy = (i + 1) % ANGLES, x - x.floor(), y - y.floor()
    low = values[i, k] * (1 - fx) + values[j, k] * fx
    return low * (1 - fy) + (values[i, k + 1] * (1 - fx) + values[j, k + 1] * fx) * fy


def solve(smoothing: float, delta: float, discount: float = 0.97, sweeps: int = 120) -> Tensor:
    """Robust Q on the grid."""
    t, v, u = torch.meshgrid(angle, velocity, torque, indexing="ij")
    noise, law = (nodes * smoothing * ACTION_STD, weights) if smoothing else (torch.zeros(1), torch.ones(1))
    after = step(t[..., None], v[..., None], u[..., None] + noise)
    values = torch.zeros(ANGLES, VELOCITIES)
    for _ in range(sweeps):
        q = reward(t, v, u) + discount * KL(delta).worst_case(at(values, *after), law)[0]
        values = q.amax(-1)
    return q


def run(q: Tensor, episodes: int = 100, **factors: float) -> float:
    """Mean undiscounted return of the greedy policy over 200 steps."""
    rng = np.random.default_rng(123)
    t = torch.tensor(rng.uniform(-np.pi, np.pi, episodes), dtype=torch.float32)
    v = torch.tensor(rng.uniform(-1, 1, episodes), dtype=torch.float32)
    total = torch.zeros(episodes)
    for _ in range(200):
        best = torch.stack([at(q[..., k], t, v) for k in range(TORQUES)], -1).argmax(-1)
        total += reward(t, v, torque[best])
        t, v = step(t, v, torque[best], **factors)
    return total.mean().item()


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("| action smoothing | delta |", " | ".join(f"{name} x{k:g}" for name, k in TESTS), "|")
    print("|---" * (len(TESTS) + 2) + "|")
    for smoothing, delta in SETTINGS:
        q = solve(smoothing, delta)
        print(
            f"| {smoothing:g} | {delta:g} |", " | ".join(f"{run(q, **{n: k}):.0f}" for n, k in TESTS), "|", flush=True
        )
