"""Minibatches by indexing, with the two columns that some algorithms of d3rlpy need beside ours."""

from __future__ import annotations

import torch
from torch import Tensor

from offline_robust.baselines.segments import segment_ends
from offline_robust.datasets.transitions import Batch, TransitionDataset
from offline_robust.errors import ConfigError


class PairedBatch(Batch):
    """A minibatch with what followed in the log."""

    next_actions: Tensor
    """Of the type of `actions`: the action logged next; zeros at a true end and where none was logged."""
    returns_to_go: Tensor
    """(B,) float32: the discounted sum of the scaled rewards logged from the row on."""


class Sampler:
    """Draws what `TransitionDataset.sample` draws, from the same stream.

    Args:
        dataset: the rows.
        next_actions: whether a row needs a next action (ReBRAC); rows that are cut off then are never drawn.
        returns_to_go: (N,), or None where the algorithm does not look at them.

    Raises:
        ConfigError: no row has what is needed.
    """

    def __init__(self, dataset: TransitionDataset, next_actions: bool, returns_to_go: Tensor | None) -> None:
        self._dataset = dataset
        ends = segment_ends(dataset)
        self._next_actions = dataset.actions.roll(-1, 0)
        self._next_actions[ends] = 0
        self._returns = torch.zeros(len(dataset), device=dataset.device) if returns_to_go is None else returns_to_go
        self.usable_rows = dataset.usable_rows
        if next_actions:
            whole = ~ends | dataset.terminated
            self.usable_rows = None if bool(whole.all()) else whole.nonzero().squeeze(1)
            if self.usable_rows is not None and not len(self.usable_rows):
                raise ConfigError("no row has a next action or a true end: this algorithm has nothing to learn from")

    def sample(self, batch_size: int, generator: torch.Generator) -> PairedBatch:
        """Rows drawn uniformly with replacement."""
        count = len(self._dataset) if self.usable_rows is None else len(self.usable_rows)
        index = torch.randint(count, (batch_size,), generator=generator, device=self._dataset.device)
        return self.rows(index if self.usable_rows is None else self.usable_rows[index])

    def rows(self, index: Tensor) -> PairedBatch:
        """The rows of an int64 index."""
        batch = PairedBatch(*self._dataset.rows(index))
        batch.next_actions = self._next_actions.index_select(0, index)
        batch.returns_to_go = self._returns.index_select(0, index)
        return batch


def returns_to_go(rewards: Tensor, ends: Tensor, discount: float) -> Tensor:
    """(N,) G_t = r_t + discount * G_{t+1} within every segment, by doubling: log2 of the longest one passes.

    Args:
        rewards: (N,).
        ends: (N,) bool, the last rows of segments.
        discount: gamma.
    """
    total = rewards.double()
    segment = torch.cat([ends.new_zeros(1), ends[:-1]]).cumsum(0)
    longest = int(torch.bincount(segment).max())
    step = 1
    while step < longest:
        # G over `step` rows becomes G over twice as many.
        same = segment[step:] == segment[:-step]
        total = torch.cat([total[:-step] + discount**step * total[step:] * same, total[-step:]])
        step *= 2
    return total.float()
