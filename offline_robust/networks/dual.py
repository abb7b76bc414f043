"""Dual variables of a divergence as functions of (s, a), learned together with the values that they are duals of.

The worst expectation over a ball is a supremum over one or two dual variables for every pair (s, a). Exchanging
supremum and mean over the data (Rockafellar and Wets, theorem 14.60; DR-SAC and RFQI do the same), a network that
maximises the batch mean of the dual objective finds them all. Here it keeps its weights from update to update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from offline_robust.networks.mlp import MLP

DualKind = Literal["real", "positive"]

REAL_REACH = 20.0
"""A real dual lies within this many standard deviations of the mean value."""

LOG_REACH = 14.0
"""The log of a positive dual lies within this of the log of the values' standard deviation."""

LOG_DUAL_RANGE = (-14.0, 14.0)
"""Bounds of `LogDualNetwork`: beyond them exp underflows the tilted law or overflows the penalty in float32."""

_AT_BOUND = 0.98
_STD_FLOOR = 1e-6


class DualNetwork(nn.Module):
    """One or several dual variables of (s, a), in units of the values they belong to.

    The network's output h is smoothly bounded by a tanh, whose gradient never vanishes at once as a clamp's does. With
    the running mean m and standard deviation s of the values, a real dual is m + s h and a positive one s exp(h): when
    values grow tenfold, so do the duals, before the network has learned anything. Maximise a dual objective by
    descending `loss`, which is in units of s too, so that one learning rate fits all reward scales.

    Args:
        kinds: "real" (eta of total variation, CVaR, Cressie-Read) or "positive" (beta of KL, a scale), one each.
        inputs: O + A for continuous actions, O for discrete ones.
        hidden: hidden widths.
        generator: draws the weights.
        actions: 0 for continuous actions, else their number: one output for each.
        start: where h starts, one number for each dual, the same for all (s, a). For Gaussian values eta of total
            variation starts well at the normal quantile of 1 - rho, beta of KL at -log sqrt(2 delta).
        rate: weight of a batch in the running mean and standard deviation, after the first 1 / rate batches.
    """

    mean: Tensor
    std: Tensor
    seen: Tensor

    def __init__(
        self,
        kinds: Sequence[DualKind],
        inputs: int,
        hidden: Sequence[int],
        generator: torch.Generator,
        *,
        actions: int = 0,
        start: Sequence[float] | None = None,
        rate: float = 0.02,
    ) -> None:
        super().__init__()
        if len(kinds) == 0 or (start is not None and len(start) != len(kinds)):
            raise ValueError(f"{len(kinds)} dual variables need as many starts, got {start}")
        self.kinds, self.actions, self.rate = tuple(kinds), actions, rate
        self.network = MLP([inputs, *hidden, max(1, actions) * len(kinds)], generator)
        last = self.network.linears[-1]
        with torch.no_grad():
            last.weight.mul_(1e-2)
            last.bias.copy_(torch.tensor(start or [0.0] * len(kinds)).repeat(max(1, actions)))
        for name, value in (("mean", 0.0), ("std", 1.0), ("seen", 0.0)):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, inputs: Tensor, actions: Tensor | None = None) -> tuple[Tensor, ...]:
        """The duals, (B,) each.

        Args:
            inputs: (B, O + A), or (B, O) for discrete actions.
            actions: (B,) int64, for discrete actions only.

        Raises:
            ValueError: the shapes are others.
        """
        if inputs.ndim != 2 or (actions is None) != (self.actions == 0):
            raise ValueError(f"duals take (B, inputs), and actions (B,) where they are discrete, got {inputs.shape}")
        h: Tensor = self.network(inputs).view(len(inputs), -1, len(self.kinds))
        if actions is None:
            h = h.squeeze(1)
        else:
            require_rows(inputs=inputs[:, 0], actions=actions)
            h = h.gather(1, actions.view(-1, 1, 1).expand(-1, 1, h.shape[2])).squeeze(1)
        return tuple(self._scaled(h[:, place], kind) for place, kind in enumerate(self.kinds))

    def loss(self, objective: Tensor, weights: Tensor | None = None) -> Tensor:
        """- the mean dual objective, in units of the values' standard deviation.

        Args:
            objective: (B,) dual objective at `forward`'s duals.
            weights: (B,) weights >= 0; None weighs all rows alike.
        """
        if weights is None:
            return -objective.mean() / self.std
        require_rows(objective=objective, weights=weights)
        return -(objective * weights).sum() / weights.sum().clamp_min(1.0) / self.std

    @torch.no_grad()
    def observe(self, values: Tensor, weights: Tensor | None = None, spread: Tensor | None = None) -> None:
        """Moves the running mean and standard deviation towards those of a batch; the first batch sets them.

        Args:
            values: (B,) values, or (B, m) of several draws for each pair.
            weights: (B,) weights >= 0 of the rows.
            spread: () the standard deviation that counts, where it is not that of the rows' means.
        """
        rows = values.mean(1) if values.ndim == 2 else values
        w = torch.ones_like(rows) if weights is None else weights
        require_rows(values=rows, weights=w)
        total = w.sum().clamp_min(1.0)
        mean = (w * rows).sum() / total
        std = ((w * (rows - mean).square()).sum() / total).sqrt() if spread is None else spread
        std = torch.maximum(std, _STD_FLOOR * (1.0 + mean.abs()))
        weight = torch.clamp(1.0 / (self.seen + 1.0), min=self.rate) * (w.sum() > 0.0)
        self.mean.lerp_(mean, weight)
        self.std.lerp_(std, weight)
        self.seen += w.sum() > 0.0

    @torch.no_grad()
    def info(self, duals: Sequence[Tensor], values: Tensor, low: float | None = None) -> dict[str, Tensor]:
        """What to watch, 0-d tensors.

        Args:
            duals: of `forward`.
            values: (B,) or (B, m) that they belong to.
            low: a bound below which the first dual is of no use (the fail state's value).

        Returns:
            ``dual/min`` and ``dual/max`` of the first dual, ``dual/saturated``, the share of pairs that have any dual
            at a bound, and ``dual/collapsed``: 1 when that is most pairs although the values differ. Then the target
            no longer follows the ball: lower the learning rates or raise the number of dual steps.
        """
        at_bound = torch.zeros_like(duals[0], dtype=torch.bool)
        for kind, dual in zip(self.kinds, duals, strict=True):
            if kind == "real":
                at_bound |= (dual - self.mean).abs() > _AT_BOUND * REAL_REACH * self.std
            else:
                at_bound |= (dual / self.std).log().abs() > _AT_BOUND * LOG_REACH
        if low is not None:
            at_bound |= duals[0] <= low + 1e-3 * self.std
        spread = values.amax() - values.amin()
        saturated = at_bound.float().mean()
        differ = spread > 1e-3 * values.abs().amax()
        return {
            "dual/min": duals[0].amin(),
            "dual/max": duals[0].amax(),
            "dual/saturated": saturated,
            "dual/collapsed": (differ & (saturated > 0.5)).float(),
        }

    def _scaled(self, h: Tensor, kind: DualKind) -> Tensor:
        if kind == "real":
            return torch.addcmul(self.mean, self.std, REAL_REACH * torch.tanh(h / REAL_REACH))
        return self.std * torch.exp(LOG_REACH * torch.tanh(h / LOG_REACH))


class LogDualNetwork(MLP):
    """DR-SAC's own network G(s, a) > 0 for the dual variable of KL: the log of it, in plain units, clamped.

    Args:
        inputs: O + A.
        hidden: hidden widths.
        generator: draws the weights.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], generator: torch.Generator) -> None:
        super().__init__([inputs, *hidden, 1], generator)

    def forward(self, inputs: Tensor, actions: Tensor | None = None) -> tuple[Tensor, ...]:  # type: ignore[override]
        """See `DualNetwork.forward`; continuous actions only."""
        log_dual: Tensor = super().forward(inputs)
        return (log_dual.squeeze(-1).clamp(*LOG_DUAL_RANGE).exp(),)

    def loss(self, objective: Tensor, weights: Tensor | None = None) -> Tensor:
        """- the mean dual objective (B,), each row weighing the same or as `weights` (B,) say."""
        return -objective.mean() if weights is None else -(objective * weights).sum() / weights.sum().clamp_min(1.0)

    def observe(self, values: Tensor, weights: Tensor | None = None, spread: Tensor | None = None) -> None:
        """Nothing: its units are its own."""

    @torch.no_grad()
    def info(self, duals: Sequence[Tensor], values: Tensor, low: float | None = None) -> dict[str, Tensor]:
        """See `DualNetwork.info`; ``dual/beta`` is the mean."""
        (beta,) = duals
        bounds = torch.tensor(LOG_DUAL_RANGE).exp().tolist()
        saturated = ((beta <= bounds[0] * 1.001) | (beta >= bounds[1] * 0.999)).float().mean()
        differ = values.amax() - values.amin() > 1e-3 * values.abs().amax()
        return {
            "dual/beta": beta.mean(),
            "dual/min": beta.amin(),
            "dual/max": beta.amax(),
            "dual/saturated": saturated,
            "dual/collapsed": (differ & (saturated > 0.5)).float(),
        }


def require_rows(**tensors: Tensor) -> None:
    """Refuses tensors that are not all of one shape (B,): (B,) against (B, 1) would broadcast to (B, B) unnoticed.

    Raises:
        ValueError: names the shapes.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 1 for shape in shapes.values()):
        shown = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"all must have one shape (B,), got {shown}")
