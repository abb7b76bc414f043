"""What a nominal model is worth: error, calibration and, above all, the spread of its samples."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from offline_robust.datasets.transitions import TransitionDataset
from offline_robust.models.base import NominalModel, Scales, minibatches

EMPTY_SHIFT = 0.05
"""Below this worst-case shift, in one-step stds, a ball is empty in effect. Ours: on Pendulum a robustness that exact
dynamic programming can see begins at about twice that (docs/findings/pendulum.md)."""

_LEVELS = (0.5, 0.8, 0.9)


@dataclass(frozen=True)
class Diagnosis:
    """Figures of a model on rows of a dataset; lists have one entry a dimension."""

    rows: int
    """Rows used."""
    held_out: bool
    """Whether the model has not seen them."""
    rmse: list[float]
    """Root mean squared error of the samples' mean, in observation units."""
    step_std: list[float]
    """Standard deviation of the one-step change, in observation units."""
    relative_error: list[float]
    """rmse in one-step stds: 1 is as good as predicting the average change."""
    spread: list[float]
    """Mean standard deviation of the samples of one pair, in one-step stds."""
    levels: list[float]
    """Nominal coverage of central intervals of the samples."""
    coverage: list[float]
    """Observed share of true next observations inside them, over all dimensions."""

    def shift(self, radius: float) -> float:
        """How far a KL ball of `radius` moves the next state at most, in one-step stds.

        With a value linear in the state the worst law of the ball around a Gaussian moves it by spread *
        sqrt(2 delta) (closed form; dr_sac_rfqi 5.1).
        """
        return max(self.spread) * math.sqrt(2.0 * radius)

    def warnings(self, radius: float | None) -> list[str]:
        """What a user must know before trusting a ball of `radius` around this model."""
        found = []
        if radius and self.shift(radius) < EMPTY_SHIFT:
            found.append(
                f"the ball of radius {radius:g} is empty in effect: the model's samples spread by at most "
                f"{max(self.spread):.3g} one-step stds, so the worst case shifts the next state by "
                f"{self.shift(radius):.3g}; the policy will be robust in name only. Widen the model with "
                "model.action_smoothing or model.smoothing (0.3 is a start), or model.decoder_noise: learned"
            )
        worst = max(self.relative_error)
        if worst > 0.5:
            found.append(
                f"the model predicts badly: its error is {worst:.2g} one-step stds in dimension "
                f"{self.relative_error.index(worst)}; train it longer (training.model_steps) or faster "
                "(model.learning_rate)"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@torch.no_grad()
def diagnose(
    model: NominalModel,
    dataset: TransitionDataset,
    generator: torch.Generator,
    *,
    scales: Scales | None = None,
    held_out: bool = False,
    rows: int = 2_000,
    samples: int = 200,
) -> Diagnosis:
    """Measures a model on evenly spaced rows that have a true next observation.

    Args:
        model: the model.
        dataset: rows to test on.
        generator: stream of the samples.
        scales: the units; those of `dataset` when None.
        held_out: whether the model has not seen `dataset` (only recorded).
        rows: at most this many rows.
        samples: draws for each pair.
    """
    scales = scales or Scales.of(dataset)
    valid = dataset.next_valid.nonzero().squeeze(1)
    index = valid[torch.linspace(0, len(valid) - 1, min(rows, len(valid)), device=valid.device).long()]
    draw = model.sampler()
    squared, spread, inside = [], [], []
    for batch in minibatches(dataset, index, 64):
        drawn = draw(batch.observations, batch.actions, samples, generator)
        squared.append((drawn.mean(1) - batch.next_observations).square())
        spread.append(drawn.std(1))
        rank = (drawn < batch.next_observations.unsqueeze(1)).float().mean(1)
        inside.append(torch.stack([(rank - 0.5).abs() <= level / 2 for level in _LEVELS]).float().mean(2))
    # Dimensions that never change (targets, padding) have no one-step std to be measured in: they count as zero.
    moving = scales.step_std > 1e-6 * scales.std
    step = torch.where(moving, scales.step_std, math.inf)
    rmse = torch.cat(squared).mean(0).sqrt()
    return Diagnosis(
        rows=len(index),
        held_out=held_out,
        rmse=_floats(rmse),
        step_std=_floats(scales.step_std),
        relative_error=_floats(rmse / step),
        spread=_floats(torch.cat(spread).mean(0) / step),
        levels=list(_LEVELS),
        coverage=_floats(torch.cat(inside, dim=1).mean(1)),
    )


def _floats(values: Tensor) -> list[float]:
    return [float(f"{v:.6g}") for v in values.tolist()]
