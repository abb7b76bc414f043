"""Learners: algorithms that turn batches into a policy. One file each."""

from offline_robust.errors import ConfigError
from offline_robust.learners.base import Learner, LearnerConfig, Phase, Problem
from offline_robust.learners.bc import BC, BCConfig
from offline_robust.learners.dr_sac import DRSAC, DRSACConfig
from offline_robust.learners.fqi import FQI, FQIConfig
from offline_robust.learners.rfqi import RFQI, RFQIConfig
from offline_robust.learners.sac import SAC, SACConfig
from offline_robust.registry import Registry

LEARNERS: Registry[Learner] = Registry(
    "offline_robust.learners",
    Learner,  # type: ignore[type-abstract]
    {"bc": BC, "sac": SAC, "dr_sac": DRSAC, "fqi": FQI, "rfqi": RFQI},
)
"""Learner name to class. The d3rlpy bridge registers its own."""


def register_learner(kind: type[Learner], name: str | None = None) -> type[Learner]:
    """Makes a learner known by name, as an entry point of the group ``offline_robust.learners`` does.

    It trains, resumes, sweeps, compares and reports like ours. A process that reads its runs must register it too: name
    the module with ``--import``. Usable as a decorator.

    Args:
        kind: the class; its `Config` has a default name.
        name: under which it is known; None takes the name that its `Config` has by default.

    Raises:
        ConfigError: the name is one of ours, there is none, or the class is no learner.
    """
    chosen = name or kind.Config.model_fields["name"].default
    if not isinstance(chosen, str):
        raise ConfigError(f"{kind.__name__}.Config has no default name: give one, name: Literal['mine'] = 'mine'")
    LEARNERS.register(chosen, kind)
    return kind


__all__ = [
    "BC",
    "DRSAC",
    "FQI",
    "LEARNERS",
    "RFQI",
    "SAC",
    "BCConfig",
    "DRSACConfig",
    "FQIConfig",
    "Learner",
    "LearnerConfig",
    "Phase",
    "Problem",
    "RFQIConfig",
    "SACConfig",
    "register_learner",
]
