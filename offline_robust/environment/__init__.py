"""What an environment is, as data that travels whole from the logs to the report, and how it is made from that."""

from offline_robust.environment.agreement import agree
from offline_robust.environment.choice import EnvironmentChoice, as_choice, without
from offline_robust.environment.imports import import_modules, imported, split_module
from offline_robust.environment.making import as_spec, make_env, make_flat, register_environments, step_limit
from offline_robust.environment.spaces import (
    decode_space,
    dimension_names,
    encode_space,
    flat_actions,
    flat_observations,
    flatten,
    parts,
)
from offline_robust.environment.spec import (
    NO_LIMIT,
    EnvironmentSpec,
    WrapperSpec,
    from_gymnasium,
    make_spec,
)

__all__ = [
    "NO_LIMIT",
    "EnvironmentChoice",
    "EnvironmentSpec",
    "WrapperSpec",
    "agree",
    "as_choice",
    "as_spec",
    "decode_space",
    "dimension_names",
    "encode_space",
    "flat_actions",
    "flat_observations",
    "flatten",
    "from_gymnasium",
    "import_modules",
    "imported",
    "make_env",
    "make_flat",
    "make_spec",
    "parts",
    "register_environments",
    "split_module",
    "step_limit",
    "without",
]
