"""Episodes as d3rlpy can hold them, row for row.

d3rlpy keeps T observations, actions and rewards an episode and one flag for its end. Its transition i goes from
observation i to observation i + 1, a terminal one to zeros, and an episode that was cut loses its last transition,
since observation T is not kept (`BasicTransitionPicker`, `Episode.transition_count`, 2.8.1). A `Segment` is such an
episode that also keeps what followed its last row, so that nothing is lost, and that ends wherever the data do not go
on: at the end of an episode, at a flag, and at a gap (no true next observation, or one that is not the next row's).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline_robust.datasets.logged import floats
from offline_robust.datasets.spaces import Spaces, infer_action_space, infer_observation_space
from offline_robust.datasets.transitions import TransitionDataset

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Segment:
    """A stretch of T rows in which each row's next observation is the next row's; d3rlpy's `EpisodeBase`."""

    observations: Array
    """(T, O) float32."""
    actions: Array
    """(T, A) float32, or (T, 1) int64 counted from 0."""
    rewards: Array
    """(T, 1) float32."""
    terminated: bool
    """Whether the last row is a true end."""
    last_observation: Array
    """(O,) float32: the observation after the last row; zeros where there is none."""
    last_valid: bool
    """Whether `last_observation` is a true one."""
    truncated: bool
    """Whether the last row carries the flag of a cut."""
    continues: bool
    """Whether the next segment belongs to the same episode."""

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


FLAGS = ("terminated", "last_valid", "truncated", "continues")
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


def join(
    segments: Sequence[Segment],
    *,
    observation_space: gym.spaces.Box | None = None,
    action_space: Spaces | None = None,
    **about: Any,
) -> TransitionDataset:
    """The dataset whose segments these are.

    Args:
        segments: in the order of the rows.
        observation_space: unbounded when None.
        action_space: inferred from the data when None.
        about: the dataset's environment and provenance.

    Raises:
        DatasetError: values are not finite, actions lie outside a discrete space, or widths differ.
    """
    observations = floats(np.concatenate([part.observations for part in segments]))
    after = np.concatenate([observations[1:], observations[:1]])
    rows = np.cumsum([part.size() for part in segments])
    flags = {name: np.zeros(len(observations), bool) for name in ("terminated", "truncated")}
    valid = np.ones(len(observations), bool)
    for part, row in zip(segments, rows - 1, strict=True):
        valid[row] = part.last_valid
        # A filler without meaning, as the readers have it: the row's own observation.
        after[row] = part.last_observation if part.last_valid else observations[row]
        flags["terminated"][row], flags["truncated"][row] = part.terminated, part.truncated
    new = np.cumsum([0] + [not part.continues for part in segments[:-1]])
    actions = np.concatenate([part.actions for part in segments])
    actions = actions[:, 0].astype(np.int64) if actions.dtype.kind in "iu" else floats(actions)
    action_space = action_space if action_space is not None else infer_action_space("actions", actions)
    actions = _fitted(actions, action_space)
    return TransitionDataset(
        observations=torch.from_numpy(observations),
        actions=torch.from_numpy(actions),
        rewards=torch.from_numpy(floats(np.concatenate([part.rewards for part in segments])[:, 0])),
        next_observations=torch.from_numpy(after),
        terminated=torch.from_numpy(flags["terminated"]),
        truncated=torch.from_numpy(flags["truncated"]),
        next_valid=torch.from_numpy(valid),
        episode=torch.from_numpy(np.repeat(new, [part.size() for part in segments]).astype(np.int64)),
        observation_space=observation_space or infer_observation_space(observations.shape[1]),
        action_space=action_space,
        **about,
    )


def _fitted(actions: Array, space: Spaces) -> Array:
    """Actions in the type that the space needs; what does not fit is left for the dataset's checks."""
    if isinstance(space, gym.spaces.Box):
        return floats(actions[:, None]) if actions.ndim == 1 else actions
    if actions.ndim == 2 and actions.shape[1] == 1 and (actions == np.rint(actions)).all():
        actions = actions[:, 0].astype(np.int64)
    return actions + int(space.start)


def _signature(values: Array) -> Any:
    from d3rlpy.dataset import Signature

    return Signature(dtype=[values.dtype], shape=[values.shape[1:]])
