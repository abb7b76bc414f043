"""Distributionally robust soft actor-critic: SAC against the worst transition law in a ball around a nominal one.

Source: DR-SAC (arXiv 2506.12622), equations of the robust soft Bellman operator and its functional dual; order and
constants of its released code (branch `submission`). Where the release departs from the mathematics we follow the
mathematics: docs/algorithms/dr_sac.md lists each case. Balls other than KL, and learning from the data's own next
states, are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator
from torch import Tensor

from offline_robust.datasets.transitions import Batch, TransitionDataset
from offline_robust.divergences import (
    KL,
    Divergence,
    DivergenceConfig,
    GradientWasserstein,
    KLConfig,
    Wasserstein1,
    parse,
)
from offline_robust.errors import ConfigError
from offline_robust.learners.base import Problem
from offline_robust.learners.floors import floor_warning
from offline_robust.learners.learned_dual import LearnedDual, dual_kinds, normal_shift, normal_start, require_reach
from offline_robust.learners.sac import SAC, SACConfig
from offline_robust.learners.worst_case import Exact, Functional, Future, Linear, Move, WorstCase
from offline_robust.models.base import NominalModel
from offline_robust.networks import DualNetwork, LogDualNetwork, adamw, fast_inference_dtype

# --- Config ---------------------------------------------------------------------------------------------------------


def _parsed(values: Any) -> Any:
    try:
        return None if values is None else parse(values)
    except ConfigError as error:
        raise ValueError(str(error)) from None


class DRSACConfig(SACConfig):
    """SAC plus the ball, where next states come from, and how the ball's dual is solved."""

    name: Literal["dr_sac"] = "dr_sac"  # type: ignore[assignment]
    delta: float | None = Field(
        0.5,
        ge=0,
        le=100,
        description="KL radius, nats. DR-SAC: 0.1 to 1; 0 is the model's mean. None where `divergence` names a ball.",
    )
    divergence: Annotated[SerializeAsAny[DivergenceConfig] | None, BeforeValidator(_parsed)] = Field(
        None, description="Another ball: {name: chi2, radius: 0.5}; in place of delta. Ours."
    )
    next_states: Literal["model", "data"] = Field(
        "model",
        description="model: draws of the nominal model, as DR-SAC; data: the logged next state alone, no model, and a "
        "dual that is learned from it. Ours.",
    )
    samples: int = Field(200, ge=1, le=10_000, description="m, model draws for each pair. DR-SAC: 200.")
    dual: Literal["exact", "functional"] = Field(
        "exact",
        description="exact: solved for each pair; functional: DR-SAC's network G(s, a), a lower bound. With next "
        "states from the data, functional wherever the ball has a dual variable.",
    )
    dual_learning_rate: float = Field(5e-4, gt=0, le=1, description="AdamW step of G. DR-SAC: 5e-4 or 5e-5.")
    dual_steps: int = Field(5, ge=1, le=1000, description="Steps of G for each update. DR-SAC: 5.")
    train_model: bool = Field(True, description="Go on training the model, one step an update. DR-SAC: on.")
    sampling_precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Products of the sampling path, which carries no gradient; auto: bfloat16 where it is faster.",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_ball(cls, values: Any) -> Any:
        """`delta` is short for a KL ball, and a KL ball by name is kept as its `delta`."""
        if not isinstance(values, Mapping) or values.get("divergence") is None:
            return values
        if values.get("delta") is not None:
            raise ValueError("delta is short for the KL ball: give delta or divergence, not both (delta: null)")
        try:
            ball = parse(values["divergence"])
        except ConfigError:
            return {**values, "delta": None}  # the field's own check says what is wrong
        if isinstance(ball, KLConfig):
            return {**values, "delta": ball.radius, "divergence": None}
        return {**values, "delta": None, "divergence": ball}

    @model_validator(mode="before")
    @classmethod
    def _learned_from_data(cls, values: Any) -> Any:
        """One next state leaves nothing to solve exactly: without a word on `dual`, it is learned."""
        if isinstance(values, Mapping) and values.get("next_states") == "data" and "dual" not in values:
            return {**values, "dual": "functional"}
        return values

    @model_validator(mode="after")
    def _is_a_worst_case(self) -> DRSACConfig:
        """Refuses by name what would not be a worst case."""
        if self.delta is None and self.divergence is None:
            raise ValueError("delta and divergence are both null: give one of them")
        ball, name = self.ball(), "kl" if self.divergence is None else self.divergence.name
        if isinstance(ball, Wasserstein1):
            raise ValueError(
                "wasserstein1 moves mass on a finite support, which next states do not have; use wasserstein_gradient"
            )
        if isinstance(ball, GradientWasserstein):
            return self
        if self.next_states == "model":
            self._require_samples(ball, name)
            return self
        if ball.linear_duals is None:
            raise ValueError(f"next_states: data with {name} needs a lower bound of the values: give divergence.v_min")
        if ball.linear_duals and self.dual == "exact":
            raise ValueError(f"next_states: data has one next state: the dual of {name} is learned (dual: functional)")
        if ball.linear_duals and ball.radius == 0.0:
            raise ValueError(f"next_states: data with {name} at radius 0 is plain SAC: use name: sac")
        return self

    def _require_samples(self, ball: Divergence, name: str) -> None:
        if self.dual == "functional" and ball.radius == 0.0:
            infinite = " (beta is infinite)" if name == "kl" else ""
            raise ValueError(f"dual: functional has no optimum at radius 0{infinite}; use dual: exact")
        if ball.needs_stochastic_nominal and ball.radius > 0.0 and self.samples == 1:
            raise ValueError(f"the {name} ball around a single sample holds that sample alone; use samples: 2 or more")

    def ball(self) -> Divergence | GradientWasserstein:
        """The ambiguity set."""
        if self.divergence is not None:
            return self.divergence.build()
        return KL(self.delta or 0.0)

    @property
    def label(self) -> str:
        """See `LearnerConfig.label`."""
        ball = f"delta={self.delta:g}" if self.divergence is None else self.divergence.label
        return f"{self.name} {ball}{' next_states=data' if self.next_states == 'data' else ''}"

    @property
    def needs_model(self) -> bool:
        """See `LearnerConfig.needs_model`."""
        return self.next_states == "model"

    @property
    def kl_radius(self) -> float | None:
        """See `LearnerConfig.kl_radius`."""
        ball = self.ball()
        if self.divergence is None or isinstance(ball, GradientWasserstein) or not ball.needs_stochastic_nominal:
            return self.delta
        return 0.5 * normal_shift(ball) ** 2


# --- Learner --------------------------------------------------------------------------------------------------------


class DRSAC(SAC):
    """SAC whose critics regress to r + gamma inf { E_p V'(s') : p in the ball around p0(. | s, a) }.

    With a nominal model the expectation under p0 is the mean over m of its draws, and the logged next observation only
    trains the model. V' is computed once a sample. Without one, the logged next observation is the only draw.
    """

    Config = DRSACConfig
    config: DRSACConfig
    toy = MappingProxyType({**SAC.toy, "samples": 16})

    def __init__(self, config: DRSACConfig, problem: Problem) -> None:
        self.ball = config.ball()
        _require_nominal(config, self.ball, problem.model)
        super().__init__(config, problem)
        auto = fast_inference_dtype(problem.device)
        self.sampling_dtype = auto if config.sampling_precision == "auto" else getattr(torch, config.sampling_precision)
        self.worst_case = self._worst_case()
        if self.model is not None:
            self.keep(model=self.model)

    def _worst_case(self) -> WorstCase:
        """How the worst expectation is found: what the configuration says, and what its ball and data allow."""
        config, ball, linear = self.config, self.ball, self.config.next_states == "data"
        if isinstance(ball, GradientWasserstein):
            scale = self.problem.scales.step_std.to(self.problem.device)
            return Move(GradientWasserstein(ball.radius, scale, ball.norm))
        if config.dual == "exact" or not dual_kinds(ball, linear):
            return Linear(ball, None) if linear else Exact(ball)
        dual = self._learned_dual(ball, linear)
        self.keep(dual=dual.network, dual_optimiser=dual.optimiser)
        return Linear(ball, dual) if linear else Functional(dual)

    def _learned_dual(self, ball: Divergence, linear: bool) -> LearnedDual:
        """DR-SAC's own network for its own ball and form; one that keeps the values' units for every other."""
        config, init = self.config, self.problem.streams["init"]
        inputs = self.problem.observation_dim + self.problem.action_dim
        network: DualNetwork | LogDualNetwork
        if isinstance(ball, KL) and not linear:
            network = LogDualNetwork(inputs, config.hidden, init)
        else:
            require_reach(ball)
            kinds, start = dual_kinds(ball, linear), normal_start(ball, linear)
            network = DualNetwork(kinds, inputs, config.hidden, init, start=start)
        network.to(self.problem.device)
        optimiser = adamw([(network.parameters(), config.dual_learning_rate)], config.weight_decay)
        return LearnedDual(ball, network, optimiser, steps=config.dual_steps, linear=linear)

    def warnings(self, dataset: TransitionDataset) -> list[str]:
        """See `Learner.warnings`: a fail state that is not the worst place, where only the linear form is known."""
        if self.config.next_states == "model" or isinstance(self.ball, GradientWasserstein):
            return []
        if self.ball.v_min is None or self.ball.radius == 0.0:
            return []
        key, consequence = "learner.divergence.v_min", "there the ball holds nothing to fear"
        return floor_warning(self.config, dataset, self.config.discount, self.ball.v_min, key, consequence)

    # --- Update -----------------------------------------------------------------------------------------------------

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step on a minibatch; returns 0-d tensors."""
        # 1. The nominal model follows the data.
        info = self.fit_model(batch) if self.model is not None and self.config.train_model else {}
        # 2. What follows each row under the nominal law: m draws of the model, or what was logged; V' there.
        future = self.logged_future(batch) if self.model is None else self.modelled_future(batch, self.model)
        # 3. The dual variables follow the values.
        info |= self.worst_case.fit(future)
        # 4. The worst expectation of V' over the ball.
        worst, found = self.worst_case(future)
        # 5. SAC's step, with that in place of V'(s').
        return self.improve(batch, worst) | info | found

    def modelled_future(self, batch: Batch, model: NominalModel) -> Future:
        """m draws of the nominal model for each pair, and V' there."""
        o, a, m, stream = batch.observations, batch.actions, self.config.samples, self.problem.streams["model"]
        return Future(
            torch.cat([o, a], dim=1),
            self.value_at,
            lambda: model.sample(o, a, m, stream),
            lambda: model.values_of_draws(self.target_value, o, a, m, stream, self.sampling_dtype),
        )

    def logged_future(self, batch: Batch) -> Future:
        """The logged next observation; where a row ends there is none, and it may hold anything."""
        ended = self.ended(batch)
        states = torch.where(ended.unsqueeze(1), batch.observations, batch.next_observations)
        pairs = torch.cat([batch.observations, batch.actions], dim=1)
        return Future(pairs, self.value_at, lambda: states, lambda: self.value_at(states).detach(), (~ended).float())

    def value_at(self, states: Tensor) -> Tensor:
        """V' (...) of states (..., O)."""
        return self.target_value(states).squeeze(-1)  # type: ignore[no-any-return]


def _require_nominal(config: DRSACConfig, ball: Divergence | GradientWasserstein, model: NominalModel | None) -> None:
    """Refuses a nominal law that does not fit the configuration."""
    if config.next_states == "data":
        if model is not None:
            raise ConfigError("dr_sac with next_states: data has no nominal model: remove it (model: null)")
        return
    if model is None:
        raise ConfigError("dr_sac samples next states: give the run a nominal model (model: {name: vae})")
    if ball.needs_stochastic_nominal and ball.radius > 0.0 and model.deterministic:
        raise ConfigError(
            f"{ball} around a deterministic model holds that model alone; use tv or contamination with v_min, or "
            "wasserstein_gradient"
        )
