"""Exact robust dynamic programming: the worst law of every pair (s, a), all pairs at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from offline_robust.divergences import Divergence
from offline_robust.errors import ConfigError
from offline_robust.tabular.backup import RobustBackup
from offline_robust.tabular.mdp import (
    FloatArray,
    IntArray,
    Transitions,
    TransitionsLike,
    checked_discount,
    checked_policy,
)

_FROZEN_SWEEPS = 2000
_FROZEN_GAIN = 1e-3
_ROUNDING = 16.0 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class RobustValues:
    """Values under the worst laws of a ball."""

    q: FloatArray
    """(S, A)."""
    v: FloatArray
    """(S,)."""
    policy: IntArray | FloatArray
    """(S,) the greedy actions, the first of equals; of an evaluation, the policy evaluated, (S, A) probabilities."""
    sweeps: int
    """Sweeps of the robust Bellman operator over all pairs."""
    error_bound: float
    """No value is further from the fixed point than this, rounding and the ball's own solver aside."""


@dataclass(frozen=True, eq=False)
class StagedValues:
    """Values of a problem of H stages."""

    q: FloatArray
    """(H, S, A)."""
    v: FloatArray
    """(H + 1, S), the last row is what remains after the last decision."""
    policy: IntArray
    """(H, S) greedy actions, the first of equals."""


def robust_value_iteration(
    P: TransitionsLike,
    r: ArrayLike,
    discount: float,
    divergence: Divergence | None = None,
    *,
    terminal: ArrayLike | None = None,
    everywhere: bool = False,
    tolerance: float = 1e-10,
    max_sweeps: int = 100_000,
) -> RobustValues:
    """The fixed point of Q(s, a) = r(s, a) + discount inf { E_p max_b Q(s', b) : p in the ball around P(s, a) }.

    Rewards that are paid on entering a successor are inside the infimum: inf E_p [r(s, a, s') + discount max_b Q].

    Between two sweeps of the operator the worst laws are held fixed and the plain problem that they make is solved,
    nearly. From exact solutions that is the strategy iteration of Hoffman and Karp (1966), whose values come down to
    the fixed point at least as fast as value iteration's. Here solutions are not exact, so a sweep whose residual has
    not shrunk by the discount is thrown away for the plain one.

    Args:
        P: (S, A, S), or (successors, probabilities), (S, A, K) each. What has probability 0 counts nowhere, except
            under `Wasserstein1`.
        r: (S,), (S, A), or in P's own shape: paid on entering the successor.
        discount: in [0, 1).
        divergence: the ball of every pair; None for the nominal law alone. `Wasserstein1` needs costs (S, S) between
            states, or (K, K) or (S, A, K, K) between the successors that are listed.
        terminal: (S,) bool, states in which nothing follows: their value is 0, whatever a ball could do there.
        everywhere: mass may move to the lowest-valued state of all, not only to successors (Wang and Zou 2021). For
            `TotalVariation` and `Contamination` without `v_min`.
        tolerance: largest error of a value, in its own units. Where rounding does not allow it, what it does allow.
        max_sweeps: of the operator.

    Raises:
        ConfigError: bad input, or `max_sweeps` are not enough.

    Source: Iyengar (2005), Nilim and El Ghaoui (2005); for Cressie-Read balls DRQ (arXiv 2301.11721), equation 5.
    """
    backup = RobustBackup(P, r, checked_discount(discount), divergence, terminal, everywhere)
    found = _fixed_point(backup, lambda q: q.amax(-1), tolerance, max_sweeps)
    q, v, sweeps, bound = found
    return RobustValues(q.numpy(), v.numpy(), q.numpy().argmax(-1), sweeps, bound)


def robust_policy_evaluation(
    P: TransitionsLike,
    r: ArrayLike,
    discount: float,
    divergence: Divergence | None,
    policy: ArrayLike,
    *,
    terminal: ArrayLike | None = None,
    everywhere: bool = False,
    tolerance: float = 1e-10,
    max_sweeps: int = 100_000,
) -> RobustValues:
    """The least discounted return of a policy over all laws of the balls: see `robust_value_iteration`.

    Args:
        P: see there.
        r: see there.
        discount: see there.
        divergence: see there.
        policy: (S,) actions or (S, A) probabilities.
        terminal: see there.
        everywhere: see there.
        tolerance: see there.
        max_sweeps: see there.

    Raises:
        ConfigError: as there; or it is no policy.
    """
    backup = RobustBackup(P, r, checked_discount(discount), divergence, terminal, everywhere)
    law = checked_policy(policy, *backup.shape)
    chosen = torch.from_numpy(law)
    q, v, sweeps, bound = _fixed_point(backup, lambda q: (chosen * q).sum(-1), tolerance, max_sweeps)
    return RobustValues(q.numpy(), v.numpy(), law, sweeps, bound)


def robust_backward_induction(
    P: TransitionsLike,
    r: ArrayLike,
    discount: float,
    divergence: Divergence | None,
    *,
    stages: int,
    final: ArrayLike | None = None,
    terminal: ArrayLike | None = None,
    everywhere: bool = False,
) -> StagedValues:
    """Robust values with a last stage: V_H = final, V_h = max_a r + discount inf E V_(h + 1).

    Args:
        P: see `robust_value_iteration`; the same at every stage.
        r: see there.
        discount: in [0, 1].
        divergence: see there.
        stages: H, the number of decisions.
        final: (S,) what is earned after the last one; 0 by default.
        terminal: see there.
        everywhere: see there.

    Raises:
        ConfigError: bad input.
    """
    backup = RobustBackup(P, r, checked_discount(discount, one=True), divergence, terminal, everywhere)
    if isinstance(stages, bool) or not isinstance(stages, int) or stages < 1:
        raise ConfigError(f"stages: a whole number from 1, got {stages}")
    v = np.zeros((stages + 1, backup.shape[0]))
    if final is not None:
        v[stages] = checked_values("final", final, backup.shape[0])
    q = np.zeros((stages, *backup.shape))
    for stage in reversed(range(stages)):
        q[stage] = backup(torch.from_numpy(v[stage + 1])).q.numpy()
        v[stage] = q[stage].max(-1)
    return StagedValues(q, v, q.argmax(-1))


def robust_bellman(
    P: TransitionsLike,
    r: ArrayLike,
    discount: float,
    divergence: Divergence | None,
    v: ArrayLike,
    *,
    terminal: ArrayLike | None = None,
    everywhere: bool = False,
) -> FloatArray:
    """(S, A) one sweep of the operator at the values v (S,) of next states; see `robust_value_iteration`."""
    backup = RobustBackup(P, r, checked_discount(discount, one=True), divergence, terminal, everywhere)
    return cast(FloatArray, backup(torch.from_numpy(checked_values("v", v, backup.shape[0]))).q.numpy())


def worst_transitions(
    P: TransitionsLike, r: ArrayLike, discount: float, divergence: Divergence | None, v: ArrayLike
) -> Transitions:
    """The laws that attain the worst case at the values v (S,) of next states; see `robust_value_iteration`.

    Raises:
        ConfigError: bad input; or a ball with a fail state, whose mass leaves the states.
    """
    backup = RobustBackup(P, r, checked_discount(discount, one=True), divergence, None, False)
    law = backup(torch.from_numpy(checked_values("v", v, backup.shape[0]))).law.numpy()
    if (abs(law.sum(-1) - 1.0) > 1e-9).any():
        raise ConfigError(f"{divergence}: the fail state takes mass out of the states, so there is no worst transition")
    return Transitions(backup.transitions.successors, law)


def checked_values(name: str, values: ArrayLike, states: int) -> FloatArray:
    """(S,) finite numbers, a copy.

    Raises:
        ConfigError: they are not.
    """
    array = np.array(values, np.float64)
    if array.shape != (states,) or not np.isfinite(array).all():
        raise ConfigError(f"{name}: {states} finite numbers, one a state; got shape {array.shape}")
    return array


def _fixed_point(
    backup: RobustBackup, choose: Callable[[Tensor], Tensor], tolerance: float, max_sweeps: int
) -> tuple[Tensor, Tensor, int, float]:
    """q, v, sweeps and error bound at the fixed point of v = choose(backup(v))."""
    if not tolerance > 0.0:
        raise ConfigError(f"tolerance: greater than 0, got {tolerance}")
    discount = backup.discount
    reach = discount / (1.0 - discount)
    v = torch.zeros(backup.shape[0], dtype=torch.float64)
    plain, before = v, np.inf
    bound = np.inf
    for sweep in range(1, max_sweeps + 1):
        swept = backup(v)
        new = choose(swept.q)
        residual = float((new - v).abs().max())
        if residual > discount * before:
            v, before = plain, np.inf  # where a plain sweep led: its residual has shrunk by the discount
            continue
        bound = reach * residual
        # Below its rounding a residual does not shrink; the bound then says what was reached.
        if bound <= tolerance or residual <= _ROUNDING * float(new.abs().max()):
            return swept.q, new, sweep, bound
        plain, before = new, residual
        v = new
        enough = max(_FROZEN_GAIN * residual, 0.1 * tolerance * (1.0 - discount))
        frozen = backup.frozen(swept)
        for _ in range(_FROZEN_SWEEPS):
            last, v = v, choose(frozen(v))
            if float((v - last).abs().max()) <= enough:
                break
    raise ConfigError(
        f"tolerance: {tolerance:g} is not reached in {max_sweeps} sweeps (error at most {bound:.3g}): allow more of "
        "either"
    )
