"""Policy against perturbations: the results table and its statistics."""

from offline_robust.evaluation.finished import clear_cells
from offline_robust.evaluation.request import EvaluationRequest
from offline_robust.evaluation.results import COLUMNS, Results
from offline_robust.evaluation.rollout import answer, evaluate, run_conditions
from offline_robust.evaluation.scores import SCORE_NAMES, ScoreReference, score_reference
from offline_robust.evaluation.summary import by_severity, compare, per_condition, per_parameter, summarise

__all__ = [
    "COLUMNS",
    "SCORE_NAMES",
    "EvaluationRequest",
    "Results",
    "ScoreReference",
    "answer",
    "by_severity",
    "clear_cells",
    "compare",
    "evaluate",
    "per_condition",
    "per_parameter",
    "run_conditions",
    "score_reference",
    "summarise",
]
