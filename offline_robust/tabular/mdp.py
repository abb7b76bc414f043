"""Finite Markov decision processes as arrays, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offline_robust.errors import ConfigError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

TransitionsLike = ArrayLike | tuple[ArrayLike, ArrayLike]
"""P(s' | s, a): (S, A, S), or (successors, probabilities), (S, A, K) each."""

ROUNDING = 1e-6
"""How far a row of probabilities may sum from one: what float32 rounds."""


class Transitions(NamedTuple):
    """Transition laws by their successors; a successor of probability 0 is none."""

    successors: IntArray
    """(S, A, K) states."""
    probabilities: FloatArray
    """(S, A, K), each row sums to one."""

    @property
    def dense(self) -> FloatArray:
        """(S, A, S); a successor named twice in a row counts twice."""
        states, actions, width = self.successors.shape
        law = np.zeros((states, actions, states))
        rows = np.repeat(np.arange(states * actions), width)
        np.add.at(law.reshape(-1, states), (rows, self.successors.ravel()), self.probabilities.ravel())
        return law


class Rewards(NamedTuple):
    """Rewards apart by what an adversary can do to them."""

    certain: FloatArray
    """(S, A) paid whatever follows: outside the worst case."""
    entering: FloatArray | None
    """(S, A, K) paid on reaching each successor: inside the worst case."""


@dataclass(frozen=True, eq=False)
class FiniteMDP:
    """A finite problem: everything that dynamic programming needs, and where episodes start and end.

    Build one with `finite_mdp`, which checks what it is given.
    """

    transitions: Transitions
    """P(s' | s, a)."""
    rewards: FloatArray
    """(S, A), or (S, A, K) where they are paid on entering the successor."""
    discount: float
    """In [0, 1); 1 only for `robust_backward_induction`."""
    terminal: NDArray[np.bool_]
    """(S,) states in which an episode ends; nothing is earned there."""
    start: FloatArray
    """(S,) law of the first state."""
    state_names: FloatArray | None = None
    """(S, D) what a state stands for, for example (row, column) or (stage, price); NaN where nothing."""
    action_names: tuple[str, ...] = ()
    """A names, or none."""

    @property
    def states(self) -> int:
        """S."""
        return len(self.transitions.successors)

    @property
    def actions(self) -> int:
        """A."""
        return int(self.transitions.successors.shape[1])


def finite_mdp(
    P: TransitionsLike,
    r: ArrayLike,
    discount: float,
    *,
    terminal: ArrayLike | None = None,
    start: ArrayLike | None = None,
    state_names: FloatArray | None = None,
    action_names: Sequence[str] = (),
) -> FiniteMDP:
    """A checked problem.

    Args:
        P: (S, A, S), or successors and probabilities, (S, A, K) each.
        r: (S,), (S, A), or in the shape of P: paid on entering the successor.
        discount: in [0, 1].
        terminal: (S,) bool, none by default. Their laws must stay in terminal states and their rewards be 0.
        start: (S,) law of the first state; uniform over the states that are not terminal by default.
        state_names: see `FiniteMDP`.
        action_names: see `FiniteMDP`.

    Raises:
        ConfigError: shapes that contradict each other, rows that are no laws, a discount out of range.
    """
    transitions, rewards = as_problem(P, r)
    states, actions, _ = transitions.successors.shape
    ends = np.zeros(states, bool) if terminal is None else np.asarray(terminal, bool)
    if ends.shape != (states,) or ends.all():
        raise ConfigError(f"terminal: one bool for each of {states} states, not all true; got shape {ends.shape}")
    leaving = (transitions.probabilities > 0.0) & ~ends[transitions.successors]
    paid = (rewards.certain != 0.0) | (rewards.entering is not None and (rewards.entering != 0.0).any(-1))
    for state in np.flatnonzero(ends):
        if leaving[state].any() or paid[state].any():
            raise ConfigError(f"state {state} is terminal, so it must stay in terminal states and pay no reward")
    first = np.where(ends, 0.0, 1.0 / (~ends).sum()) if start is None else np.asarray(start, np.float64)
    if first.shape != (states,) or not (first >= 0.0).all() or abs(first.sum() - 1.0) > ROUNDING:
        raise ConfigError(f"start: {states} probabilities that sum to one, got shape {first.shape}")
    if action_names and len(action_names) != actions:
        raise ConfigError(f"action_names: {actions} names, got {len(action_names)}")
    together = rewards.certain if rewards.entering is None else rewards.entering
    return FiniteMDP(
        transitions,
        together,
        checked_discount(discount, one=True),
        ends,
        first / first.sum(),
        state_names,
        tuple(action_names),
    )


def as_problem(P: TransitionsLike, r: ArrayLike, *, every_state: bool = False) -> tuple[Transitions, Rewards]:
    """Laws by their successors, and rewards in the same layout; see `finite_mdp`.

    Of a dense P the successors of probability 0 are dropped, unless `every_state`.

    Raises:
        ConfigError: as `finite_mdp`.
    """
    rewards = _numbers("r", r)
    if isinstance(P, tuple):
        if len(P) != 2:
            raise ConfigError(f"P: (S, A, S) or the pair (successors, probabilities), got a tuple of {len(P)}")
        transitions = _listed(P[0], P[1])
    else:
        law = _numbers("P", P)
        if law.ndim != 3 or law.shape[0] != law.shape[2] or 0 in law.shape:
            raise ConfigError(f"P: shape (S, A, S), or (successors, probabilities); got shape {law.shape}")
        _check_laws(law)
        transitions = _compressed(law, len(law) if every_state else int((law > 0.0).sum(-1).max()))
        if rewards.ndim == 3 and rewards.shape == law.shape:
            rewards = np.take_along_axis(rewards, transitions.successors, -1)
    return transitions, _rewards(rewards, transitions)


def checked_discount(discount: float, *, one: bool = False) -> float:
    """The discount, if it is in [0, 1); 1 too where episodes have a last stage.

    Raises:
        ConfigError: it is not.
    """
    if isinstance(discount, int | float | np.floating) and 0.0 <= discount < 1.0 + one * 1e-300:
        return float(discount)
    if one and discount == 1:
        return 1.0
    hint = ": without an end, discount 1 has no finite values" if discount == 1 else ""
    raise ConfigError(f"discount: a number in [0, 1{']' if one else ')'}, got {discount}{hint}")


def checked_policy(policy: ArrayLike, states: int, actions: int) -> FloatArray:
    """(S, A) probabilities of a policy given as those, or as (S,) actions.

    Raises:
        ConfigError: neither, or no policy.
    """
    given = np.asarray(policy)
    if given.shape == (states,) and given.dtype.kind in "iu":
        if given.min() < 0 or given.max() >= actions:
            raise ConfigError(f"policy: actions are 0 to {actions - 1}, got {given.min()} to {given.max()}")
        pure: FloatArray = np.eye(actions)[given]
        return pure
    law = _numbers("policy", policy)
    if law.shape != (states, actions):
        raise ConfigError(
            f"policy: ({states},) whole numbers or ({states}, {actions}) probabilities, got shape {law.shape}"
        )
    _check_laws(law[:, None, :], "policy")
    shares: FloatArray = law / law.sum(-1, keepdims=True)
    return shares


def _listed(successors: ArrayLike, probabilities: ArrayLike) -> Transitions:
    law, after = _numbers("P", probabilities), np.asarray(successors)
    if law.ndim != 3 or law.shape != after.shape or 0 in law.shape:
        raise ConfigError(f"P: successors and probabilities are (S, A, K) both, got {after.shape} and {law.shape}")
    if after.dtype.kind not in "iu":
        raise ConfigError(f"P: successors are whole numbers, got {after.dtype}")
    states = len(law)
    if after.min() < 0 or after.max() >= states:
        s, a, k = np.argwhere((after < 0) | (after >= states))[0]
        raise ConfigError(f"P: successor {after[s, a, k]} of state {s}, action {a} is not one of the {states} states")
    _check_laws(law)
    return Transitions(after.astype(np.int64), law / law.sum(-1, keepdims=True))


def _compressed(law: FloatArray, width: int) -> Transitions:
    # Stable: successors stay in order, and fillers of weight 0 come last. With all states, all stay in order.
    unreached = np.zeros_like(law, bool) if width == len(law) else law <= 0.0
    order = np.argsort(unreached, axis=-1, kind="stable")[..., :width]
    kept = np.take_along_axis(law, order, -1)
    return Transitions(order.astype(np.int64), kept / kept.sum(-1, keepdims=True))


def _check_laws(law: FloatArray, name: str = "P") -> None:
    """Refuses rows (S, A, m) that are no laws."""
    if (law < 0.0).any():
        s, a, _ = np.argwhere(law < 0.0)[0]
        raise ConfigError(f"{name}: {_where(name, s, a)} has a negative probability, {law[s, a].min():g}")
    total = law.sum(-1)
    if (abs(total - 1.0) > ROUNDING).any():
        s, a = np.argwhere(abs(total - 1.0) > ROUNDING)[0]
        raise ConfigError(f"{name}: the probabilities of {_where(name, s, a)} sum to {total[s, a]:.9g}, not to one")


def _where(name: str, state: Any, action: Any) -> str:
    return f"state {state}" if name == "policy" else f"state {state}, action {action}"


def _rewards(given: FloatArray, transitions: Transitions) -> Rewards:
    states, actions, width = transitions.successors.shape
    if given.shape == (states,):
        return Rewards(np.repeat(given[:, None], actions, 1), None)
    if given.shape == (states, actions):
        return Rewards(given, None)
    if given.shape == (states, actions, width):
        return Rewards(np.zeros((states, actions)), given)
    raise ConfigError(f"r: shape ({states},), ({states}, {actions}) or that of P, got {given.shape}")


def _numbers(name: str, values: ArrayLike) -> FloatArray:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"{name}: an array of numbers, got {type(values).__name__}") from None
    if not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ConfigError(f"{name}: entry {place} is not finite")
    return array
