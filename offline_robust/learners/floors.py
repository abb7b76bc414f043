"""Whether a fail state's value lies below all that the data promise, as it must to be the worst there is."""

from __future__ import annotations

import math
from collections.abc import Callable

from offline_robust.datasets.returns import discounted_returns
from offline_robust.datasets.transitions import TransitionDataset
from offline_robust.learners.base import LearnerConfig

_DIGITS = 4


def floor_warning(
    config: LearnerConfig, dataset: TransitionDataset, discount: float, v_min: float, key: str, consequence: str
) -> list[str]:
    """One line when discounted returns of the data fall below `v_min`, else none.

    Args:
        config: shapes the rewards.
        dataset: what is learned from.
        discount: gamma.
        v_min: the value in question, in shaped rewards.
        key: where the configuration has it.
        consequence: what is wrong then.
    """
    rewards = config.shaped(dataset.rewards)
    least = float(rewards.amin())
    if least >= 0.0 and v_min <= 0.0:
        return []
    lowest = float(discounted_returns(rewards, dataset.episode, discount).amin())
    if lowest >= v_min:
        return []
    advice = f"set {key} to {_rounded(lowest, math.floor):g} or less"
    if v_min <= 0.0:  # rewards that are nowhere negative mend it as well
        shift = _rounded(config.reward_shift - least / config.reward_scale, math.ceil)
        advice += f", or learner.reward_shift to {shift:g} or more"
    return [
        f"{config.name}: shaped rewards reach {least:.4g} and discounted returns {lowest:.4g}, below {key} "
        f"{v_min:.4g}: {consequence}; {advice}"
    ]


def _rounded(value: float, towards: Callable[[float], int]) -> float:
    """To four digits, downwards or upwards."""
    if value == 0.0 or not math.isfinite(value):
        return value
    unit = 10.0 ** (math.floor(math.log10(abs(value))) + 1 - _DIGITS)
    return float(towards(value / unit) * unit)
