"""Discounted sums of rewards along logged rows."""

from __future__ import annotations

import torch
from torch import Tensor


def discounted_returns(rewards: Tensor, segment: Tensor, discount: float) -> Tensor:
    """G_t = r_t + discount * G_{t+1} within every segment, by doubling: log2 of the longest one passes over all rows.

    Args:
        rewards: (N,).
        segment: (N,) int, the same for consecutive rows of one episode or stretch.
        discount: gamma.

    Returns:
        (N,) float64.
    """
    returns, ahead = rewards.double(), 1
    while ahead < len(rewards) and bool((same := segment[ahead:] == segment[:-ahead]).any()):
        # Sums over `ahead` rows become sums over twice as many.
        more = torch.where(same, discount**ahead * returns[ahead:], 0.0)
        returns = torch.cat([returns[:-ahead] + more, returns[-ahead:]])
        ahead *= 2
    return returns
