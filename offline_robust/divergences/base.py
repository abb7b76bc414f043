"""The one interface of every ambiguity set: worst cases, dual forms, and what each of them needs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

DualKind = Literal["real", "positive"]
"""How the best dual variable moves with the values. When they go from X to c X + b (c > 0), a real one goes to
c dual + b, and a positive one, which is a scale, to c dual."""

Bounds = tuple[tuple[float, float], ...]
"""(least, largest) of each dual variable."""

SMALLEST_SCALE = 1e-6
"""In units of the range of the values: where the best scale is zero (saturation), the one that stands for it. Ours."""

LARGEST_SCALE = 1e4
"""In the same units: where the best scale is infinite (radius 0). The form falls short by range / 20,000. Ours."""


class Divergence(ABC):
    """A ball of laws Q around a nominal law P, and the worst expectation inf_{Q in ball} E_Q[V].

    All methods are batched over leading axes; the support lies along the last one. Laws are discrete: `weights`
    gives P's probabilities (they sum to one along the last axis), uniform when None. A weight of zero means that the
    nominal law never goes there; only `Wasserstein1` may send mass to such a point.
    """

    needs_stochastic_nominal: bool
    """True when the ball holds only laws absolutely continuous to P: around a deterministic P it holds P alone."""

    radius: float
    """The ball's radius; 0 is the nominal law alone."""

    profile_dual: DualKind | None
    """Kind of the dual variable of `profile`; None when that objective has none."""

    v_min: float | None = None
    """Value of the fail state that the ball may send mass to; None where there is none."""

    linear_duals: tuple[DualKind, ...] | None
    """Kinds of the dual variables of `linear_dual`, in order (empty: it has none); None when there is no such form."""

    @abstractmethod
    def worst_case(self, values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The exact worst expectation.

        Args:
            values: (..., m) float32 or float64.
            weights: (..., m) or (m,) probabilities; uniform when None.

        Returns:
            The value (...), differentiable through `values` (envelope theorem: the gradient is the worst-case law),
            and the optimal dual variable of `profile` (...), detached.
        """

    @abstractmethod
    def worst_case_weights(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        """(..., m) the probabilities of the law that attains the worst expectation."""

    @abstractmethod
    def profile(self, samples: Tensor, dual: Tensor, weights: Tensor | None = None) -> Tensor:
        """The dual objective at a given dual variable, from several samples of P.

        Args:
            samples: (..., m) values.
            dual: (...) dual variable in its admissible range.

        Returns:
            (...): never above the worst expectation (weak duality), equal to it at the optimal dual.
        """

    @abstractmethod
    def linear_dual(self, x: Tensor, *duals: Tensor) -> Tensor:
        """The form of the dual objective that is linear in the expectation.

        Its mean over single draws x ~ P, maximised over `duals`, is the worst expectation: it can be learned from
        one next state for each pair. All arguments broadcast together.

        Raises:
            ValueError: this ball has no such form (`linear_duals` is None).
        """

    @abstractmethod
    def linear_optimum(self, values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, ...]:
        """The best duals (...) of `linear_dual` for a known law, one tensor for each of `linear_duals`."""

    @abstractmethod
    def linear_bounds(self, low: float, high: float) -> Bounds:
        """Where the best duals of `linear_dual` lie when the values are in [low, high]."""

    @abstractmethod
    def saturation_radius(self, p_min: float) -> float:
        """The radius from which the worst expectation is the minimum, when P(V = min) is `p_min`."""


def nominal_law(values: Tensor, weights: Tensor | None) -> Tensor:
    """P's probabilities (..., m) in the type of `values`.

    Raises:
        TypeError: the values are neither float32 nor float64.
        ValueError: there are no values along the last axis, or as many weights as values are not there.
    """
    if values.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"worst cases are computed in float32 or float64, not {values.dtype}")
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(f"values need a last axis with at least one point, got shape {tuple(values.shape)}")
    if weights is None:
        return torch.full_like(values, 1.0 / values.shape[-1])
    if weights.ndim == 0 or weights.shape[-1] != values.shape[-1]:
        raise ValueError(f"weights of shape {tuple(weights.shape)} for values of shape {tuple(values.shape)}")
    return weights.to(values.dtype).expand_as(values)


def on_support(values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """The values, and P's probabilities, both (..., m); points without weight take the lowest value that has some.

    So they count nowhere, whatever they hold. Raises as `nominal_law` does.
    """
    law = nominal_law(values, weights)
    if weights is None:
        return values, law
    return torch.where(law > 0.0, values, support_minimum(values, law)), law


def support_minimum(values: Tensor, law: Tensor) -> Tensor:
    """(..., 1) the lowest value that has weight."""
    return values.masked_fill(law <= 0.0, math.inf).amin(-1, keepdim=True)


def value_range(values: Tensor) -> Tensor:
    """(..., 1) largest less lowest value; 1 where they are all equal."""
    spread = values.amax(-1, keepdim=True) - values.amin(-1, keepdim=True)
    return torch.where(spread > 0.0, spread, 1.0)


def on_minimum(values: Tensor, law: Tensor, lowest: Tensor) -> Tensor:
    """(..., m) the nominal law given that the value is the lowest."""
    at_minimum = law * (values == lowest)
    return at_minimum / at_minimum.sum(-1, keepdim=True)


def expectation(values: Tensor, law: Tensor, lowest: Tensor) -> Tensor:
    """(...) mean of `values` under a constant `law`, relative to a constant near them, (..., 1).

    Small differences of large values would drown in rounding otherwise.
    """
    return lowest.squeeze(-1) + (law * (values - lowest)).sum(-1)


def checked(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> float:
    """`value` as a float, if it is in [low, high] (or above `low`).

    Raises:
        ValueError: it is not.
    """
    inside = math.isfinite(value) and (value > low if open_low else value >= low) and value <= high
    if not inside:
        upper = "" if high == math.inf else f" and at most {high:g}"
        lower = f"greater than {low:g}" if open_low else "not negative" if low == 0.0 else f"at least {low:g}"
        raise ValueError(f"{name} must be finite, {lower}{upper}, got {value}")
    return float(value)
