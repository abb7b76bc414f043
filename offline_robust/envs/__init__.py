"""Perturbations as data, suites of them, and batched simulation."""

from offline_robust.envs.batched import BatchedEnv, GymnasiumBatch, make_batch
from offline_robust.envs.making import make_env, nominal_values
from offline_robust.envs.noise import NoiseLayer
from offline_robust.envs.pendulum import BatchedPendulum
from offline_robust.envs.perturbations import (
    ParameterSpec,
    Perturbation,
    parameter_spec,
    parameters_for,
    register_parameter,
    resolve,
)
from offline_robust.envs.suites import (
    Axis,
    Condition,
    Suite,
    list_suites,
    load_suite,
    parse_perturb,
    suite_from_perturb,
)

__all__ = [
    "Axis",
    "BatchedEnv",
    "BatchedPendulum",
    "Condition",
    "GymnasiumBatch",
    "NoiseLayer",
    "ParameterSpec",
    "Perturbation",
    "Suite",
    "list_suites",
    "load_suite",
    "make_batch",
    "make_env",
    "nominal_values",
    "parameter_spec",
    "parameters_for",
    "parse_perturb",
    "register_parameter",
    "resolve",
    "suite_from_perturb",
]
