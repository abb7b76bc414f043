"""Learners: algorithms that turn a dataset into a policy. One file each."""

from offline_robust.learners.base import Learner, LearnerConfig, ProblemSpec
from offline_robust.learners.dr_sac import DRSAC, DRSACConfig
from offline_robust.learners.sac import SAC, SACConfig

LEARNERS: dict[str, tuple[type[LearnerConfig], type[Learner]]] = {
    "sac": (SACConfig, SAC),
    "dr_sac": (DRSACConfig, DRSAC),
}
"""Learner name to (config class, learner class)."""

__all__ = ["DRSAC", "LEARNERS", "SAC", "DRSACConfig", "Learner", "LearnerConfig", "ProblemSpec", "SACConfig"]
