"""Which algorithms of d3rlpy the bridge knows, and d3rlpy itself, imported on demand without its side effects."""

from __future__ import annotations

import contextlib
import io
from types import ModuleType

import torch

from offline_robust.errors import MissingExtra

PREFIX = "d3rlpy:"

CONTINUOUS = (
    "AWAC",
    "BC",
    "BCQ",
    "BEAR",
    "CQL",
    "CRR",
    "CalQL",
    "DDPG",
    "IQL",
    "PLAS",
    "PLASWithPerturbation",
    "PRDC",
    "ReBRAC",
    "SAC",
    "TD3",
    "TD3PlusBC",
)
"""d3rlpy's Q-learning algorithms for continuous actions; written down, so that a name is checked without importing
d3rlpy, which takes seconds. Its random policies do not learn, and its transformers are no Q-learning."""

DISCRETE = ("DQN", "DiscreteBC", "DiscreteBCQ", "DiscreteCQL", "DiscreteSAC", "DoubleDQN", "NFQ")
"""Those for discrete actions."""


def require_d3rlpy(purpose: str) -> ModuleType:
    """Imports d3rlpy.

    Its import prints the notice of the retired package it depends on and, where there is a GPU, changes two global
    settings of PyTorch; both are undone here, so that our own learners run alike with and without it.

    Args:
        purpose: what needs it, for the message.

    Raises:
        MissingExtra: it is not installed.
    """
    precision = torch.get_float32_matmul_precision()
    compiled = torch._dynamo.config.compiled_autograd if torch.cuda.is_available() else None
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            import d3rlpy
    except ModuleNotFoundError as error:
        if error.name != "d3rlpy":
            raise
        raise MissingExtra("d3rlpy", "d3rlpy", purpose) from None
    torch.set_float32_matmul_precision(precision)
    if compiled is not None:
        torch._dynamo.config.compiled_autograd = compiled
    module: ModuleType = d3rlpy
    return module
