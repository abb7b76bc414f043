"""Our datasets as d3rlpy's replay buffers, and back: there and back is exact, row for row.

d3rlpy's own Minari reader is never called: it shifts rows against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from offline_robust.baselines.names import require_d3rlpy
from offline_robust.baselines.segments import Segment, segments_of
from offline_robust.datasets.load import finish
from offline_robust.datasets.replay_buffers import read_replay_buffer
from offline_robust.datasets.spaces import Spaces
from offline_robust.datasets.transitions import TransitionDataset
from offline_robust.environment import EnvironmentSpec
from offline_robust.errors import DatasetError


def to_replay_buffer(dataset: TransitionDataset, *, next_actions: bool = False) -> Any:
    """A d3rlpy `ReplayBuffer` with one transition for every usable row of the dataset, in the same order.

    True terminal next observations and the last transitions of cut episodes are kept, which d3rlpy's own episodes lose;
    a terminal row without one has zeros, as in d3rlpy. The action space and its size are stated, never guessed: d3rlpy
    takes actions that happen to be whole numbers for discrete ones. Discrete actions count from 0.

    Args:
        dataset: what to convert.
        next_actions: leave out rows whose next action was not logged and which are no true end. ReBRAC alone looks at
            next actions; elsewhere such rows have zeros there.

    Raises:
        DatasetError: no row is usable.
        MissingExtra: d3rlpy is not installed.
    """
    d3rlpy = require_d3rlpy("a d3rlpy replay buffer")
    _ = dataset.usable_rows
    buffer = _Rows(list(segments_of(dataset)), next_actions)
    if not len(buffer):
        raise DatasetError("no row has a next action or a true end: there is nothing to learn from")
    first = buffer.episodes[0]
    spaces = d3rlpy.ActionSpace
    return d3rlpy.dataset.ReplayBuffer(
        buffer,
        transition_picker=TrueNextPicker(),
        observation_signature=first.observation_signature,
        action_signature=first.action_signature,
        reward_signature=first.reward_signature,
        action_space=spaces.DISCRETE if dataset.discrete else spaces.CONTINUOUS,
        action_size=dataset.action_dim,
    )


def from_replay_buffer(
    buffer: Any,
    *,
    observation_space: gym.spaces.Box | None = None,
    action_space: Spaces | None = None,
    env: str | EnvironmentSpec | None = None,
) -> TransitionDataset:
    """The dataset of a d3rlpy replay buffer: `to_replay_buffer`'s, or one of d3rlpy's own making.

    An episode of d3rlpy's own keeps every row; its last one has no true next observation (unless the episode holds
    T + 1 observations) and is terminated or, where it is not, truncated.

    Args:
        buffer: anything with ``episodes`` and ``dataset_info``.
        observation_space: unbounded when None and no environment is named.
        action_space: as many discrete actions as the buffer says, or the box that the data span, when None.
        env: the environment of the data, an id or a whole description; gives the spaces where they are not given.

    Raises:
        DatasetError: observations that are not vectors, values that are not finite, or no episode.
    """
    logged = read_replay_buffer(buffer)
    logged.observation_space, logged.action_space = observation_space, action_space
    return finish(logged, env)


class TrueNextPicker:
    """d3rlpy's `TransitionPickerProtocol` for `Segment`: what truly followed each row, also the last."""

    def __call__(self, episode: Segment, index: int) -> Any:
        """The transition of a row; d3rlpy's zeros where nothing is known of what followed."""
        from d3rlpy.dataset import Transition

        last = index + 1 == episode.size()
        return Transition(
            observation=episode.observations[index],
            action=episode.actions[index],
            reward=episode.rewards[index],
            next_observation=episode.last_observation if last else episode.observations[index + 1],
            next_action=np.zeros_like(episode.actions[index]) if last else episode.actions[index + 1],
            terminal=float(episode.terminated and last),
            interval=1,
            rewards_to_go=episode.rewards[index:],
        )


class _Rows:
    """d3rlpy's `BufferProtocol` over segments; unlike its own it keeps episodes without a usable row."""

    def __init__(self, segments: Sequence[Segment], next_actions: bool) -> None:
        self.episodes = list(segments)
        self._rows = [
            (segment, index)
            for segment in segments
            for index in range(segment.transition_count)
            if not next_actions or segment.terminated or index + 1 < segment.size()
        ]

    def append(self, episode: Segment, index: int) -> None:
        """Adds a transition, as d3rlpy's writers do."""
        self._rows.append((episode, index))
        if not self.episodes or episode is not self.episodes[-1]:
            self.episodes.append(episode)

    @property
    def transition_count(self) -> int:
        """Transitions that can be drawn."""
        return len(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Segment, int]:
        return self._rows[index]
