"""Learners: algorithms that turn a dataset into a policy. One file each."""

from offline_robust.learners.base import Learner, LearnerConfig, ProblemSpec
from offline_robust.learners.dr_sac import DRSAC, DRSACConfig
from offline_robust.learners.fqi import FQI, FQIConfig
from offline_robust.learners.rfqi import RFQI, RFQIConfig
from offline_robust.learners.sac import SAC, SACConfig

LEARNERS: dict[str, tuple[type[LearnerConfig], type[Learner]]] = {
    "sac": (SACConfig, SAC),
    "dr_sac": (DRSACConfig, DRSAC),
    "fqi": (FQIConfig, FQI),
    "rfqi": (RFQIConfig, RFQI),
}
"""Learner name to (config class, learner class)."""

__all__ = [
    "DRSAC",
    "FQI",
    "LEARNERS",
    "RFQI",
    "SAC",
    "DRSACConfig",
    "FQIConfig",
    "Learner",
    "LearnerConfig",
    "ProblemSpec",
    "RFQIConfig",
    "SACConfig",
]
