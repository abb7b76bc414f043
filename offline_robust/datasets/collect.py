"""Rolls a policy in an environment and keeps what happened."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from offline_robust.datasets.logged import Array
from offline_robust.datasets.spaces import Spaces, vector_space
from offline_robust.datasets.transitions import TransitionDataset
from offline_robust.errors import DatasetError
from offline_robust.networks import Policy

_BLOCK = 64
"""Rows of one policy forward; see `_Actor`."""
_DRAWS = 256
"""Steps of exploration noise drawn at a time."""
_START, _NOISE = 0, 1
"""Streams of an episode: its start state, its exploration noise."""


@dataclass
class _Rollout:
    """One episode as it grows."""

    number: int
    env: gym.Env[Any, Any]
    observation: Array
    noise: np.random.Generator
    draws: Array
    observations: list[Array] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False

    def draw(self) -> Array:
        """The next row of noise: the coin, then a uniform number for each action dimension."""
        step = len(self.rewards) % _DRAWS
        if step == 0 and self.rewards:
            self.draws = self.noise.random(self.draws.shape)
        row: Array = self.draws[step]
        return row


class _Actor:
    """The policy in float64, in forwards of always the same shape.

    A matrix product rounds differently when its number of rows changes. Episode e therefore always sits in row
    e mod 64 of a forward with 64 rows, however many episodes run at once; and in float64 what another processor
    rounds differently is lost when the action becomes float32.
    """

    def __init__(self, policy: Policy) -> None:
        self.actor = copy.deepcopy(policy.actor).double().cpu()
        self.width = policy.spec.observation_dim

    @torch.no_grad()
    def __call__(self, numbers: Array, observations: Array) -> NDArray[np.float32]:
        """Deterministic actions (B, A) of the episodes ``numbers`` (B,) at ``observations`` (B, O)."""
        slots = numbers % _BLOCK
        order = np.argsort(slots, kind="stable")
        ranked = slots[order]
        turn = np.empty(len(slots), np.int64)
        turn[order] = np.arange(len(slots)) - np.searchsorted(ranked, ranked)
        actions: NDArray[np.float32] | None = None
        for now in range(int(turn.max()) + 1):
            rows = turn == now
            block = torch.zeros((_BLOCK, self.width), dtype=torch.float64)
            block[torch.from_numpy(slots[rows])] = torch.from_numpy(observations[rows].astype(np.float64))
            out = self.actor(block).numpy().astype(np.float32)[slots[rows]]
            actions = np.empty((len(slots), out.shape[1]), np.float32) if actions is None else actions
            actions[rows] = out
        assert actions is not None
        return actions


def collect(
    policy: Policy | None,
    env_id: str,
    *,
    transitions: int,
    epsilon: float = 0.0,
    seed: int = 0,
    parallel: int = 64,
    env_kwargs: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> TransitionDataset:
    """Collects transitions with a policy's mean action, replaced by a uniform one with probability ``epsilon``.

    Start state and noise of an episode come from their own streams, `SeedSequence([seed, episode, stream])`, so that
    the result does not depend on ``parallel``. Rows are ordered by episode; the last episode is cut (truncated) so
    that the number of rows is exact. It repeats bit for bit on the same library versions and kind of processor.

    Args:
        policy: the behaviour policy; None acts uniformly at random.
        env_id: a registered Gymnasium environment with vector observations and Box or Discrete actions.
        transitions: N, the number of rows.
        epsilon: probability of a uniform action, step by step.
        seed: of all streams.
        parallel: environments that are advanced together.
        env_kwargs: for `gym.make`.
        progress: called with the number of rows so far.

    Raises:
        DatasetError: the environment cannot be made, has other spaces, or does not fit the policy.
    """
    if transitions < 1 or not 0.0 <= epsilon <= 1.0 or parallel < 1 or seed < 0:
        raise DatasetError(
            f"collect needs transitions >= 1, epsilon in [0, 1], parallel >= 1 and seed >= 0, not {transitions}, "
            f"{epsilon}, {parallel} and {seed}"
        )
    kwargs = dict(env_kwargs or {})
    with _environments(env_id, kwargs, parallel, transitions) as envs:
        observation_space = vector_space(f"{env_id}: observation space", envs[0].observation_space)
        action_space = vector_space(f"{env_id}: action space", envs[0].action_space)
        _check_fit(policy, env_id, observation_space, action_space)
        with _one_thread():
            rollouts = _roll(policy, envs, action_space, transitions, epsilon, seed, progress)
    assert isinstance(observation_space, gym.spaces.Box)
    about = {"source": "collect", "policy": "given" if policy else "uniform", "epsilon": epsilon, "seed": seed}
    return _join(rollouts, transitions, observation_space, action_space, env_id, kwargs, about)


def _roll(
    policy: Policy | None,
    envs: list[gym.Env[Any, Any]],
    space: Spaces,
    transitions: int,
    epsilon: float,
    seed: int,
    progress: Callable[[int], None] | None,
) -> list[_Rollout]:
    """Runs episodes 0, 1, 2, ... until the first of them, in order, hold enough rows."""
    actor = _Actor(policy) if policy is not None else None
    width = space.shape[0] if isinstance(space, gym.spaces.Box) else 1
    done: list[_Rollout] = []
    live = [_begin(number, env, seed, width) for number, env in enumerate(envs)]
    begun, rows, told = len(live), 0, 0
    while live:
        numbers = np.array([rollout.number for rollout in live])
        greedy = actor(numbers, np.stack([rollout.observation for rollout in live])) if actor is not None else None
        for index, rollout in enumerate(live):
            _step(rollout, None if greedy is None else greedy[index], space, epsilon)
        rows += len(live)
        running = []
        for rollout in live:
            # Beyond the rows that are asked for, nothing of an episode can be in the result.
            if not (rollout.terminated or rollout.truncated or len(rollout.rewards) >= transitions):
                running.append(rollout)
                continue
            done.append(rollout)
            # All rows begun so far belong to episodes 0..begun-1: with enough of them no other episode is needed.
            if rows < transitions:
                running.append(_begin(begun, rollout.env, seed, width))
                begun += 1
        live = running
        if progress is not None and rows - told >= 1_000:
            told = rows
            progress(min(rows, transitions))
    return sorted(done, key=lambda rollout: rollout.number)


def _begin(number: int, env: gym.Env[Any, Any], seed: int, width: int) -> _Rollout:
    start = int(np.random.SeedSequence([seed, number, _START]).generate_state(1)[0])
    observation = np.asarray(env.reset(seed=start)[0], dtype=np.float32)
    noise = np.random.default_rng(np.random.SeedSequence([seed, number, _NOISE]))
    return _Rollout(number, env, observation, noise, noise.random((_DRAWS, 1 + width)), [observation])


def _step(rollout: _Rollout, greedy: Array | None, space: Spaces, epsilon: float) -> None:
    noise = rollout.draw()
    action: Any = greedy
    if greedy is None or noise[0] < epsilon:
        if isinstance(space, gym.spaces.Box):
            action = (space.low + noise[1:] * (space.high - space.low)).astype(np.float32)
        else:
            action = int(space.start) + int(noise[1] * int(space.n))
    after, reward, rollout.terminated, rollout.truncated, _ = rollout.env.step(
        action.astype(space.dtype) if isinstance(space, gym.spaces.Box) else action
    )
    rollout.observation = np.asarray(after, dtype=np.float32)
    rollout.observations.append(rollout.observation)
    rollout.actions.append(action)
    rollout.rewards.append(float(reward))


def _join(
    rollouts: list[_Rollout],
    transitions: int,
    observation_space: gym.spaces.Box,
    action_space: Spaces,
    env_id: str,
    env_kwargs: dict[str, Any],
    about: dict[str, Any],
) -> TransitionDataset:
    """Concatenates the first ``transitions`` rows."""
    lengths = np.array([len(rollout.rewards) for rollout in rollouts])
    count = int(np.searchsorted(np.cumsum(lengths), transitions)) + 1
    rollouts, lengths = rollouts[:count], lengths[:count]
    total = int(lengths.sum())
    rows = np.arange(total) + np.repeat(np.arange(count), lengths)
    joined = np.concatenate([np.stack(rollout.observations) for rollout in rollouts])
    ends = np.cumsum(lengths) - 1
    terminated, truncated = np.zeros(total, bool), np.zeros(total, bool)
    terminated[ends] = [rollout.terminated for rollout in rollouts]
    truncated[ends] = [rollout.truncated or not rollout.terminated for rollout in rollouts]
    if total > transitions:
        truncated[transitions - 1] = True
    kind: Any = np.float32 if isinstance(action_space, gym.spaces.Box) else np.int64
    actions = np.concatenate([np.asarray(rollout.actions, dtype=kind) for rollout in rollouts])
    rewards = np.concatenate([np.asarray(rollout.rewards, dtype=np.float32) for rollout in rollouts])
    episode = np.repeat(np.arange(count), lengths)

    def tensor(values: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values[:transitions]))

    return TransitionDataset(
        observations=tensor(joined[rows]),
        actions=tensor(actions),
        rewards=tensor(rewards),
        next_observations=tensor(joined[rows + 1]),
        terminated=tensor(terminated),
        truncated=tensor(truncated),
        next_valid=tensor(np.ones(total, bool)),
        episode=tensor(episode),
        observation_space=observation_space,
        action_space=action_space,
        env_id=env_id,
        env_kwargs=env_kwargs,
        provenance=about,
    )


def _check_fit(policy: Policy | None, env_id: str, observation_space: Spaces, action_space: Spaces) -> None:
    if isinstance(action_space, gym.spaces.Box) and not np.isfinite([action_space.low, action_space.high]).all():
        raise DatasetError(f"{env_id}: the action space {action_space} has no bounds to explore between")
    if policy is None:
        return
    spec = policy.spec
    fits = isinstance(action_space, gym.spaces.Box) and action_space.shape == (spec.action_dim,)
    if not fits or observation_space.shape != (spec.observation_dim,):
        raise DatasetError(
            f"the policy takes {spec.observation_dim} observations and gives {spec.action_dim} actions; {env_id} has "
            f"{observation_space} and {action_space}"
        )


@contextmanager
def _environments(env_id: str, kwargs: dict[str, Any], parallel: int, most: int) -> Iterator[list[gym.Env[Any, Any]]]:
    envs: list[gym.Env[Any, Any]] = []
    try:
        try:
            envs.extend(gym.make(env_id, **kwargs) for _ in range(min(parallel, most)))
        except Exception as error:  # unknown id, missing simulator, wrong keyword
            reason = str(error).splitlines()[0] if str(error) else ""
            raise DatasetError(f"{env_id}: cannot be made ({type(error).__name__}: {reason})") from None
        yield envs
    finally:
        for env in envs:
            env.close()  # type: ignore[no-untyped-call]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small forwards are fastest, and always rounded alike, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
