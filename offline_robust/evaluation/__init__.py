"""Policy against perturbations: the results table and its statistics."""

from offline_robust.evaluation.results import COLUMNS, Results
from offline_robust.evaluation.rollout import evaluate, run_conditions
from offline_robust.evaluation.summary import compare, per_condition, summarise

__all__ = ["COLUMNS", "Results", "compare", "evaluate", "per_condition", "run_conditions", "summarise"]
