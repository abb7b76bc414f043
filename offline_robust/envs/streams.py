"""Random numbers for noise: one stream per seed, episode and kind, that nothing else can shift."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from offline_robust.envs.perturbations import FloatArray

Law = Literal["normal", "uniform"]
"""Standard normal, or uniform on [0, 1)."""

_BLOCK = 64


class Stream:
    """Random numbers (N, width) per step, each row from its episode's own generator, drawn in blocks of steps.

    Args:
        seed: of the evaluation.
        episodes: the episode indices, one per row.
        name: the kind of noise.
        width: numbers per row and step.
        law: how they are distributed.
        occurrence: how many of the same kind act before it in the condition; these are independent.
    """

    def __init__(
        self, seed: int, episodes: Sequence[int], name: str, width: int, law: Law, occurrence: int = 0
    ) -> None:
        key = zlib.crc32(name.encode())
        self._generators = [np.random.default_rng([seed, episode, key, 1 + occurrence]) for episode in episodes]
        self._shape, self._law = (_BLOCK, width), law
        self._block = np.empty((len(episodes), 0, width))
        self._at = 0

    def next(self) -> FloatArray:
        """The numbers of the next step, (N, width)."""
        if self._at == self._block.shape[1]:
            self._block = np.empty((len(self._generators), *self._shape))
            for row, generator in enumerate(self._generators):
                draw = generator.random if self._law == "uniform" else generator.standard_normal
                self._block[row] = draw(self._shape)
            self._at = 0
        self._at += 1
        step: FloatArray = self._block[:, self._at - 1]
        return step
