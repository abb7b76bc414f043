"""What the training loop knows of a learner: a frozen config, `update`, `policy`, full state in and out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from offline_robust.datasets.transitions import Batch, TransitionDataset
from offline_robust.environment import EnvironmentSpec
from offline_robust.models.base import NominalModel, Scales
from offline_robust.networks import Policy


class LearnerConfig(BaseModel):
    """Fields common to every learner."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    reward_shift: float = Field(0.0, description="Added to every reward before scaling. DR-SAC on Pendulum: 8.")
    reward_scale: float = Field(1.0, gt=0, description="Multiplies shifted rewards. DR-SAC on Pendulum: 1/8.")
    reward_replace: tuple[float, float] | None = Field(
        None,
        description="[a, b]: rewards of a or less count as b, before shift and scale. DR-SAC on LunarLander: "
        "[-100, -10], so that a crash does not swamp the rest.",
    )

    def shaped(self, rewards: Tensor) -> Tensor:
        """The rewards (B,) that a learner sees of those in the data."""
        if self.reward_replace is not None:
            threshold, value = self.reward_replace
            rewards = torch.where(rewards <= threshold, value, rewards)
        return (rewards + self.reward_shift) * self.reward_scale


@dataclass(frozen=True)
class ProblemSpec:
    """What a learner must know of the data it will see."""

    observation_dim: int
    action_dim: int
    action_space: gym.Space[Any]
    scales: Scales
    device: torch.device
    streams: Mapping[str, torch.Generator]
    """Random streams by purpose: ``init``, ``sampler``, ``policy``, ``model``."""
    environment: EnvironmentSpec | None = None

    @staticmethod
    def of(dataset: TransitionDataset, streams: Mapping[str, torch.Generator]) -> ProblemSpec:
        """The problem that a dataset poses."""
        return ProblemSpec(
            dataset.observation_dim,
            dataset.action_dim,
            dataset.action_space,
            Scales.of(dataset),
            dataset.device,
            streams,
            dataset.environment,
        )


class Learner(ABC):
    """Learns a policy from minibatches of a dataset.

    Args:
        config: frozen; also written beside every run.
        problem: sizes, spaces, statistics, device and random streams.
        model: the nominal model, for learners whose `uses_model` is true.
    """

    policy: Policy
    model: NominalModel | None
    """The nominal model, for learners that sample next states; the loop trains it alone first."""

    uses_model: ClassVar[bool] = False
    """Whether the learner samples next states from a nominal model."""

    takes_discrete: ClassVar[bool] = False
    """Whether the learner takes discrete actions beside continuous ones."""

    def __init__(self, config: LearnerConfig, problem: ProblemSpec, model: NominalModel | None = None) -> None:
        self.config = config
        self.problem = problem
        self.model = model

    def pretrain(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the nominal model, or of what else comes before the policy, alone."""
        if self.model is None:
            raise TypeError(f"{type(self).__name__} has nothing to train before its policy")
        return self.model.update(batch, self.problem.streams["model"])

    @classmethod
    def pretrains(cls, config: LearnerConfig) -> bool:
        """Whether, without a nominal model, the learner has networks of its own that `pretrain` must train."""
        return False

    @classmethod
    def needs_model(cls, config: LearnerConfig) -> bool:
        """Whether this configuration of the learner samples next states from a nominal model."""
        return cls.uses_model

    def warnings(self, dataset: TransitionDataset) -> list[str]:
        """What about this configuration and these data the user should know before training; one line each."""
        return []

    @abstractmethod
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step on a minibatch. Returns 0-d tensors under ``train/``, ``dual/`` and ``model/`` keys."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything needed to continue exactly: weights, targets, optimisers (streams are the loop's)."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` gave."""
