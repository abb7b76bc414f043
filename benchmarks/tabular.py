"""Robust value iteration of a large finite problem, processor seconds on one thread.

python benchmarks/tabular.py
"""

from __future__ import annotations

import time

import numpy as np
import torch

from offline_robust.divergences import KL, Contamination, CressieRead, CVaR, TotalVariation
from offline_robust.tabular import robust_value_iteration

STATES, ACTIONS, SUCCESSORS = 10_000, 4, 8
BALLS = (
    None,
    CressieRead(2, 0.5),
    CressieRead(4, 0.5),
    KL(0.5),
    TotalVariation(0.3),
    CVaR(0.5),
    Contamination(0.2),
)


def main() -> None:
    """Prints a row for each ball and discount."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    shape = (STATES, ACTIONS, SUCCESSORS)
    problem = rng.integers(0, STATES, shape), rng.dirichlet(np.ones(SUCCESSORS), shape[:2])
    rewards = rng.uniform(size=shape[:2])
    for discount in (0.9, 0.99):
        for ball in BALLS:
            began = time.process_time()
            found = robust_value_iteration(problem, rewards, discount, ball, tolerance=1e-8)
            spent = time.process_time() - began
            print(f"discount {discount:g}  {ball!r:24}  {found.sweeps:3} sweeps  {spent:6.2f} s", flush=True)


if __name__ == "__main__":
    main()
