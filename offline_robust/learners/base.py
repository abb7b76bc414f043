"""What the training loop knows of a learner: a frozen config, phases of steps, policies by name, registered state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import gymnasium as gym
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from offline_robust.datasets.feed import Feed
from offline_robust.datasets.transitions import Batch, TransitionDataset
from offline_robust.environment import EnvironmentSpec
from offline_robust.errors import ConfigError
from offline_robust.models.base import ModelConfig, NominalModel, Scales
from offline_robust.networks import Policy, load_optimiser

# --- Config ---------------------------------------------------------------------------------------------------------


class TrainingLengths(Protocol):
    """What `Learner.phases` is told of a training."""

    @property
    def steps(self) -> int:
        """Updates of the policy."""

    @property
    def model_steps(self) -> int:
        """Updates of what comes before the policy."""


class RunSettings(Protocol):
    """What a learner's config is told of the run that it is part of."""

    @property
    def model(self) -> ModelConfig | None:
        """The nominal model's configuration."""

    @property
    def training(self) -> TrainingLengths:
        """Lengths."""


class LearnerConfig(BaseModel):
    """Fields common to every learner, and what the loop, labels and diagnosis ask of one."""

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

    @property
    def label(self) -> str:
        """What seeds average over, in words: the name, and the radius where there is one."""
        return self.name

    @property
    def needs_model(self) -> bool:
        """Whether next states are sampled from a nominal model."""
        return False

    @property
    def prepares(self) -> bool:
        """Whether networks other than a nominal model are trained in `training.model_steps`."""
        return False

    @property
    def kl_radius(self) -> float | None:
        """The KL radius whose worst case is as bad as this ball's on a normal law; None where a model without spread
        is no danger."""
        return None

    def check(self, run: RunSettings) -> None:
        """Refuses a run that this learner cannot be part of.

        Raises:
            ConfigError: one line that says what to change.
        """
        if self.needs_model and run.model is None:
            raise ConfigError(f"{self.name} samples next states from a nominal model: add model: {{name: vae}}")
        if run.model is not None and not self.needs_model:
            raise ConfigError(f"{self.name} has no nominal model with these settings: remove it (model: null)")
        if run.training.model_steps and run.model is None and not self.prepares:
            raise ConfigError(f"training.model_steps is {run.training.model_steps} but there is no model")


# --- What is learned from -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """What a learner is built for: sizes, spaces, statistics, device and random streams."""

    observation_dim: int
    action_dim: int
    """A; the number of actions where they are discrete."""
    action_space: gym.Space[Any]
    scales: Scales
    device: torch.device
    streams: Mapping[str, torch.Generator]
    """Random streams by purpose: ``init``, ``sampler``, ``policy``, ``model``."""
    environment: EnvironmentSpec | None = None
    dataset: TransitionDataset | None = None
    """What is learned from, where it is all there beforehand."""
    model: NominalModel | None = None
    """The nominal model, for configs whose `needs_model` is true."""

    @staticmethod
    def of(
        dataset: TransitionDataset, streams: Mapping[str, torch.Generator], model: NominalModel | None = None
    ) -> Problem:
        """The problem that a dataset poses."""
        return Problem(
            dataset.observation_dim,
            dataset.action_dim,
            dataset.action_space,
            Scales.of(dataset),
            dataset.device,
            streams,
            dataset.environment,
            dataset,
            model,
        )

    @property
    def discrete(self) -> bool:
        """Whether actions are int64 indices."""
        return isinstance(self.action_space, gym.spaces.Discrete)

    @property
    def kind_of_actions(self) -> str:
        """``box`` or ``discrete``, as `Learner.actions` has it."""
        return "discrete" if self.discrete else "box"


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one kind of step."""

    name: str
    """As metrics and progress show it."""
    steps: int
    step: Callable[[Batch], Mapping[str, Tensor]]
    """One step on a minibatch; returns 0-d tensors under ``train/``, ``dual/`` and ``model/`` keys."""
    begin: Callable[[Feed], None] | None = None
    """Called when the phase begins, and again when a training is resumed inside it: adds columns that are computed from
    what was learned before, which the phase itself must leave as it is."""


# --- Learner --------------------------------------------------------------------------------------------------------


class Stateful(Protocol):
    """A part of a learner that is neither a module, an optimiser nor a tensor."""

    def state(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` gave."""


Part = nn.Module | torch.optim.Optimizer | Tensor | Stateful


class Learner(ABC):
    """Learns policies from minibatches.

    A subclass names its `Config`, builds its networks, keeps every part that training changes (`keep`), and says what a
    step does (`update`) and which policies come of it (`policies`).

    Args:
        config: frozen; also written beside every run.
        problem: sizes, spaces, statistics, device, random streams, and the nominal model where there is one.

    Raises:
        ConfigError: the problem's actions are of a kind that the learner does not take.
    """

    Config: ClassVar[type[LearnerConfig]]
    actions: ClassVar[frozenset[str]] = frozenset({"box"})
    """Kinds of actions that it takes: ``box``, ``discrete`` or both."""
    columns: frozenset[str] = frozenset()
    """Names of the further columns that its batches must have. What it adds itself in `prepare` is not among them."""
    imitates: ClassVar[bool] = False
    """Whether it reproduces the behaviour in the data rather than improving on it."""
    toy: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Settings of small networks that learn a problem of one dimension in seconds, for trials and tests."""

    def __init__(self, config: LearnerConfig, problem: Problem) -> None:
        if problem.kind_of_actions not in self.actions:
            words = " or ".join({"box": "continuous", "discrete": "discrete"}[kind] for kind in sorted(self.actions))
            raise ConfigError(f"{config.name} needs {words} actions, the dataset's are {problem.action_space}")
        self.config = config
        self.problem = problem
        self.model = problem.model
        self._parts: dict[str, Part] = {}

    def prepare(self, feed: Feed) -> None:  # noqa: B027 - most learners add nothing
        """Adds columns of its own to the feed, before the first step and before a resumed one."""

    def phases(self, training: TrainingLengths) -> Sequence[Phase]:
        """The stretches of its training, in order: the model alone, then the policy."""
        return [Phase("model", training.model_steps, self.fit_model), Phase("train", training.steps, self.update)]

    def fit_model(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the nominal model alone."""
        if self.model is None:
            raise TypeError(f"{type(self).__name__} has no nominal model to fit")
        return self.model.update(batch, self.problem.streams["model"])

    def warnings(self, dataset: TransitionDataset) -> list[str]:
        """What about this configuration and these data the user should know before training; one line each."""
        return []

    @abstractmethod
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the policy on a minibatch; returns 0-d tensors under ``train/``, ``dual/`` and ``model/`` keys.
        Whatever is trained is trained by a call in here, in the paper's order."""

    @abstractmethod
    def policies(self) -> dict[str, Policy]:
        """Policies by name; ``policy`` is the deployed one."""

    @property
    def policy(self) -> Policy:
        """The deployed policy."""
        return self.policies()["policy"]

    # --- State ------------------------------------------------------------------------------------------------------

    def keep(self, **parts: Part) -> None:
        """Registers parts that checkpoints hold, by name."""
        if twice := self._parts.keys() & parts.keys():
            raise ValueError(f"{type(self).__name__} keeps {', '.join(sorted(twice))} twice")
        self._parts |= parts

    def state(self) -> dict[str, Any]:
        """Everything needed to continue exactly: weights, targets, optimisers (streams are the loop's)."""
        return {name: _state_of(part) for name, part in self._parts.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` gave."""
        for name, part in self._parts.items():
            _load_state_of(part, state[name])


def _state_of(part: Part) -> Any:
    if isinstance(part, nn.Module | torch.optim.Optimizer):
        return part.state_dict()
    return part.detach() if isinstance(part, Tensor) else part.state()


def _load_state_of(part: Part, state: Any) -> None:
    if isinstance(part, nn.Module):
        part.load_state_dict(state)
    elif isinstance(part, torch.optim.Optimizer):
        load_optimiser(part, state)
    elif isinstance(part, Tensor):
        with torch.no_grad():
            part.copy_(state)
    else:
        part.load_state(state)
