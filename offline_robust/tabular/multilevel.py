"""Robust Q-learning with a simulator: multilevel Monte Carlo DRQ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from offline_robust.divergences import Divergence, Wasserstein1
from offline_robust.errors import ConfigError
from offline_robust.tabular.learning import Rate
from offline_robust.tabular.mdp import FiniteMDP, FloatArray, IntArray, as_problem, checked_discount


@dataclass(frozen=True, eq=False)
class MultilevelValues:
    """What N seeds learned."""

    q: FloatArray
    """(N, S, A)."""
    curve: FloatArray
    """(N, T, S) values along the way."""
    samples: IntArray
    """(N, T) transitions that had been drawn by then, of all pairs together."""

    @property
    def v(self) -> FloatArray:
        """(N, S)."""
        best: FloatArray = self.q.max(-1)
        return best


def multilevel_drq(
    mdp: FiniteMDP,
    ball: Divergence,
    sweeps: int,
    *,
    level_rate: float = 0.6,
    step_size: Rate | None = None,
    seeds: Sequence[int] = (0,),
    record: int = 0,
) -> MultilevelValues:
    """Q-learning on an unbiased estimate of the robust value, from a random number of simulated next states.

    For every pair and sweep draw N with P(N = n) = p (1 - p)^n and 2^(N + 1) next states, and let sigma be the worst
    case around the empirical law of all of them, sigma_e and sigma_o of either half:

        estimate = sigma of one + (sigma - (sigma_e + sigma_o) / 2) / P(N)

    Its mean is the limit of E[sigma] for many samples. The number drawn has mean 2 p / (2 p - 1), which is finite for
    p > 1/2 only, and the estimate a finite variance for p < 3/4 only, where the halves differ from the whole by the
    inverse of their size. Samples of one pair with the same next state are counted, not kept, so that any level costs
    the same. All seeds and pairs are solved at once.

    Args:
        mdp: used as the simulator.
        ball: any of the library's but `Wasserstein1`.
        sweeps: steps at which every pair is updated.
        level_rate: p, in (0, 1).
        step_size: (c, q) of 1 / (1 + c t^q); (1 - discount, 1) by default, as Liu et al. have it.
        seeds: N.
        record: sweeps between two records; 0: none.

    Raises:
        ConfigError: bad input.

    Source: Liu et al. (2022), algorithm 1, their reward being random too; Blanchet and Glynn (2015).
    """
    discount = checked_discount(mdp.discount)
    if not isinstance(ball, Divergence) or isinstance(ball, Wasserstein1):
        raise ConfigError(f"multilevel_drq: a ball that re-weights next states, got {ball!r}")
    if not 0.0 < level_rate < 1.0 or sweeps < 1 or record < 0 or not len(seeds):
        raise ConfigError(f"level_rate in (0, 1), sweeps and seeds at least 1; got {level_rate}, {sweeps}")
    c, power = step_size or (1.0 - discount, 1.0)
    transitions, rewards = as_problem(mdp.transitions, mdp.rewards)
    after = torch.from_numpy(transitions.successors)
    live = torch.from_numpy(~mdp.terminal)
    generators = [np.random.default_rng(seed) for seed in seeds]
    q = torch.zeros(len(seeds), mdp.states, mdp.actions, dtype=torch.float64)
    records = sweeps // record if record else 0
    curve = np.zeros((len(seeds), records, mdp.states))
    samples = np.zeros((len(seeds), records), np.int64)
    used = np.zeros(len(seeds), np.int64)
    law = transitions.probabilities
    for sweep in range(sweeps):
        drawn = [_draws(generator, law, level_rate) for generator in generators]
        one, even, odd = (torch.from_numpy(np.stack([draw[i] for draw in drawn])) for i in range(3))
        level = torch.from_numpy(np.stack([draw[3] for draw in drawn]))
        used += np.array([int((2 ** (draw[3] + 1))[~mdp.terminal].sum()) for draw in drawn])
        ahead = (q.amax(-1) * live)[:, after]
        if rewards.entering is not None:
            ahead = torch.from_numpy(rewards.entering) + discount * ahead
        both, first, second = ball.worst_case(
            ahead.expand(3, *ahead.shape), torch.stack([_law(even + odd), _law(even), _law(odd)])
        )[0]
        chance = level_rate * (1.0 - level_rate) ** level
        estimate = (one * ahead).sum(-1) + (both - 0.5 * (first + second)) / chance
        scale = discount if rewards.entering is None else 1.0
        target = torch.from_numpy(rewards.certain) + scale * estimate
        q += (target - q) * live[:, None] / (1.0 + c * sweep**power)
        if record and (sweep + 1) % record == 0:
            row = (sweep + 1) // record - 1
            curve[:, row], samples[:, row] = (q.amax(-1) * live).numpy(), used
    return MultilevelValues(q.numpy(), curve, samples)


def _draws(
    generator: np.random.Generator, law: FloatArray, level_rate: float
) -> tuple[FloatArray, FloatArray, FloatArray, IntArray]:
    """One sample, two halves of 2^N samples, as counts (S, A, K), and N (S, A)."""
    level = np.minimum(generator.geometric(level_rate, law.shape[:2]) - 1, 50)
    half = 2**level
    even, odd = (generator.multinomial(half, law).astype(np.float64) for _ in range(2))
    # One of the first half.
    place = (generator.random(half.shape) * half)[..., None]
    one = np.diff((even.cumsum(-1) > place).astype(np.float64), axis=-1, prepend=0.0)
    return one, even, odd, level


def _law(counts: Tensor) -> Tensor:
    return counts / counts.sum(-1, keepdim=True)
