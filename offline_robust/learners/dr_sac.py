"""Distributionally robust soft actor-critic: SAC against the worst transition law in a KL ball around a model.

Source: DR-SAC (arXiv 2506.12622), equations of the robust soft Bellman operator and its functional dual; order and
constants of its released code (branch `submission`). Where the release departs from the mathematics we follow the
mathematics: docs/algorithms/dr_sac.md lists each case.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from offline_robust.datasets.transitions import Batch
from offline_robust.divergences import KL
from offline_robust.errors import ConfigError
from offline_robust.learners.base import ProblemSpec
from offline_robust.learners.sac import SAC, SACConfig
from offline_robust.models.base import NominalModel
from offline_robust.networks import MLP, Buffers, InferenceTail, adamw, fast_inference_dtype, load_optimiser

LOG_DUAL_RANGE = (-14.0, 14.0)
"""Bounds of log G(s, a): beyond them exp underflows the tilted law or overflows the penalty in float32."""

_ROWS_IN_CACHE = 3_200
"""Samples that go through decoder and V' together: 3,200 rows of 256 fit the second-level cache."""

# --- Config ---------------------------------------------------------------------------------------------------------


class DRSACConfig(SACConfig):
    """SAC plus the radius of the ball and how its dual is solved."""

    name: Literal["dr_sac"] = "dr_sac"  # type: ignore[assignment]
    delta: float = Field(0.5, ge=0, le=100, description="KL radius, nats. DR-SAC: 0.1 to 1; 0 is the model's mean.")
    samples: int = Field(200, ge=1, le=10_000, description="m, model draws for each pair. DR-SAC: 200.")
    dual: Literal["exact", "functional"] = Field(
        "exact", description="exact: solved for each pair; functional: DR-SAC's network G(s, a), a lower bound."
    )
    dual_learning_rate: float = Field(5e-4, gt=0, le=1, description="AdamW step of G. DR-SAC: 5e-4 or 5e-5.")
    dual_steps: int = Field(5, ge=1, le=1000, description="Steps of G for each update. DR-SAC: 5.")
    train_model: bool = Field(True, description="Go on training the model, one step an update. DR-SAC: on.")
    sampling_precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Products of the sampling path, which carries no gradient; auto: bfloat16 where it is faster.",
    )


# --- Learner --------------------------------------------------------------------------------------------------------


class DRSAC(SAC):
    """SAC whose critics regress to r + gamma inf { E_p V'(s') : KL(p || p0(. | s, a)) <= delta }.

    The expectation under p0 is the mean over m draws of the nominal model; the logged next observation only trains
    the model. V' is computed once a sample.
    """

    config: DRSACConfig
    model: NominalModel
    uses_model = True

    def __init__(self, config: DRSACConfig, problem: ProblemSpec, model: NominalModel | None = None) -> None:
        if model is None:
            raise ConfigError("dr_sac samples next states: give the run a nominal model (model: {name: vae})")
        super().__init__(config, problem, model)
        self.divergence = KL(config.delta)
        self.buffers: Buffers = {}
        auto = fast_inference_dtype(problem.device)
        self.sampling_dtype = auto if config.sampling_precision == "auto" else getattr(torch, config.sampling_precision)
        if config.dual == "functional":
            if config.delta == 0.0:
                raise ConfigError("dual: functional has no optimum at delta 0 (beta is infinite); use dual: exact")
            sizes = [problem.observation_dim + problem.action_dim, *config.hidden, 1]
            self.dual = MLP(sizes, problem.streams["init"]).to(problem.device)
            self.dual_optimiser = adamw([(self.dual.parameters(), config.dual_learning_rate)], config.weight_decay)

    # --- Losses -----------------------------------------------------------------------------------------------------

    def dual_loss(self, pairs: Tensor, values: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """-mean f((s, a); G(s, a)), f the dual objective of the ball on the sampled values (frozen)."""
        dual = self.dual_variable(pairs)
        loss = -self.divergence.profile(values, dual).mean()
        return loss, {"dual/loss": loss.detach()}

    def dual_variable(self, pairs: Tensor) -> Tensor:
        """G(s, a) > 0, (B,), for pairs (B, O + A)."""
        log_dual: Tensor = self.dual(pairs).squeeze(-1)
        return log_dual.clamp(*LOG_DUAL_RANGE).exp()

    def next_value(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The worst expectation of V' over the ball around the model, (B,)."""
        # 1. The model follows the data.
        info: dict[str, Tensor] = {}
        if self.config.train_model:
            with torch.enable_grad():
                info = self.model.update(batch, self.problem.streams["model"])
        # 2. V' at m sampled next states for each pair, once.
        values = self.sampled_values(batch.observations, batch.actions)
        # 3. The worst case: exactly, or through the dual network.
        if self.config.dual == "exact":
            worst, beta = self.divergence.worst_case(values)
        else:
            worst, beta = self._functional_worst_case(batch, values)
        mean = values.mean(1)
        if self.config.delta > 0.0:  # at radius 0 beta is infinite
            info["dual/beta"] = beta.mean()
        info |= {
            "dual/gap": (mean - worst).mean(),
            "dual/value_std": values.std(1, correction=0).mean(),
            "dual/saturated": (worst <= values.amin(1)).float().mean(),
        }
        return worst, info

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

    def _functional_worst_case(self, batch: Batch, values: Tensor) -> tuple[Tensor, Tensor]:
        """A few steps of G, then the dual objective at G(s, a)."""
        pairs = torch.cat([batch.observations, batch.actions], dim=1)
        with torch.enable_grad():
            for _ in range(self.config.dual_steps):
                loss, _ = self.dual_loss(pairs, values)
                self.dual_optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                self.dual_optimiser.step()
        beta = self.dual_variable(pairs)
        return self.divergence.profile(values, beta), beta

    # --- State ------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """See `Learner.state`."""
        state = super().state() | {"model": self.model.state()}
        if self.config.dual == "functional":
            state |= {"dual": self.dual.state_dict(), "dual_optimiser": self.dual_optimiser.state_dict()}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Learner.load_state`."""
        super().load_state(state)
        self.model.load_state(state["model"])
        if self.config.dual == "functional":
            self.dual.load_state_dict(state["dual"])
            load_optimiser(self.dual_optimiser, state["dual_optimiser"])
