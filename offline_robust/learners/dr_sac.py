"""Distributionally robust soft actor-critic: SAC against the worst transition law in a ball around a nominal one.

Source: DR-SAC (arXiv 2506.12622), equations of the robust soft Bellman operator and its functional dual; order and
constants of its released code (branch `submission`). Where the release departs from the mathematics we follow the
mathematics: docs/algorithms/dr_sac.md lists each case. Balls other than KL, and learning from the data's own next
states, are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from offline_robust.learners.base import LearnerConfig, ProblemSpec
from offline_robust.learners.floors import floor_warning
from offline_robust.learners.learned_dual import LearnedDual, dual_kinds, normal_shift
from offline_robust.learners.sac import SAC, SACConfig
from offline_robust.models.base import NominalModel
from offline_robust.networks import MLP, Buffers, InferenceTail, adamw, fast_inference_dtype, load_optimiser

LOG_DUAL_RANGE = (-14.0, 14.0)
"""Bounds of log G(s, a): beyond them exp underflows the tilted law or overflows the penalty in float32."""

_PROBE = 32
"""Pairs of a batch on which a learned dual is compared with the exact one."""

_ROWS_IN_CACHE = 3_200
"""Samples that go through decoder and V' together: 3,200 rows of 256 fit the second-level cache."""

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
    def gaussian_delta(self) -> float | None:
        """The KL radius that shifts a normal law as far as this ball does: what an empty ball is told by.

        None for balls that need no spread of the model.
        """
        if self.divergence is None:
            return self.delta
        ball = self.ball()
        if isinstance(ball, GradientWasserstein) or not ball.needs_stochastic_nominal:
            return None
        return 0.5 * normal_shift(ball) ** 2


# --- Learner --------------------------------------------------------------------------------------------------------


class DRSAC(SAC):
    """SAC whose critics regress to r + gamma inf { E_p V'(s') : p in the ball around p0(. | s, a) }.

    With a nominal model the expectation under p0 is the mean over m of its draws, and the logged next observation only
    trains the model. V' is computed once a sample. Without one, the logged next observation is the only draw.
    """

    config: DRSACConfig
    model: NominalModel
    uses_model = True

    def __init__(self, config: DRSACConfig, problem: ProblemSpec, model: NominalModel | None = None) -> None:
        ball = config.ball()
        _require_nominal(config, ball, model)
        super().__init__(config, problem, model)
        self.divergence = ball if isinstance(ball, Divergence) else KL(0.0)
        self.moves: GradientWasserstein | None = None
        if isinstance(ball, GradientWasserstein):
            self.moves = GradientWasserstein(ball.radius, problem.scales.step_std.to(problem.device), ball.norm)
        self.buffers: Buffers = {}
        auto = fast_inference_dtype(problem.device)
        self.sampling_dtype = auto if config.sampling_precision == "auto" else getattr(torch, config.sampling_precision)
        self.learned: LearnedDual | None = None
        self.dual: MLP | None = None
        linear = config.next_states == "data"
        if config.dual == "exact" or self.moves is not None or not dual_kinds(self.divergence, linear):
            return
        if isinstance(self.divergence, KL) and not linear:  # DR-SAC's own network
            sizes = [problem.observation_dim + problem.action_dim, *config.hidden, 1]
            self.dual = MLP(sizes, problem.streams["init"]).to(problem.device)
            self.dual_optimiser = adamw([(self.dual.parameters(), config.dual_learning_rate)], config.weight_decay)
        else:
            self.learned = LearnedDual(
                self.divergence,
                linear=linear,
                inputs=problem.observation_dim + problem.action_dim,
                hidden=config.hidden,
                generator=problem.streams["init"],
                device=problem.device,
                learning_rate=config.dual_learning_rate,
                weight_decay=config.weight_decay,
                steps=config.dual_steps,
            )

    @classmethod
    def needs_model(cls, config: LearnerConfig) -> bool:
        """Whether this configuration samples next states."""
        return getattr(config, "next_states", "model") == "model"

    def warnings(self, dataset: TransitionDataset) -> list[str]:
        """See `Learner.warnings`: a fail state that is not the worst place, where only the linear form is known."""
        v_min = getattr(self.divergence, "v_min", None)
        if v_min is None or self.divergence.radius == 0.0 or self.config.next_states == "model":
            return []
        consequence = "there the ball holds nothing to fear"
        return floor_warning(self.config, dataset, self.config.discount, v_min, "learner.divergence.v_min", consequence)

    # --- Losses -----------------------------------------------------------------------------------------------------

    def dual_loss(self, pairs: Tensor, values: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """-mean f((s, a); G(s, a)), f the dual objective of the ball on the sampled values (frozen)."""
        dual = self.dual_variable(pairs)
        loss = -self.divergence.profile(values, dual).mean()
        return loss, {"dual/loss": loss.detach()}

    def dual_variable(self, pairs: Tensor) -> Tensor:
        """G(s, a) > 0, (B,), for pairs (B, O + A)."""
        if self.dual is None:
            raise TypeError("this ball's dual is not DR-SAC's network")
        log_dual: Tensor = self.dual(pairs).squeeze(-1)
        return log_dual.clamp(*LOG_DUAL_RANGE).exp()

    def next_value(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The worst expectation of V' over the ball, (B,)."""
        if self.config.next_states == "data":
            return self._value_from_data(batch)
        # 1. The model follows the data.
        info: dict[str, Tensor] = {}
        if self.config.train_model:
            with torch.enable_grad():
                info = self.model.update(batch, self.problem.streams["model"])
        if self.moves is not None:
            draws = (batch.observations, batch.actions, self.config.samples, self.problem.streams["model"])
            worst, moved = self._moved(self.moves, self.model.sample(*draws))
            return worst.mean(1), info | moved
        # 2. V' at m sampled next states for each pair, once.
        values = self.sampled_values(batch.observations, batch.actions)
        # 3. The worst case: exactly, or through the dual network.
        if self.config.dual == "exact" or (self.learned is None and self.dual is None):
            worst, dual = self.divergence.worst_case(values)
            if self.divergence.radius > 0.0 and self.divergence.profile_dual is not None:  # at 0 it may be infinite
                info |= _range_of(dual, self.divergence)
        else:
            worst, found = self._functional_worst_case(batch, values)
            info |= found
            exact = self.divergence.worst_case(values[:_PROBE])[0]
            info["dual/shortfall"] = (exact - worst[:_PROBE]).mean()
        info |= {
            "dual/gap": (values.mean(1) - worst).mean(),
            "dual/value_std": values.std(1, correction=0).mean(),
            "dual/saturated": (worst <= values.amin(1)).float().mean(),
        }
        if (v_min := getattr(self.divergence, "v_min", None)) is not None:
            info["dual/below_v_min"] = (values < v_min).float().mean()
        return worst, info

    def _value_from_data(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """From the logged next state alone: the form of the dual that is linear in the expectation."""
        # Rows that end have no next state, and may hold anything in its place.
        ended = self.ended(batch)
        counts = (~ended).float()
        states = torch.where(ended.unsqueeze(1), batch.observations, batch.next_observations)
        if self.moves is not None:
            worst, info = self._moved(self.moves, states)
            return worst, info
        values = self.target_value(states).squeeze(-1)
        info = {}
        if self.learned is None:
            worst = self.divergence.linear_dual(values)
        else:
            pairs = torch.cat([batch.observations, batch.actions], dim=1)
            info["dual/loss"] = self.learned.fit(pairs, values, counts)
            worst, found = self.learned.worst_case(pairs, values)
            info |= found
        rows = counts.sum().clamp_min(1.0)
        info["dual/gap"] = (counts * (values - worst)).sum() / rows
        if (v_min := getattr(self.divergence, "v_min", None)) is not None:
            info["dual/below_v_min"] = (counts * (values < v_min)).sum() / rows
        return worst, info

    def _moved(self, moves: GradientWasserstein, states: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The worst V' within a move of each state (..., O)."""
        worst, slope = moves.worst_case(lambda at: self.target_value(at).squeeze(-1), states)
        return worst, {"dual/gap": moves.radius * slope.mean(), "dual/slope": slope.mean()}

    @torch.no_grad()
    def sampled_values(self, observations: Tensor, actions: Tensor) -> Tensor:
        """(B, m) V' at draws of the nominal model, in pieces that stay in the processor's cache."""
        draw = self.model.sampler(self.sampling_dtype)
        first, tail = self.target_value.linears[0], InferenceTail(self.target_value, self.sampling_dtype, self.buffers)
        on_cpu = observations.device.type == "cpu"
        pieces = max(1, _ROWS_IN_CACHE // self.config.samples) if on_cpu else len(observations)
        values = []
        for o, a in zip(torch.split(observations, pieces), torch.split(actions, pieces), strict=True):
            states = draw(o, a, self.config.samples, self.problem.streams["model"]).flatten(0, 1)
            hidden = torch.addmm(first.bias, states, first.weight.t(), out=tail.workspace(len(states)))
            values.append(tail(hidden).view(len(o), self.config.samples))
        return torch.cat(values)

    def _functional_worst_case(self, batch: Batch, values: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """A few steps of the dual network, then the dual objective at what it puts out."""
        pairs = torch.cat([batch.observations, batch.actions], dim=1)
        if self.learned is not None:
            loss = self.learned.fit(pairs, values)
            worst, info = self.learned.worst_case(pairs, values)
            info["dual/at_bound"] = info["dual/saturated"]
            return worst, info | {"dual/loss": loss}
        with torch.enable_grad():
            for _ in range(self.config.dual_steps):
                loss, _ = self.dual_loss(pairs, values)
                self.dual_optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                self.dual_optimiser.step()
        beta = self.dual_variable(pairs)
        bounds = torch.tensor(LOG_DUAL_RANGE).exp().tolist()
        at_bound = ((beta <= bounds[0] * 1.001) | (beta >= bounds[1] * 0.999)).float().mean()
        differ = values.amax() - values.amin() > 1e-3 * values.abs().amax()
        info = _range_of(beta, self.divergence)
        info |= {"dual/at_bound": at_bound, "dual/collapsed": (differ & (at_bound > 0.5)).float()}
        return self.divergence.profile(values, beta), info

    # --- State ------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """See `Learner.state`."""
        state = super().state()
        if self.model is not None:
            state["model"] = self.model.state()
        if self.learned is not None:
            state |= self.learned.state()
        if self.dual is not None:
            state |= {"dual": self.dual.state_dict(), "dual_optimiser": self.dual_optimiser.state_dict()}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Learner.load_state`."""
        super().load_state(state)
        if self.model is not None:
            self.model.load_state(state["model"])
        if self.learned is not None:
            self.learned.load_state(state)
        if self.dual is not None:
            self.dual.load_state_dict(state["dual"])
            load_optimiser(self.dual_optimiser, state["dual_optimiser"])


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


def _range_of(dual: Tensor, ball: Divergence) -> dict[str, Tensor]:
    """Mean (KL's has a name), least and largest dual variable."""
    found = {"dual/min": dual.amin(), "dual/max": dual.amax()}
    return {"dual/beta": dual.mean()} | found if isinstance(ball, KL) else found
