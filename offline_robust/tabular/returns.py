"""What a policy earns in a finite problem, exactly."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix, eye
from scipy.sparse.csgraph import breadth_first_order
from scipy.sparse.linalg import spsolve

from offline_robust.tabular.mdp import FiniteMDP, FloatArray, as_problem, checked_discount, checked_policy


class ExpectedReturns(NamedTuple):
    """Exact expectations over an episode, for each first state."""

    returns: FloatArray
    """(S,) NaN where an episode may never end and nothing is discounted."""
    steps: FloatArray
    """(S,) mean length of an episode; inf where it may never end."""
    start_return: float
    """Mean over the law of the first state."""
    start_steps: float
    """The same, of steps."""


def expected_returns(mdp: FiniteMDP, policy: ArrayLike, discount: float = 1.0) -> ExpectedReturns:
    """Solves the linear equations of a policy in its problem: no sampling, no step limit.

    Args:
        mdp: for example the problem under another wind than the one that the policy was made for.
        policy: (S,) actions or (S, A) probabilities.
        discount: of the returns; 1 is the plain sum.

    Raises:
        ConfigError: it is no policy, or the discount is out of [0, 1].
    """
    chosen = checked_policy(policy, mdp.states, mdp.actions)
    discount = checked_discount(discount, one=True)
    transitions, rewards = as_problem(mdp.transitions, mdp.rewards)
    paid = rewards.certain if rewards.entering is None else (transitions.probabilities * rewards.entering).sum(-1)
    weights = (chosen[..., None] * transitions.probabilities).reshape(mdp.states, -1)
    rows = np.repeat(np.arange(mdp.states), weights.shape[1])
    entries = (weights.ravel(), (rows, transitions.successors.ravel()))
    moves = csr_matrix(entries, shape=(mdp.states, mdp.states))
    moves.eliminate_zeros()
    surely = ~_reaching(moves, ~_reaching(moves, mdp.terminal))
    earned = (chosen * paid).sum(-1)
    # Discounted values are finite without an end.
    solved = ~mdp.terminal & (surely if discount == 1.0 else True)
    returns = np.where(mdp.terminal, 0.0, np.nan)
    returns[solved] = _solved(moves, earned, solved, discount)
    steps = np.where(mdp.terminal, 0.0, np.inf)
    ending = ~mdp.terminal & surely
    steps[ending] = _solved(moves, np.ones(mdp.states), ending, 1.0)
    first = mdp.start > 0.0
    return ExpectedReturns(
        returns, steps, float(mdp.start[first] @ returns[first]), float(mdp.start[first] @ steps[first])
    )


def _solved(moves: csr_matrix, earned: FloatArray, states: NDArray[np.bool_], discount: float) -> FloatArray:
    """x = earned + discount P x on the given states, 0 elsewhere."""
    if not states.any():
        return np.zeros(0)
    inner = moves[states][:, states]
    solution: FloatArray = spsolve((eye(inner.shape[0]) - discount * inner).tocsc(), earned[states])
    return np.atleast_1d(solution)


def _reaching(moves: csr_matrix, targets: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(S,) states from which some path leads into the targets."""
    count = moves.shape[0]
    found = np.zeros(count, bool)
    if not targets.any():
        return found
    # One more node, from which the targets are one step away, on the graph turned round.
    moved, ends = moves.tocoo(), np.flatnonzero(targets)
    rows = np.append(moved.col, np.full(len(ends), count))
    back = csr_matrix((np.ones(len(rows)), (rows, np.append(moved.row, ends))), shape=(count + 1, count + 1))
    order = breadth_first_order(back, count, return_predecessors=False)
    found[order[order < count]] = True
    return found
