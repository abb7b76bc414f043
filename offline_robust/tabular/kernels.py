"""The sequential loops of tabular learning, compiled. Imported only where they run: they need numba.

One update changes one pair (s, a). All tables are (S, A): q; eta, the dual variable; z1 and z2, running means under it;
lag, the dual variable as long ago as those reach; visits. A rule is a whole number and seven numbers, which `learning`
makes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from offline_robust.tabular.mdp import FloatArray, IntArray

Q_LEARNING, CONTAMINATION, CRESSIE_READ, KL_BALL = 0, 1, 2, 3

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    return cast(_Function, numba.njit(function))


@_compiled
def _rate(rates: FloatArray, scale: int, count: int) -> float:
    """1 / (1 + c t^p) of one time scale."""
    return float(1.0 / (1.0 + rates[scale, 0] * count ** rates[scale, 1]))


@_compiled
def _update(
    kind: int, rule: FloatArray, rates: FloatArray, s: int, a: int, r: float, x: float, scale: float, floor: float,
    count: int, q: FloatArray, eta: FloatArray, z1: FloatArray, z2: FloatArray, lag: FloatArray,
) -> None:  # fmt: skip
    """One sample x of what the worst case is taken of; the target is r + scale (its robust value)."""
    if kind == Q_LEARNING:
        worth = x
    elif kind == CONTAMINATION:
        # A fail state, where there is one, in place of the worst state.
        worth = (1.0 - rule[0]) * x + rule[0] * (floor if np.isnan(rule[1]) else rule[1])
    elif kind == CRESSIE_READ:
        worth = _cressie_read(rule, rates, s, a, x, count, eta, z1, z2)
    else:
        worth = _kl(rule, rates, s, a, x, count, eta, z1, z2, lag)
    moved = q[s, a] + _rate(rates, 2, count) * (r + scale * worth - q[s, a])
    q[s, a] = min(max(moved, rule[5]), rule[6])


@_compiled
def _cressie_read(
    rule: FloatArray, rates: FloatArray, s: int, a: int, x: float, count: int,
    eta: FloatArray, z1: FloatArray, z2: FloatArray,
) -> float:  # fmt: skip
    """DRQ, equations 9 to 11; returns eta - c Z1^(1/k*)."""
    k, c, least, low, high = rule[0], rule[1], rule[2], rule[3], rule[4]
    conjugate = k / (k - 1.0)
    short = max(eta[s, a] - x, 0.0)
    power = 0.0
    if short > 0.0:
        power = short ** (conjugate - 1.0)
    fast = _rate(rates, 0, count)
    z1[s, a] += fast * (power * short - z1[s, a])
    z2[s, a] += fast * (power - z2[s, a])
    # Z1 vanishes at the start and where a single value follows: its inverse power would not be finite.
    first = max(z1[s, a], least)
    slope = 1.0 - c * first ** (-1.0 / k) * z2[s, a]
    eta[s, a] = min(max(eta[s, a] + _rate(rates, 1, count) * slope, low), high)
    return float(eta[s, a] - c * first ** (1.0 / conjugate))


@_compiled
def _kl(
    rule: FloatArray, rates: FloatArray, s: int, a: int, x: float, count: int,
    eta: FloatArray, z1: FloatArray, z2: FloatArray, lag: FloatArray,
) -> float:  # fmt: skip
    """The same for KL, eta is lambda: returns origin - lambda (log E exp(-(x - origin) / lambda) + delta)."""
    radius, origin, low, high = rule[0], rule[2], rule[3], rule[4]
    excess = x - origin
    tilt = np.exp(-excess / eta[s, a])
    # The first sample starts the means, which have no logarithm at zero.
    fast = 1.0 if z1[s, a] == 0.0 else _rate(rates, 0, count)
    z1[s, a] += fast * (tilt - z1[s, a])
    z2[s, a] += fast * (excess * tilt - z2[s, a])
    # The means were taken while lambda moved. Read as if under the present one they drive it on the way it goes, the
    # more the further x is from the origin; under a mean of lambda of the same memory they do not, and limits agree.
    lag[s, a] += fast * (eta[s, a] - lag[s, a])
    log = np.log(z1[s, a])
    slope = -log - z2[s, a] / (lag[s, a] * z1[s, a]) - radius
    # In its logarithm: a scale must not be thrown to zero by one step, where the means see the least sample alone.
    step = min(max(_rate(rates, 1, count) * slope, -1.0), 1.0)
    eta[s, a] = min(max(eta[s, a] * np.exp(step), low), high)
    return float(origin - lag[s, a] * (log + radius))


@_compiled
def _best(q: FloatArray, s: int) -> float:
    best = q[s, 0]
    for a in range(1, q.shape[1]):
        best = max(best, q[s, a])
    return float(best)


@_compiled
def _drawn(cumulative: FloatArray, u: float) -> int:
    """Index of a row of cumulative probabilities; the last one is not compared, it may be 1 less rounding."""
    k = 0
    while k < len(cumulative) - 1 and u >= cumulative[k]:
        k += 1
    return k


@_compiled
def _record(every: int, n: int, q: FloatArray, terminal: NDArray[np.bool_], curve: FloatArray) -> None:
    if every > 0 and (n + 1) % every == 0:
        row = (n + 1) // every - 1
        for s in range(q.shape[0]):
            curve[row, s] = 0.0 if terminal[s] else _best(q, s)


@_compiled
def _floor(q: FloatArray, terminal: NDArray[np.bool_]) -> float:
    """The least value of a state."""
    floor = np.inf
    for s in range(q.shape[0]):
        floor = min(floor, 0.0 if terminal[s] else _best(q, s))
    return float(floor)


@_compiled
def _ahead(q: FloatArray, terminal: NDArray[np.bool_], discount: float, inside: bool, paid: float, after: int) -> float:
    """What the worst case is taken of: the value that follows, with the reward where that is inside."""
    value = 0.0 if terminal[after] else _best(q, after)
    return paid + discount * value if inside else value


@_compiled
def sweeps(
    rng: np.random.Generator, steps: int, kind: int, rule: FloatArray, rates: FloatArray,
    successors: IntArray, cumulative: FloatArray, certain: FloatArray, entering: FloatArray, inside: bool,
    terminal: NDArray[np.bool_], discount: float, every: int, curve: FloatArray,
    q: FloatArray, eta: FloatArray, z1: FloatArray, z2: FloatArray, lag: FloatArray,
) -> None:  # fmt: skip
    """Synchronous: at every step one sample of every pair, all from the values of the step before."""
    states, actions, _ = successors.shape
    values = np.zeros(states)
    scale = 1.0 if inside else discount
    for n in range(steps):
        for s in range(states):
            values[s] = 0.0 if terminal[s] else _best(q, s)
        floor = values.min()
        for s in range(states):
            if terminal[s]:
                continue
            for a in range(actions):
                k = _drawn(cumulative[s, a], rng.random())
                after = values[successors[s, a, k]]
                x = entering[s, a, k] + discount * after if inside else after
                _update(kind, rule, rates, s, a, certain[s, a], x, scale, floor, n, q, eta, z1, z2, lag)
        _record(every, n, q, terminal, curve)


@_compiled
def trajectory(
    rng: np.random.Generator, steps: int, kind: int, rule: FloatArray, rates: FloatArray,
    successors: IntArray, cumulative: FloatArray, certain: FloatArray, entering: FloatArray, inside: bool,
    terminal: NDArray[np.bool_], discount: float, every: int, curve: FloatArray,
    q: FloatArray, eta: FloatArray, z1: FloatArray, z2: FloatArray, lag: FloatArray,
    start: FloatArray, epsilon: float, episode_steps: int, by_visits: bool, visits: IntArray,
) -> None:  # fmt: skip
    """One trajectory of the epsilon-greedy policy, begun anew where an episode ends."""
    actions = q.shape[1]
    scale = 1.0 if inside else discount
    s, length = _drawn(start, rng.random()), 0
    for n in range(steps):
        if rng.random() < epsilon:
            a = int(rng.random() * actions)
        else:
            a = 0
            for other in range(1, actions):
                if q[s, other] > q[s, a]:
                    a = other
        k = _drawn(cumulative[s, a], rng.random())
        after = successors[s, a, k]
        x = _ahead(q, terminal, discount, inside, entering[s, a, k] if inside else 0.0, after)
        floor = _floor(q, terminal) if kind == CONTAMINATION else 0.0
        count = visits[s, a] if by_visits else n
        _update(kind, rule, rates, s, a, certain[s, a], x, scale, floor, count, q, eta, z1, z2, lag)
        visits[s, a] += 1
        _record(every, n, q, terminal, curve)
        s, length = after, length + 1
        if terminal[s] or length == episode_steps:
            s, length = _drawn(start, rng.random()), 0


@_compiled
def replay(
    rng: np.random.Generator, steps: int, kind: int, rule: FloatArray, rates: FloatArray,
    logged: IntArray, paid: FloatArray, terminal: NDArray[np.bool_], discount: float, inside: bool,
    every: int, curve: FloatArray, q: FloatArray, eta: FloatArray, z1: FloatArray, z2: FloatArray, lag: FloatArray,
    by_visits: bool, visits: IntArray,
) -> None:  # fmt: skip
    """Logged transitions (N, 3) of state, action, next state, drawn at random with replacement."""
    scale = 1.0 if inside else discount
    for n in range(steps):
        row = int(rng.random() * len(logged))
        s, a, after = logged[row, 0], logged[row, 1], logged[row, 2]
        x = _ahead(q, terminal, discount, inside, paid[row], after)
        floor = _floor(q, terminal) if kind == CONTAMINATION else 0.0
        count = visits[s, a] if by_visits else n
        _update(kind, rule, rates, s, a, 0.0 if inside else paid[row], x, scale, floor, count, q, eta, z1, z2, lag)
        visits[s, a] += 1
        _record(every, n, q, terminal, curve)
