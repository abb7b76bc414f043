"""Finite problems whose exact robust values are known: Cliffwalking, American put, random MDPs, a three-state chain."""

from __future__ import annotations

from typing import Literal

import numpy as np

from offline_robust.errors import ConfigError
from offline_robust.tabular.mdp import FiniteMDP, FloatArray, IntArray, finite_mdp

RewardForm = Literal["state", "entering"]

GRID = 4
"""Rows and columns of Cliffwalking."""
START, GOAL = (2, 0), (2, 3)
"""(row, column) of its first state and of its goal; the last row is water."""
MOVES = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}
"""(rows, columns) of its actions, in their order."""

HOLD, EXERCISE = 0, 1
"""Actions of the put."""


def cliffwalking(
    wind: float = 0.5, *, reward: RewardForm = "state", discount: float = 0.9, water_ends: bool = False
) -> FiniteMDP:
    """Cliffwalking with wind: 4 x 4, start at the left of the third row, goal at its right end, the last row is water.

    With probability `wind` the robot moves in one of four directions at random, otherwise as it wants; it stays where a
    move would leave the grid. The goal pays 5, each step in the water -1, and an episode ends after the goal. States
    are row * 4 + column, and 16, where nothing happens any more. The four actions are up, right, down, left.

    Args:
        wind: in [0, 1]. DRQ trains at 0.5.
        reward: ``state``: r(s), paid when the state is left, outside the worst case, as DRQ's theory has it.
            ``entering``: paid when it is entered, inside the worst case; the goal then ends the episode at once.
        discount: DRQ 0.9.
        water_ends: whether an episode ends in the water too. Ours, to see what hangs on it.

    Raises:
        ConfigError: a wind or discount out of range.

    Source: DRQ (arXiv 2301.11721), section 4, after Deletang et al. (2021). The text that is kept of both lost most of
    its numbers; grid, rewards and wind are our reading.
    """
    wind = _share("wind", wind)
    if reward not in ("state", "entering"):
        raise ConfigError(f"reward: state or entering, got {reward!r}")
    cells, sink = GRID * GRID, GRID * GRID
    rows, columns = np.divmod(np.arange(cells), GRID)
    moved = np.stack(
        [
            np.clip(rows + down, 0, GRID - 1) * GRID + np.clip(columns + right, 0, GRID - 1)
            for down, right in MOVES.values()
        ],
        axis=1,
    )  # (cells, 4): where each direction leads
    goal, water = GOAL[0] * GRID + GOAL[1], rows == GRID - 1
    last = np.isin(np.arange(cells), goal) | (water & water_ends)
    law = np.zeros((cells + 1, 4, cells + 1))
    for direction in range(4):
        law[np.arange(cells), :, moved[:, direction]] += wind / 4
        law[np.arange(cells), direction, moved[:, direction]] += 1.0 - wind
    here = np.append(5.0 * (np.arange(cells) == goal) - 1.0 * water, 0.0)
    law[np.append(last, True)] = 0.0
    law[np.append(last, True), :, sink] = 1.0
    terminal = np.arange(cells + 1) == sink
    names = np.append(np.stack([rows, columns], 1), [[np.nan, np.nan]], 0)
    if reward == "entering":
        terminal = np.append(last, True)
        paid = np.where(terminal[:, None, None], 0.0, np.broadcast_to(here, law.shape))
    return finite_mdp(
        law,
        here if reward == "state" else paid,
        discount,
        terminal=terminal,
        start=np.arange(cells + 1) == START[0] * GRID + START[1],
        state_names=names,
        action_names=tuple(MOVES),
    )


def american_put(
    p_up: float = 0.5,
    *,
    stages: int | None = None,
    strike: float = 100.0,
    up: float = 1.02,
    down: float = 0.98,
    low: float = 80.0,
    high: float = 140.0,
    decimals: int = 1,
    spread: float = 5.0,
    discount: float = 0.95,
) -> FiniteMDP:
    """An American put on a grid of prices: hold it (action 0), or exercise it (1) for max(0, strike - price).

    A held price goes up by the factor `up` with probability `p_up`, else down by `down`, rounded to the grid and cut
    at its ends. Exercising pays and ends the episode.

    States without `stages`: the prices from low to high, then the exit; 602 as the defaults are. With `stages` the
    state is (stage, price): stage * prices + price; after H decisions to hold, at stage H, both actions exercise.

    Args:
        p_up: in [0, 1].
        stages: H, the number of decisions; None: no last one.
        strike: price at which the option is exercised.
        up: factor of a rise.
        down: factor of a fall.
        low: least price.
        high: largest price.
        decimals: of a price.
        spread: the first price is uniform within `spread` of the strike.
        discount: a step.

    Raises:
        ConfigError: a value out of range.

    Source: DRQ (arXiv 2301.11721), appendix A.1; Cox, Ross and Rubinstein (1979). Numbers that the kept text lost are
    those of the code of Zhou et al. (2021) and of Ma et al. (2022).
    """
    p_up = _share("p_up", p_up)
    if not (0.0 < low < high and low <= strike - spread and strike + spread <= high and 0.0 < down < up):
        raise ConfigError(f"prices: 0 < low < high around strike +- spread, got {low:g}, {high:g}, {strike:g}")
    if stages is not None and stages < 1:
        raise ConfigError(f"stages: a whole number from 1, got {stages}")
    prices = put_prices(low, high, decimals)
    count, last = len(prices), stages or 0
    exit_state = (last + 1) * count
    payoff = np.maximum(0.0, strike - prices).round(decimals)
    after = [_nearest(prices, factor, decimals) for factor in (up, down)]
    states = exit_state + 1
    successors = np.full((states, 2, 2), exit_state)
    probabilities = np.broadcast_to([p_up, 1.0 - p_up], (states, 2, 2)).copy()
    # The exit and everything that leads there are certain: two successors that are one.
    rewards = np.zeros((states, 2))
    for stage in range(last + 1):
        here = slice(stage * count, (stage + 1) * count)
        rewards[here, EXERCISE] = payoff
        if stages is None or stage < last:
            ahead = 0 if stages is None else (stage + 1) * count
            successors[here, HOLD] = ahead + np.stack(after, -1)
        else:
            rewards[here, HOLD] = payoff
    start = np.zeros(states)
    start[:count] = abs(prices - strike) <= spread + 1e-9
    stage_names = np.repeat(np.arange(last + 1.0), count)
    names = np.append(np.stack([stage_names, np.tile(prices, last + 1)], 1), [[np.nan, np.nan]], 0)
    return finite_mdp(
        (successors, probabilities),
        rewards,
        discount,
        terminal=np.arange(states) == exit_state,
        start=start / start.sum(),
        state_names=names,
        action_names=("hold", "exercise"),
    )


def put_prices(low: float = 80.0, high: float = 140.0, decimals: int = 1) -> FloatArray:
    """The grid of prices of `american_put`."""
    unit = 10**decimals
    prices: FloatArray = np.arange(round(low * unit), round(high * unit) + 1) / unit
    return prices


def random_mdp(
    states: int = 20, actions: int = 3, successors: int = 5, *, seed: int = 0, discount: float = 0.9
) -> FiniteMDP:
    """A random problem (Garnet): every pair leads to `successors` different states, drawn at random.

    Their probabilities are uniform over the simplex, rewards r(s, a) uniform in [0, 1]; nothing ends.

    Args:
        states: S.
        actions: A.
        successors: K, at most S.
        seed: of the draw.
        discount: in [0, 1).

    Raises:
        ConfigError: a size out of range.

    Source: Archibald, McKinnon and Thomas (1995).
    """
    if min(states, actions, successors) < 1 or successors > states:
        raise ConfigError(f"sizes: from 1, and successors <= states; got {states}, {actions}, {successors}")
    generator = np.random.default_rng(seed)
    pairs = states * actions
    after = np.stack([generator.choice(states, successors, replace=False) for _ in range(pairs)])
    law = generator.dirichlet(np.ones(successors), pairs)
    shape = (states, actions, successors)
    rewards = generator.uniform(size=(states, actions))
    return finite_mdp((after.reshape(shape), law.reshape(shape)), rewards, discount)


def three_state_chain(p_success: float = 0.8, *, safe_reward: float = 0.5, discount: float = 0.9) -> FiniteMDP:
    """The smallest problem with a robust choice: in state 0, stay for a little, or climb at a risk.

    State 0 (low): `stay` pays `safe_reward` and stays; `climb` pays 0 and leads to 1 (high) with probability
    `p_success`, else to 2 (lost). State 1 pays 1 for ever, state 2 nothing. So V(1) = 1 / (1 - discount), staying is
    worth safe_reward V(1), climbing discount q V(1), where q is the least probability of success in the ball: it is
    worth the risk while q > safe_reward / discount.

    Args:
        p_success: in [0, 1].
        safe_reward: of staying.
        discount: in [0, 1).

    Raises:
        ConfigError: a probability out of range.

    Source: ours.
    """
    p_success = _share("p_success", p_success)
    law = np.zeros((3, 2, 3))
    law[0, 0, 0] = law[1, :, 1] = law[2, :, 2] = 1.0
    law[0, 1, 1], law[0, 1, 2] = p_success, 1.0 - p_success
    rewards = [[safe_reward, 0.0], [1.0, 1.0], [0.0, 0.0]]
    return finite_mdp(
        law, rewards, discount, terminal=[False, False, True], start=[1.0, 0.0, 0.0], action_names=("stay", "climb")
    )


def _share(name: str, value: float) -> float:
    if not (isinstance(value, int | float | np.floating) and 0.0 <= value <= 1.0):
        raise ConfigError(f"{name}: a probability, in [0, 1]; got {value}")
    return float(value)


def _nearest(prices: FloatArray, factor: float, decimals: int) -> IntArray:
    """(n,) index of the grid's price next to each price times a factor.

    Python rounds the product as the decimal number that it stands for; NumPy scales first, and breaks other ties.
    """
    unit = 10**decimals
    moved = np.array([round(price * factor, decimals) for price in prices.tolist()])
    places: IntArray = np.clip(np.rint(moved * unit) - round(prices[0] * unit), 0, len(prices) - 1).astype(np.int64)
    return places
