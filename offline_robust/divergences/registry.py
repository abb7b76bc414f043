"""Ambiguity sets by name, for configurations: ``{name: chi2, radius: 0.5}``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from offline_robust.divergences.base import Divergence
from offline_robust.divergences.cressie_read import ChiSquare, CressieRead
from offline_robust.divergences.kl import KL
from offline_robust.divergences.quantile import Contamination, CVaR, TotalVariation
from offline_robust.divergences.wasserstein import GradientWasserstein, Wasserstein1
from offline_robust.errors import ConfigError, nearest
from offline_robust.registry import Registry
from offline_robust.settings import Settings, validated

Radius = Annotated[float, Field(ge=0, le=1e6)]
Share = Annotated[float, Field(ge=0, le=1)]


class DivergenceConfig(Settings):
    """An ambiguity set as data; one subclass for each name."""

    name: str

    @abstractmethod
    def build(self) -> Divergence | GradientWasserstein:
        """The ambiguity set."""

    @property
    def label(self) -> str:
        """Name and parameters in words, as reports show them: ``tv radius=0.3 v_min=0``."""
        shown = {key: value for key, value in self if key not in ("name", "costs") and value is not None}
        return " ".join([self.name, *(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in shown.items())])


class KLConfig(DivergenceConfig):
    """See `KL`."""

    name: Literal["kl"] = "kl"
    radius: Radius = Field(description="delta, nats. DR-SAC: 0.1 to 1.")

    def build(self) -> KL:
        """See `DivergenceConfig.build`."""
        return KL(self.radius)


class CressieReadConfig(DivergenceConfig):
    """See `CressieRead`."""

    name: Literal["cressie_read"] = "cressie_read"
    k: float = Field(2.0, gt=1, le=100, description="Order. DRQ: 2.")
    radius: Radius = Field(description="rho, in the normalisation of f_k. DRQ: 0.5 to 1.5.")

    def build(self) -> CressieRead:
        """See `DivergenceConfig.build`."""
        return CressieRead(self.k, self.radius)


class ChiSquareConfig(DivergenceConfig):
    """See `ChiSquare`."""

    name: Literal["chi2"] = "chi2"
    radius: Radius = Field(description="Bound of E_P[(dQ/dP - 1)^2]: twice the rho of Cressie-Read with k = 2.")

    def build(self) -> ChiSquare:
        """See `DivergenceConfig.build`."""
        return ChiSquare(self.radius)


class TotalVariationConfig(DivergenceConfig):
    """See `TotalVariation`."""

    name: Literal["tv"] = "tv"
    radius: Share = Field(description="rho, share of mass that may move. RFQI: 0.3 to 0.5.")
    v_min: float | None = Field(None, description="Value of the fail state, no value is below; None: the support's.")

    def build(self) -> TotalVariation:
        """See `DivergenceConfig.build`."""
        return TotalVariation(self.radius, self.v_min)


class CVaRConfig(DivergenceConfig):
    """See `CVaR`."""

    name: Literal["cvar"] = "cvar"
    alpha: float = Field(gt=0, le=1, description="Level: the mean of the worst share alpha. 1 is the plain mean.")

    def build(self) -> CVaR:
        """See `DivergenceConfig.build`."""
        return CVaR(self.alpha)


class ContaminationConfig(DivergenceConfig):
    """See `Contamination`."""

    name: Literal["contamination"] = "contamination"
    radius: Share = Field(description="R, share of the law that may be anything. Wang and Zou (2021).")
    v_min: float | None = Field(None, description="Value of the fail state, no value is below; None: the support's.")

    def build(self) -> Contamination:
        """See `DivergenceConfig.build`."""
        return Contamination(self.radius, self.v_min)


class Wasserstein1Config(DivergenceConfig):
    """See `Wasserstein1`."""

    name: Literal["wasserstein1"] = "wasserstein1"
    radius: Radius = Field(description="rho, in units of the costs.")
    costs: tuple[tuple[float, ...], ...] = Field(
        min_length=1, max_length=1000, description="Square matrix: what moving one unit of mass from i to j costs."
    )

    def build(self) -> Wasserstein1:
        """See `DivergenceConfig.build`."""
        if any(len(row) != len(self.costs) for row in self.costs):
            raise ConfigError(f"wasserstein1: costs must be a square matrix of {len(self.costs)} rows")
        return Wasserstein1(self.radius, torch.tensor(self.costs, dtype=torch.float64))


class GradientWassersteinConfig(DivergenceConfig):
    """See `GradientWasserstein`."""

    name: Literal["wasserstein_gradient"] = "wasserstein_gradient"
    radius: Radius = Field(description="Largest move of a next state, in one-step stds. Ours.")
    norm: Literal["l2", "linf"] = Field("l2", description="How the dimensions' moves add up.")

    def build(self) -> GradientWasserstein:
        """See `DivergenceConfig.build`; in plain units of the state."""
        return GradientWasserstein(self.radius, norm=self.norm)


DIVERGENCES: Registry[DivergenceConfig] = Registry(
    "offline_robust.divergences",
    DivergenceConfig,  # type: ignore[type-abstract]
    {
        "kl": KLConfig,
        "cressie_read": CressieReadConfig,
        "chi2": ChiSquareConfig,
        "tv": TotalVariationConfig,
        "cvar": CVaRConfig,
        "contamination": ContaminationConfig,
        "wasserstein1": Wasserstein1Config,
        "wasserstein_gradient": GradientWassersteinConfig,
    },
)
"""Name of an ambiguity set to the class of its configuration."""


def parse(values: Any) -> DivergenceConfig:
    """A configuration from plain values.

    Args:
        values: a mapping with a ``name`` of `DIVERGENCES` and that set's parameters; or a `DivergenceConfig`.

    Raises:
        ConfigError: one line that names what is wrong and the nearest known names.
    """
    if isinstance(values, DivergenceConfig):
        return values
    if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
        raise ConfigError(f"a divergence is a mapping with a name (known: {', '.join(DIVERGENCES)})")
    name = values["name"]
    if name not in DIVERGENCES:
        raise ConfigError(f"unknown divergence '{name[:80]}'{nearest(name, DIVERGENCES)}")
    return validated(DIVERGENCES[name], dict(values), name, key="parameter")


def make(name: str, **parameters: Any) -> Divergence | GradientWasserstein:
    """An ambiguity set by its name: ``make("tv", radius=0.3, v_min=0.0)``.

    Raises:
        ConfigError: an unknown name or parameter, or a value out of range; the message has the nearest names.
    """
    return parse({**parameters, "name": name}).build()
