"""Finite problems as arrays: exact robust dynamic programming, Q-learning, DRQ, and problems to try them on."""

from offline_robust.tabular.dynamic_programming import (
    RobustValues,
    StagedValues,
    robust_backward_induction,
    robust_bellman,
    robust_policy_evaluation,
    robust_value_iteration,
    worst_transitions,
)
from offline_robust.tabular.learning import (
    LearnedValues,
    Sampling,
    StepSizes,
    contamination_q_learning,
    drq,
    drq_step_sizes,
    q_learning,
)
from offline_robust.tabular.logs import CountedModel, TransitionLog, as_log, count_model
from offline_robust.tabular.mdp import FiniteMDP, Transitions, finite_mdp
from offline_robust.tabular.model_based import model_based_q_learning, sample_model
from offline_robust.tabular.multilevel import MultilevelValues, multilevel_drq
from offline_robust.tabular.problems import american_put, cliffwalking, put_prices, random_mdp, three_state_chain
from offline_robust.tabular.returns import ExpectedReturns, expected_returns

__all__ = [
    "CountedModel",
    "ExpectedReturns",
    "FiniteMDP",
    "LearnedValues",
    "MultilevelValues",
    "RobustValues",
    "Sampling",
    "StagedValues",
    "StepSizes",
    "TransitionLog",
    "Transitions",
    "american_put",
    "as_log",
    "cliffwalking",
    "contamination_q_learning",
    "count_model",
    "drq",
    "drq_step_sizes",
    "expected_returns",
    "finite_mdp",
    "model_based_q_learning",
    "multilevel_drq",
    "put_prices",
    "q_learning",
    "random_mdp",
    "robust_backward_induction",
    "robust_bellman",
    "robust_policy_evaluation",
    "robust_value_iteration",
    "sample_model",
    "three_state_chain",
    "worst_transitions",
]
