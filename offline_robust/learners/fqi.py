"""Fitted Q iteration on a batch, in the form that RFQI is compared with: PQL-BCQ.

Source: Liu et al. 2020 ("Provably good batch off-policy reinforcement learning without great exploration") and the
FQI baseline of RFQI's released code (Panaganti et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from offline_robust.datasets.transitions import Batch, TransitionDataset
from offline_robust.errors import ConfigError
from offline_robust.learners.action_search import Info
from offline_robust.learners.base import Phase, Problem, RunSettings, TrainingLengths
from offline_robust.learners.batch_constrained import BatchConstrainedConfig, Width
from offline_robust.learners.fitted_q import FittedQ
from offline_robust.learners.floors import floor_warning
from offline_robust.models.state_density import StateDensity
from offline_robust.networks.spec import MAX_LAYERS

# --- Config ---------------------------------------------------------------------------------------------------------


class FQIConfig(BatchConstrainedConfig):
    """Batch-constrained learning with a filter: next observations unlike the data's are worth v_min."""

    name: Literal["fqi"] = "fqi"
    backup: Literal["ql", "ac"] = Field(
        "ql",
        description="Candidates of the backup: ql, the behaviour's with noise; ac, the behaviour's moved by the target "
        "of the perturbation. RFQI's FQI: ql.",
    )
    backup_noise: float = Field(
        0.15,
        ge=0,
        le=10,
        description="Std of the Gaussian noise of `backup: ql`, in half-widths of the action range. RFQI's FQI: 0.15.",
    )
    density_filter: bool = Field(True, description="Filter next observations by a state VAE. RFQI's FQI: on.")
    density_threshold: float | None = Field(
        None,
        description="b on the score; None is the 2nd percentile over the data. RFQI's FQI: either; DR-SAC's: -0.4.",
    )
    density_sharpness: float = Field(100.0, gt=0, description="Slope of the filter's sigmoid. RFQI's FQI: 100.")
    density_normalise: bool = Field(
        True, description="Standardise observations for the state VAE. Ours; RFQI's FQI: off (a fixed b belongs to it)."
    )
    density_hidden: tuple[Width, ...] = Field(
        (750, 750),
        min_length=1,
        max_length=MAX_LAYERS,
        description="Hidden widths of the state VAE. RFQI's FQI: 750, 750.",
    )
    density_learning_rate: float = Field(
        1e-3, gt=0, le=1, description="Adam: state VAE, trained in the training.model_steps alone. RFQI's FQI: 1e-3."
    )

    @property
    def prepares(self) -> bool:
        """See `LearnerConfig.prepares`: the state VAE."""
        return self.density_filter

    def check(self, run: RunSettings) -> None:
        """See `LearnerConfig.check`."""
        super().check(run)
        if self.prepares and not run.training.model_steps:
            raise ConfigError(
                f"{self.name}'s density filter learns in training.model_steps, which is 0: set it to some thousands, "
                "or learner.density_filter to false"
            )


# --- Learner --------------------------------------------------------------------------------------------------------


class FQI(FittedQ):
    """y = r + gamma [zeta V(s') + (1 - zeta) v_min], zeta = sigmoid(sharpness (score(s') - b)).

    The state VAE behind the score learns before the critics do (`training.model_steps`) and not after.
    """

    Config = FQIConfig
    config: FQIConfig
    toy = MappingProxyType({**FittedQ.toy, "density_hidden": (16, 16)})

    def __init__(self, config: FQIConfig, problem: Problem) -> None:
        super().__init__(config, problem, noise=config.backup_noise if config.backup == "ql" else None)
        self.density: StateDensity | None = None
        if config.density_filter:
            self.density = StateDensity(
                problem.observation_dim,
                config.density_hidden,
                config.density_learning_rate,
                problem.scales if config.density_normalise else None,
                config.density_threshold,
                problem.streams["init"],
                problem.device,
            )
            self.keep(density=self.density)

    def phases(self, training: TrainingLengths) -> Sequence[Phase]:
        """See `Learner.phases`: the density alone, then everything else."""
        return [Phase("model", training.model_steps, self.fit_density), Phase("train", training.steps, self.update)]

    def warnings(self, dataset: TransitionDataset) -> list[str]:
        """See `Learner.warnings`: rewards under which the unfamiliar is worth more than the data."""
        config = self.config
        if not config.density_filter:
            return []
        consequence = "what the density filter turns away is worth more than that"
        return floor_warning(config, dataset, config.discount, config.v_min, "learner.v_min", consequence)

    # --- Density ----------------------------------------------------------------------------------------------------

    def fit_density(self, batch: Batch) -> Info:
        """One step of the state VAE: half of the rows give their observation, the others what came next."""
        if self.density is None:
            raise TypeError("there is no density to fit: density_filter is false")
        half = torch.arange(len(batch.rewards), device=self.problem.device) * 2 < len(batch.rewards)
        first = (half | ~batch.next_valid).unsqueeze(1)
        rows = torch.where(first, batch.observations, batch.next_observations)
        return self.density.update(rows, self.problem.streams["model"])

    def filtered(self, values: Tensor, following: Tensor, valid: Tensor) -> tuple[Tensor, Info]:
        """zeta V(s') + (1 - zeta) v_min.

        Args:
            values: (B,) V(s').
            following: (B, O) s', finite in every row.
            valid: (B,) bool: rows whose s' is a true next observation.
        """
        if self.density is None:
            return values, {}
        familiar = self.density.familiarity(following, valid, self.config.density_sharpness)
        info = {"model/familiar": familiar.mean(), "model/threshold": self.density.threshold.clone()}
        return torch.lerp(torch.full_like(values, self.config.v_min), values, familiar), info

    # --- Update -----------------------------------------------------------------------------------------------------

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step on a minibatch; returns 0-d tensors."""
        # 1. The behaviour's model follows the data.
        info = self.search.fit(batch)
        # 2. V(s'): the largest value of an action near the data's.
        following = self.following(batch)
        values = self.next_values(following)
        # 3. The filter: V(s') as far as s' is familiar, v_min for the rest.
        future, found = self.filtered(values, following, batch.next_valid)
        # 4. The critics regress to r + gamma * future.
        info |= self.regress(batch, self.target(batch, future))
        # 5. The perturbation climbs the first critic.
        info |= self.search.improve(self.critics, batch.observations)
        # 6. Targets and the deployed policy follow.
        self.follow()
        return info | found | {"train/value": values.mean()}
