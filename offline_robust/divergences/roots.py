"""Roots of many increasing functions at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def increasing_roots(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    low: Tensor,
    high: Tensor,
    ends: tuple[Tensor, Tensor],
    start: Tensor,
    iterations: int,
) -> tuple[Tensor, Tensor]:
    """Where increasing functions, one for each entry, cross zero between `low` and `high`.

    Chandrupatla's method (1997): inverse quadratic interpolation where the last three points allow it, bisection
    elsewhere. It needs no derivative, which may be infinite here, and never leaves its bracket.

    Args:
        function: from points to (values, how close to zero counts as there), both of the points' shape.
        low: not above the root.
        high: not below the root.
        ends: values at `low` (negative) and `high` (positive); estimates serve, they only guide the first steps.
        start: the first point tried.
        iterations: the most points tried. Settled entries stop moving and, on the CPU, the search stops with them.

    Returns:
        The points, without gradient, and the last points found on the other side of the root; a bracket as narrow as
        floating point allows (relative to the point, absolute below one) counts as settled too.
    """
    eps = torch.finfo(low.dtype).eps
    # Point b lies across the root from the newest, a; c is the one before.
    (b, f_b), (c, f_c) = (low, ends[0]), (high, ends[1])
    a, f_a = c, f_c
    x = start.clamp(low, high)
    done = torch.zeros_like(low, dtype=torch.bool)
    for _ in range(iterations):
        f_x, tolerance = function(x)
        same = (f_x > 0.0) == (f_a > 0.0)
        c, f_c = torch.where(same, a, b), torch.where(same, f_a, f_b)
        b, f_b = torch.where(same, b, a), torch.where(same, f_b, f_a)
        a, f_a = x, f_x
        width = 2.0 * eps * a.abs().clamp_min(1.0)
        done = done | (f_x.abs() <= tolerance) | ((b - a).abs() <= width)
        # Asking costs nothing on the CPU; on an accelerator it would stall the queue.
        if done.device.type == "cpu" and bool(done.all()):
            break
        xi, phi = (a - b) / (c - b), (f_a - f_b) / (f_c - f_b)
        smooth = (phi.square() < xi) & ((1.0 - phi).square() < 1.0 - xi)
        step = f_a / (f_b - f_a) * f_c / (f_b - f_c) + (c - a) / (b - a) * f_a / (f_c - f_a) * f_b / (f_c - f_b)
        least = width / (b - a).abs()
        step = torch.where(smooth, step, 0.5).clamp(least.clamp(max=0.5), (1.0 - least).clamp(min=0.5))
        x = torch.where(done, a, a + step * (b - a))
    return a, b
