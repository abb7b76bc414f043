"""Our policies where d3rlpy expects an algorithm: its evaluators and its fitted Q evaluation (FQE)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline_robust.errors import EvaluationError
from offline_robust.networks import Policy

Values = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]
"""Observations (B, O) and actions (B, A) or (B,) to values (B,)."""


class PolicyAlgorithm:
    """A policy as d3rlpy's `QLearningAlgoProtocol`.

    ``d3rlpy.ope.FQE(PolicyAlgorithm(policy), FQEConfig(...))`` evaluates it; the fitted FQE then is itself what
    value-based evaluators take. Where FQE's config has scalers, the same objects are given here: FQE asks for actions
    in its own scale.

    Args:
        policy: one of ours.
        gamma: the discount that evaluators read.
        values: Q of the policy, for evaluators that ask for it (``fqe.predict_value``).
        observation_scaler: of FQE's config.
        action_scaler: of FQE's config.
        reward_scaler: of what `values` was fitted on.
        seed: of `sample_action`.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        gamma: float = 0.99,
        values: Values | None = None,
        observation_scaler: Any = None,
        action_scaler: Any = None,
        reward_scaler: Any = None,
        seed: int = 0,
    ) -> None:
        self.policy, self.gamma = policy, gamma
        self.observation_scaler, self.action_scaler = observation_scaler, action_scaler
        self.reward_scaler = reward_scaler
        self._values, self._generator = values, torch.Generator().manual_seed(seed)

    def predict(self, x: Any) -> NDArray[Any]:
        """Deterministic actions (B, A) or (B,) for observations (B, O)."""
        return self.policy.act(np.asarray(x, np.float32))

    def sample_action(self, x: Any) -> NDArray[Any]:
        """One draw of the policy for each observation."""
        return self.policy.act(np.asarray(x, np.float32), deterministic=False, generator=self._generator)

    def predict_value(self, x: Any, action: NDArray[Any]) -> NDArray[Any]:
        """What `values` says.

        Raises:
            EvaluationError: there is none; a policy alone has no values.
        """
        if self._values is None:
            raise EvaluationError(
                "a policy alone has no values: fit d3rlpy's FQE and give PolicyAlgorithm values=fqe.predict_value"
            )
        return self._values(np.asarray(x, np.float32), action)

    @property
    def impl(self) -> PolicyAlgorithm:
        """What FQE asks for actions."""
        return self

    @torch.no_grad()
    def predict_best_action(self, x: Tensor) -> Tensor:
        """Actions in FQE's scale for observations in FQE's scale."""
        if self.observation_scaler is not None:
            x = self.observation_scaler.reverse_transform(x)
        actions = self.policy.act(x)
        if self.action_scaler is not None:
            actions = self.action_scaler.transform(actions)
        return actions
