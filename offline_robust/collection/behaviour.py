"""What acts while data are collected: a policy, its exploration, and the random streams of every episode."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from offline_robust.datasets.logged import Array
from offline_robust.datasets.spaces import Spaces
from offline_robust.networks import Policy

_BLOCK = 64
"""Rows of one policy forward; see `_Actor`."""
_DRAWS = 256
"""Steps of noise drawn at a time."""
_START, _NOISE, _POLICY = 0, 1, 2
"""Streams of an episode: its start state, its exploration noise, the draws of a stochastic policy."""


class Behaviour:
    """A policy that is replaced by a uniform action with probability epsilon, step by step.

    Each episode has streams of its own, `SeedSequence([seed, episode, stream, part])`. (Zeros at the end of a seed
    sequence say nothing, so that part 0 has the streams `[seed, episode, stream]`.)

    Args:
        policy: None acts uniformly at random.
        space: of the actions.
        epsilon: probability of a uniform action.
        stochastic: whether the policy's action is drawn from its distribution rather than its mean.
        seed: of all streams.
        part: of a mixture; parts share no stream.
    """

    def __init__(
        self, policy: Policy | None, space: Spaces, epsilon: float, stochastic: bool, seed: int, part: int
    ) -> None:
        self._actor = _Actor(policy, stochastic) if policy is not None else None
        self._space, self._epsilon, self._seed, self._part = space, epsilon, seed, part
        self._width = space.shape[0] if isinstance(space, gym.spaces.Box) else 1
        self._stochastic = stochastic
        self.begin([])

    def begin(self, numbers: Sequence[int]) -> list[int]:
        """Takes up the episodes of these numbers from their first step on, and returns the seeds of their starts."""
        self._numbers = np.array(numbers, np.int64)
        streams = (_NOISE, _POLICY) if self._stochastic else (_NOISE,)
        self._generators = [[np.random.default_rng(self._seeds(n, s)) for s in streams] for n in numbers]
        self._uniform = np.zeros((len(numbers), _DRAWS, 1 + self._width))
        self._normal = np.zeros((len(numbers), _DRAWS if self._stochastic else 0, self._width))
        return [int(self._seeds(number, _START).generate_state(1)[0]) for number in numbers]

    def act(self, rows: Array, observations: Array, step: int) -> Array:
        """Actions (M, A) float32, or (M,) int64, of the episodes at ``rows`` (M,) of those taken up.

        Args:
            rows: which episodes act.
            observations: (M, O), theirs.
            step: the same for all; every step from 0 on has to be asked for.
        """
        if step % _DRAWS == 0:
            self._draw(rows)
        noise = self._uniform[rows, step % _DRAWS]
        space = self._space
        if isinstance(space, gym.spaces.Box):
            uniform: Array = (space.low + noise[:, 1:] * (space.high - space.low)).astype(np.float32)
        else:
            uniform = int(space.start) + (noise[:, 1] * int(space.n)).astype(np.int64)
        if self._actor is None:
            return uniform
        normal = self._normal[rows, step % _DRAWS] if self._stochastic else None
        chosen = self._actor(self._numbers[rows], observations, normal)
        explore = noise[:, 0] < self._epsilon
        return np.where(explore[:, None] if chosen.ndim == 2 else explore, uniform, chosen)

    def _draw(self, rows: Array) -> None:
        """The next steps' noise: the coin, then a uniform number for each action dimension; the policy's draws."""
        for row in rows:
            generators = self._generators[row]
            self._uniform[row] = generators[0].random(self._uniform.shape[1:])
            if self._stochastic:
                self._normal[row] = generators[1].standard_normal(self._normal.shape[1:])

    def _seeds(self, number: int, stream: int) -> np.random.SeedSequence:
        return np.random.SeedSequence([self._seed, number, stream, self._part])


class _Actor:
    """The policy in float64, in forwards of always the same shape.

    A matrix product rounds differently when its number of rows changes. Episode e therefore always sits in row
    e mod 64 of a forward with 64 rows, however many episodes run at once; and in float64 what another processor
    rounds differently is lost when the action becomes float32.
    """

    def __init__(self, policy: Policy, stochastic: bool) -> None:
        self._act = policy.in_float64(stochastic)
        # Arrays and tensors share their memory; rows that no episode sits in hold figures nobody reads.
        self._observations = np.zeros((_BLOCK, policy.spec.observation_dim))
        self._normal = np.zeros((_BLOCK, policy.spec.action_dim))
        self._numbers: NDArray[np.int64] = np.zeros(0, np.int64)
        self._turns: list[tuple[Array, Array]] = []

    @torch.no_grad()
    def __call__(self, numbers: Array, observations: Array, normal: Array | None) -> Array:
        """Actions (M, A) float32 or (M,) int64 of the episodes ``numbers`` (M,) at ``observations`` (M, O)."""
        if not np.array_equal(numbers, self._numbers):
            self._numbers, self._turns = numbers, _turns(numbers % _BLOCK)
        actions: Array | None = None
        for rows, slots in self._turns:
            self._observations[slots] = observations[rows]
            if normal is not None:
                self._normal[slots] = normal[rows]
            out = self._forward()[slots]
            actions = np.empty((len(numbers), *out.shape[1:]), out.dtype) if actions is None else actions
            actions[rows] = out
        assert actions is not None
        return actions

    def _forward(self) -> Array:
        out = self._act(torch.from_numpy(self._observations), torch.from_numpy(self._normal))
        return out.float().numpy() if out.is_floating_point() else out.numpy()


def _turns(slots: Array) -> list[tuple[Array, Array]]:
    """Splits rows (M,) into forwards that hold no slot twice: pairs of the rows and their slots."""
    order = np.argsort(slots, kind="stable")
    ranked = slots[order]
    turn = np.empty(len(slots), np.int64)
    turn[order] = np.arange(len(slots)) - np.searchsorted(ranked, ranked)
    return [(rows := np.flatnonzero(turn == now), slots[rows]) for now in range(int(turn.max()) + 1)]
