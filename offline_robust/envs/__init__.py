"""Perturbations as data, suites of them, and batched simulation."""

from offline_robust.envs import classic, lunar_lander, noise  # noqa: F401 - they register what can be perturbed
from offline_robust.envs.batched import BatchedEnv, GymnasiumBatch, make_batch
from offline_robust.envs.effects import without_effect
from offline_robust.envs.pendulum import BatchedPendulum
from offline_robust.envs.perturbations import ParameterSpec, Perturbation, register_parameter
from offline_robust.envs.physics import Physics, open_physics, perturb, register_physics
from offline_robust.envs.schedules import Levels
from offline_robust.envs.stages import Site, Stage, Stages, register_stage
from offline_robust.envs.suite_files import list_suites, load_suite
from offline_robust.envs.suites import (
    Axis,
    Condition,
    Suite,
    SuiteBlock,
    grid,
    parse_perturb,
    suite_from_perturb,
    sweeps,
)
from offline_robust.envs.systems import System, system

__all__ = [
    "Axis",
    "BatchedEnv",
    "BatchedPendulum",
    "Condition",
    "GymnasiumBatch",
    "Levels",
    "ParameterSpec",
    "Perturbation",
    "Physics",
    "Site",
    "Stage",
    "Stages",
    "Suite",
    "SuiteBlock",
    "System",
    "grid",
    "list_suites",
    "load_suite",
    "make_batch",
    "open_physics",
    "parse_perturb",
    "perturb",
    "register_parameter",
    "register_physics",
    "register_stage",
    "suite_from_perturb",
    "sweeps",
    "system",
    "without_effect",
]
