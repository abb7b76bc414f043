"""Episodes as d3rlpy can hold them, row for row.

d3rlpy keeps T observations, actions and rewards an episode and one flag for its end. Its transition i goes from
observation i to observation i + 1, a terminal one to zeros, and an episode that was cut loses its last transition,
since observation T is not kept (`BasicTransitionPicker`, `Episode.transition_count`, 2.8.1). A `Segment` is such an
episode that also keeps what followed its last row, so that nothing is lost, and that ends wherever the data do not go
on: at the end of an episode, at a flag, and at a gap (no true next observation, or one that is not the next row's).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline_robust.datasets.replay_buffers import FLAGS, Stretch
from offline_robust.datasets.transitions import TransitionDataset

Array = NDArray[Any]


class Segment(Stretch):
    """A `Stretch` as d3rlpy's `EpisodeBase`."""

    @property
    def observation_signature(self) -> Any:
        """Shape and type of one observation."""
        return _signature(self.observations)

    @property
    def action_signature(self) -> Any:
        """Shape and type of one action."""
        return _signature(self.actions)

    @property
    def reward_signature(self) -> Any:
        """Shape and type of one reward."""
        return _signature(self.rewards)

    @property
    def transition_count(self) -> int:
        """T, or T - 1 where the last row has no target: nothing true follows it and it is no true end."""
        return len(self.actions) if self.terminated or self.last_valid else len(self.actions) - 1

    def size(self) -> int:
        """T."""
        return len(self.actions)

    def __len__(self) -> int:
        # d3rlpy's evaluators cut len(episode) into windows and fail on one without transitions.
        return self.transition_count

    def compute_return(self) -> float:
        """The undiscounted sum of rewards."""
        return float(np.sum(self.rewards))

    def serialize(self) -> dict[str, Any]:
        """d3rlpy's columns, which its own reader takes, and ours, which it passes over."""
        return {name: getattr(self, name) for name in COLUMNS}

    @classmethod
    def deserialize(cls, serializedData: dict[str, Any]) -> Segment:
        """The inverse of `serialize`, for d3rlpy's reader: ``ReplayBuffer.load(..., episode_cls=Segment)``."""
        columns = {name: serializedData[name] for name in COLUMNS}
        return cls(**columns | {name: bool(columns[name]) for name in FLAGS})


COLUMNS = (
    "observations",
    "actions",
    "rewards",
    "terminated",
    "last_observation",
    "last_valid",
    "truncated",
    "continues",
)


def segment_ends(dataset: TransitionDataset) -> Tensor:
    """(N,) bool: rows after which the data do not go on, within an episode or between two."""
    ends = torch.ones(len(dataset), dtype=torch.bool, device=dataset.device)
    chained = (dataset.next_observations[:-1] == dataset.observations[1:]).all(dim=1) & dataset.next_valid[:-1]
    same = dataset.episode[:-1] == dataset.episode[1:]
    ends[:-1] = ~(same & chained) | dataset.terminated[:-1] | dataset.truncated[:-1]
    return ends


def segment_numbers(ends: Tensor) -> Tensor:
    """(N,) int64 the segment of each row, from 0, given their last rows (N,) bool."""
    return torch.cat([ends.new_zeros(1), ends[:-1]]).cumsum(0)


def segments_of(dataset: TransitionDataset) -> Iterator[Segment]:
    """The dataset's rows in order; arrays are views of its tensors where these lie in main memory."""
    names = ("observations", "actions", "rewards", "next_observations", "terminated", "truncated", "next_valid")
    arrays = {name: getattr(dataset, name).cpu().numpy() for name in names}
    if isinstance(dataset.action_space, gym.spaces.Discrete):
        arrays["actions"] = (arrays["actions"] - int(dataset.action_space.start))[:, None]
    last = np.flatnonzero(segment_ends(dataset).cpu().numpy())
    episode = dataset.episode.cpu().numpy()
    for begin, row in zip([0, *(last[:-1] + 1)], last, strict=True):
        rows, valid = slice(begin, row + 1), bool(arrays["next_valid"][row])
        after = arrays["next_observations"][row]
        yield Segment(
            observations=arrays["observations"][rows],
            actions=arrays["actions"][rows],
            rewards=arrays["rewards"][rows, None],
            terminated=bool(arrays["terminated"][row]),
            last_observation=after if valid else np.zeros_like(after),
            last_valid=valid,
            truncated=bool(arrays["truncated"][row]),
            continues=bool(row + 1 < len(episode) and episode[row + 1] == episode[row]),
        )


def _signature(values: Array) -> Any:
    from d3rlpy.dataset import Signature

    return Signature(dtype=[values.dtype], shape=[values.shape[1:]])
