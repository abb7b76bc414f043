"""Squares that round as Gymnasium's do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def square(x: NDArray[Any]) -> NDArray[Any]:
    """Element-wise square (N,) through the scalar power, as Gymnasium computes it; keeps the dtype.

    It rounds differently from ``x * x`` about once in a thousand.
    """
    return np.array([value**2 for value in x], x.dtype)
