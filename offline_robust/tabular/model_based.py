"""Model-based robust Q-learning: count a model, then plan in it."""

from __future__ import annotations

import numpy as np

from offline_robust.divergences import Divergence
from offline_robust.errors import ConfigError
from offline_robust.tabular.dynamic_programming import RobustValues, robust_value_iteration
from offline_robust.tabular.logs import CountedModel, Log, count_model
from offline_robust.tabular.mdp import FiniteMDP, as_problem, finite_mdp


def model_based_q_learning(
    data: Log,
    discount: float,
    divergence: Divergence | None = None,
    *,
    states: int | None = None,
    actions: int | None = None,
    untried_reward: float | None = None,
    tolerance: float = 1e-8,
) -> RobustValues:
    """Robust values of the model that a log counts up to: `count_model`, then `robust_value_iteration`.

    Args:
        data: see `as_log`.
        discount: in [0, 1).
        divergence: the ball around the counted laws.
        states: see `as_log`.
        actions: see `as_log`.
        untried_reward: see `count_model`.
        tolerance: see `robust_value_iteration`.

    Raises:
        ConfigError, DatasetError: as these two.

    Source: Panaganti and Kalathil (2022), algorithm 1, from a log.
    """
    mdp = count_model(data, discount, states=states, actions=actions, untried_reward=untried_reward).mdp
    return robust_value_iteration(
        mdp.transitions, mdp.rewards, discount, divergence, terminal=mdp.terminal, tolerance=tolerance
    )


def sample_model(mdp: FiniteMDP, samples: int, *, seed: int = 0) -> CountedModel:
    """The model counted from `samples` simulated next states of every pair, with the problem's own rewards.

    Raises:
        ConfigError: no samples.

    Source: Panaganti and Kalathil (2022), algorithm 1.
    """
    if samples < 1:
        raise ConfigError(f"samples: at least 1 of every pair, got {samples}")
    transitions, _ = as_problem(mdp.transitions, mdp.rewards)
    drawn = np.random.default_rng(seed).multinomial(samples, transitions.probabilities)
    counted = finite_mdp(
        (transitions.successors, drawn / samples), mdp.rewards, mdp.discount, terminal=mdp.terminal, start=mdp.start
    )
    return CountedModel(counted, np.full(drawn.shape[:2], samples))
