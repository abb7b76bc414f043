"""The one interface of every ambiguity set: worst cases, dual forms, and what each of them needs."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Divergence(ABC):
    """A ball of laws Q around a nominal law P, and the worst expectation inf_{Q in ball} E_Q[V].

    All methods are batched over leading axes; the support lies along the last one. Laws are discrete: `weights`
    gives P's probabilities (they sum to one along the last axis), uniform when None.
    """

    needs_stochastic_nominal: bool
    """True when the ball holds only laws absolutely continuous to P: around a deterministic P it holds P alone."""

    radius: float
    """The ball's radius; 0 is the nominal law alone."""

    @abstractmethod
    def worst_case(self, values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The exact worst expectation.

        Args:
            values: (..., m) float32 or float64.
            weights: (..., m) or (m,) probabilities; uniform when None.

        Returns:
            The value (...), differentiable through `values` (envelope theorem: the gradient is the worst-case law),
            and the optimal dual variable (...), detached.
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
        """

    @abstractmethod
    def saturation_radius(self, p_min: float) -> float:
        """The radius from which the worst expectation is the minimum, when P(V = min) is `p_min`."""
