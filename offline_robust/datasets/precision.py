"""What is lost when logged numbers become float32, the type that learners compute in: about seven digits.

A clock at 1.7e9 seconds keeps one value in 128. What matters is the rounding beside what a column says: beside its
standard deviation, and, where rows follow each other, beside its change from row to row, which nominal models learn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK = 2**15
"""Numbers that are looked at together, about: they stay in the processor's cache."""
_OF_STD, _OF_CHANGE = 1e-3, 1e-2
"""Rounding beyond this share of a column's standard deviation, or of its change from row to row, is told."""
_NOISE = 1e-13
"""Floating columns that vary by less than this share of their size are constant, but for the rounding of float64."""


@dataclass(frozen=True)
class Loss:
    """What one dimension loses in float32."""

    dimension: int
    distinct: int
    """Different values in the source."""
    kept: int
    """Different values in float32."""
    size: float
    """The largest magnitude."""
    spacing: float
    """The distance between float32's numbers there."""
    std: float
    """The standard deviation in the source."""
    change: float
    """The mean absolute change from row to row in the source."""

    @property
    def short(self) -> str:
        """The dimension and its values, for a list."""
        return f"dimension {self.dimension}: {self.distinct:,} distinct values become {self.kept:,}"

    def __str__(self) -> str:
        return (
            f"{self.short} in float32, whose numbers lie {self.spacing:.3g} apart near {self.size:.3g}; its standard "
            f"deviation is {self.std:.3g}, its mean change from row to row {self.change:.3g}"
        )


def rounds(kind: np.dtype[np.generic]) -> bool:
    """Whether a number type holds numbers that float32 does not."""
    return kind.itemsize > (4 if kind.kind == "f" else 2)


def losses(parts: Sequence[NDArray[np.generic]], *, chained: bool = True) -> tuple[Loss, ...]:
    """The dimensions that lose much, in order.

    Args:
        parts: (T, D) or (T,) stretches of the rows, in the source's own number type.
        chained: whether the change from row to row matters.
    """
    rows = sum(len(part) for part in parts)
    wide = parts[0].ndim == 2
    if rows < 2 or not any(rounds(part.dtype) for part in parts) or (wide and not parts[0].shape[1]):
        return ()
    # Differences may be infinite or not a number where values are; those rows are findings of their own.
    with np.errstate(over="ignore", invalid="ignore"):
        sums = _Sums(parts[0].shape[1] if wide else 1)
        for block in _blocks(parts):
            sums.add(block)
        noise = _NOISE if all(part.dtype.kind == "f" for part in parts) else 0.0
        std, change, lossy = sums.judge(chained, noise)
    found = []
    for dimension in np.flatnonzero(lossy).tolist():
        column = np.concatenate([part[:, dimension] if wide else part for part in parts])
        size = float(sums.size[dimension])
        found.append(
            Loss(
                dimension,
                len(np.unique(column)),
                len(np.unique(column.astype(np.float32))),
                size,
                float(np.spacing(np.float32(size))),
                float(std[dimension]),
                float(change[dimension]),
            )
        )
    return tuple(found)


class _Sums:
    """Sums over the rows, column by column, in float64."""

    def __init__(self, width: int) -> None:
        self.rows = 0
        self.size, self._sum, self._squares = np.zeros(width), np.zeros(width), np.zeros(width)
        self._errors, self._changes, self._changed = np.zeros(width), np.zeros(width), np.zeros(width)
        self._first: NDArray[np.float64] | None = None
        self._last: NDArray[np.float64] | None = None

    def add(self, block: NDArray[np.float64]) -> None:
        """Adds rows (T, D) that follow those before; what float32 cannot hold counts as zero."""
        rounded = block.astype(np.float32).astype(np.float64)
        bad = ~np.isfinite(rounded)
        if bad.any():
            block, rounded = np.where(bad, 0.0, block), np.where(bad, 0.0, rounded)
        error = rounded - block
        if self._first is None or self._last is None:
            self._first, self._last = block[0], np.stack([block[0], error[0]])
        # Beside a large mean, the sum of squares would drown the variation: count from the first row on.
        shifted = block - self._first
        self.rows += len(block)
        self.size = np.maximum(self.size, np.abs(block).max(0))
        self._sum += shifted.sum(0)
        self._squares += np.einsum("td,td->d", shifted, shifted)
        self._errors += np.einsum("td,td->d", error, error)
        for sums, values, before in ((self._changes, block, self._last[0]), (self._changed, error, self._last[1])):
            sums += np.abs(values[0] - before) + np.abs(np.diff(values, axis=0)).sum(0)
        self._last = np.stack([block[-1], error[-1]])

    def judge(self, chained: bool, noise: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Standard deviations (D,), mean changes (D,), and which dimensions lose much (D,)."""
        mean = self._sum / self.rows
        std = np.sqrt(np.maximum(self._squares / self.rows - mean**2, 0.0))
        lossy = np.sqrt(self._errors / self.rows) > _OF_STD * std
        if chained:
            lossy |= self._changed > _OF_CHANGE * self._changes
        return std, self._changes / (self.rows - 1), np.asarray(lossy & (std > noise * self.size))


def _blocks(parts: Sequence[NDArray[np.generic]]) -> Iterator[NDArray[np.float64]]:
    """The rows in float64 (T, D), in blocks of a size that is fast: short parts together, long ones cut."""
    width = parts[0].shape[1] if parts[0].ndim == 2 else 1
    rows = max(1, _BLOCK // width)
    held: list[NDArray[np.float64]] = []
    for part in parts:
        for begin in range(0, len(part), rows):
            held.append(part[begin : begin + rows].astype(np.float64).reshape(-1, width))
            if sum(map(len, held)) >= rows:
                yield np.concatenate(held)
                held = []
    if held:
        yield np.concatenate(held)
