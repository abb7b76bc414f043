"""Where minibatches come from. The training loop knows no other source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from offline_robust.datasets.transitions import NO_EXTRAS, Batch, TransitionDataset
from offline_robust.errors import ConfigError, DatasetError


class Feed(ABC):
    """A source of minibatches, and its state."""

    @property
    def columns(self) -> frozenset[str]:
        """Names of the further columns that its batches carry."""
        return frozenset()

    def advance(self) -> Mapping[str, Tensor]:
        """What happens before each update: nothing with logged rows, some steps in an environment elsewhere.

        Returns:
            0-d tensors to be logged.
        """
        return NO_EXTRAS

    @abstractmethod
    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """A minibatch of `size` rows, with every column of `columns` in its extras."""

    def add_column(self, name: str, values: Tensor, usable: Tensor | None = None) -> None:
        """A further column of every row.

        Args:
            name: of `Batch.extras`.
            values: (N, ...).
            usable: (N,) bool, rows that may be drawn; None leaves them as they are.

        Raises:
            ConfigError: rows are not all known beforehand, or none is left to draw from.
        """
        raise ConfigError(f"the column {name} is computed from all rows beforehand, which this feed does not have")

    def state(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - a feed without a state has nothing to do
        """Restores what `state` gave."""


class LoggedFeed(Feed):
    """The rows of a dataset, drawn uniformly with replacement.

    Args:
        dataset: the rows; its extras are columns too.

    Raises:
        DatasetError: no row has a one-step target.
    """

    def __init__(self, dataset: TransitionDataset) -> None:
        self.dataset = dataset
        self.usable = dataset.usable_rows
        """Rows that are drawn from, int64; None when that is all of them."""
        self._added: dict[str, Tensor] = {}

    @property
    def columns(self) -> frozenset[str]:
        """See `Feed.columns`."""
        return frozenset((*self.dataset.extras, *self._added))

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """See `Feed.sample`."""
        count = len(self.dataset) if self.usable is None else len(self.usable)
        index = torch.randint(count, (size,), generator=generator, device=self.dataset.device)
        return self.rows(index if self.usable is None else self.usable[index])

    def rows(self, index: Tensor) -> Batch:
        """The rows of an int64 index (B,), as a batch."""
        batch = self.dataset.rows(index)
        if not self._added:
            return batch
        return batch._replace(
            extras={**batch.extras, **{name: values.index_select(0, index) for name, values in self._added.items()}}
        )

    def add_column(self, name: str, values: Tensor, usable: Tensor | None = None) -> None:
        """See `Feed.add_column`."""
        if len(values) != len(self.dataset):
            raise DatasetError(f"{name} has {len(values):,} rows where the dataset has {len(self.dataset):,}")
        self._added[name] = values
        if usable is None:
            return
        if self.usable is not None:
            usable = usable & torch.zeros_like(usable).index_fill_(0, self.usable, True)
        if not bool(usable.any()):
            raise ConfigError(f"no row has what the column {name} needs: there is nothing to learn from")
        self.usable = None if bool(usable.all()) else usable.nonzero().squeeze(1)
