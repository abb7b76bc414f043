"""Building a d3rlpy algorithm of a resolved configuration, with its scalers fitted on our data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline_robust.baselines.fields import SPACE, build
from offline_robust.baselines.names import require_d3rlpy
from offline_robust.baselines.streams import PrivateStream
from offline_robust.datasets.spaces import Spaces
from offline_robust.datasets.transitions import TransitionDataset
from offline_robust.errors import ConfigError

_PATH = "learner.config"

_FEW = 8
"""Actions whose bounds a message writes out."""


def make_algorithm(
    name: str,
    resolved: Mapping[str, Any],
    sizes: tuple[int, int],
    action_space: Spaces | None,
    device: torch.device,
    stream: PrivateStream,
    fit: Callable[[Any], None] | None = None,
    actions: NDArray[np.float32] | None = None,
) -> Any:
    """A d3rlpy algorithm with fresh networks.

    Args:
        name: d3rlpy's name of it.
        resolved: as `resolve` gives it.
        sizes: width of observations, and of actions or their number.
        action_space: what ``action_scaler: space`` takes its bounds from.
        device: of the networks.
        stream: draws the weights.
        fit: fits the scalers of the config; None where they are fitted already.
        actions: (N, A), the data's; they decide what to advise where the space has no bounds to scale by.

    Raises:
        ConfigError: d3rlpy refuses a value.
        MissingExtra: d3rlpy is not installed.
    """
    d3rlpy = require_d3rlpy(f"learner d3rlpy:{name}")
    values = dict(resolved)
    if values["action_scaler"]["type"] == SPACE:
        values["action_scaler"] = space_scaler(action_space, actions)
    try:
        config = build(getattr(d3rlpy.algos, f"{name}Config"), values)
        if fit is not None:
            fit(config)
        algorithm = config.create(device=str(device))
        if name == "PRDC":
            algorithm._nbsr = _neighbours()  # d3rlpy shares one among all its instances
        with stream.active():
            algorithm.create_impl((sizes[0],), sizes[1])
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(f"{_PATH}: d3rlpy refuses this configuration of {name}: {said}") from None
    return algorithm


def space_scaler(space: Spaces | None, actions: NDArray[np.float32] | None = None) -> dict[str, Any]:
    """d3rlpy's policies act within [-1, 1]; what maps that to the action space, or nothing where it is the same.

    Raises:
        ConfigError: the space has no bounds, or none but the one value that the data hold.
    """
    if not isinstance(space, gym.spaces.Box):
        return {"type": "none", "params": {}}
    low, high = np.asarray(space.low, np.float32), np.asarray(space.high, np.float32)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        mend = "set it to min_max, which spans the data's actions, or to none"
        if actions is not None and (actions.min(axis=0) == actions.max(axis=0)).any():
            mend = f"{_give_bounds(actions.min(axis=0), actions.max(axis=0))}, or set it to none"
        raise ConfigError(f"{_PATH}.action_scaler: the action space {space} has no bounds to scale by; {mend}")
    if not (low < high).all():
        still = np.flatnonzero(low == high)[0]
        raise ConfigError(
            f"{_PATH}.action_scaler: action {still} is {low[still]:g} throughout the data, and nothing says how far it "
            f"could go; {_give_bounds(low, high)}"
        )
    if (low == -1.0).all() and (high == 1.0).all():
        return {"type": "none", "params": {}}
    return {"type": "min_max", "params": {"minimum": low.tolist(), "maximum": high.tolist()}}


def fit_scalers(config: Any, dataset: TransitionDataset, rewards: Tensor) -> None:
    """Fits a config's scalers on all usable rows, as d3rlpy does transition by transition.

    Args:
        config: d3rlpy's; its scalers change in place. Those whose values are given stay as they are.
        dataset: continuous or discrete; (N, O) observations.
        rewards: (N,) as the learner sees them.

    Raises:
        ConfigError: the data do not vary where a scaler divides by their range.
    """
    usable = dataset.usable_rows
    rows = torch.arange(len(dataset), device=dataset.device) if usable is None else usable
    observations = dataset.observations[rows].cpu().numpy()
    if (scaler := config.observation_scaler) is not None and not scaler.built:
        _fit_vectors(scaler, observations, "observation")
    if (scaler := config.action_scaler) is not None and not scaler.built:
        _fit_vectors(scaler, dataset.actions[rows].cpu().numpy(), "action", dataset.action_space)
    if (scaler := config.reward_scaler) is not None and not scaler.built:
        _fit_rewards(scaler, rewards[rows].double(), dataset.episode[rows])


def fit_neighbours(algorithm: Any, dataset: TransitionDataset) -> None:
    """PRDC's index of scaled (beta * observation, action) pairs over all usable rows."""
    usable = dataset.usable_rows
    rows = slice(None) if usable is None else usable
    observations, actions = dataset.observations[rows].cpu().numpy(), dataset.actions[rows].cpu().numpy()
    if algorithm.observation_scaler is not None:
        observations = algorithm.observation_scaler.transform_numpy(observations)
    if algorithm.action_scaler is not None:
        actions = algorithm.action_scaler.transform_numpy(actions)
    algorithm._nbsr.fit(np.concatenate([observations * algorithm.config.beta, actions], axis=1))


def _fit_vectors(scaler: Any, values: NDArray[np.float32], what: str, space: Spaces | None = None) -> None:
    if scaler.get_type() == "standard":
        scaler.mean, scaler.std = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
        return
    scaler.minimum, scaler.maximum = values.min(axis=0), values.max(axis=0)
    constant = np.flatnonzero(scaler.minimum == scaler.maximum)
    if len(constant):
        mend = "use standard" if what == "observation" else _give_bounds(scaler.minimum, scaler.maximum)
        if isinstance(space, gym.spaces.Box) and np.isfinite([space.low, space.high]).all():
            mend = "use space" if (space.low < space.high).all() else mend
        raise ConfigError(f"{_PATH}.{what}_scaler: min_max divides by zero: {what} {constant[0]} never changes; {mend}")


def _give_bounds(low: NDArray[np.float32], high: NDArray[np.float32]) -> str:
    """Half a sentence with a scaler that works: the data's bounds, one to either side of what never changes."""
    still = low == high
    ends = [np.where(still, low + side, end).tolist() for side, end in ((-1, low), (1, high))]
    if len(low) > _FEW:
        return f"give its bounds: {{type: min_max, minimum: [...], maximum: [...]}} with {len(low)} numbers each"
    minimum, maximum = ("[" + ", ".join(f"{value:.6g}" for value in end) + "]" for end in ends)
    return f"give its bounds, for example {{type: min_max, minimum: {minimum}, maximum: {maximum}}}"


def _fit_rewards(scaler: Any, rewards: Tensor, episode: Tensor) -> None:
    kind = scaler.get_type()
    if kind == "return":
        returns = torch.zeros(int(episode[-1]) + 1, dtype=torch.float64, device=rewards.device)
        rewards = returns.index_add_(0, episode, rewards)[torch.unique_consecutive(episode)]
    low, high = float(rewards.min()), float(rewards.max())
    if kind == "standard":
        scaler.mean, scaler.std = float(rewards.mean()), float(rewards.std(correction=0))
        return
    if low == high:
        raise ConfigError(f"{_PATH}.reward_scaler: {kind} divides by zero: all of them are {low:g}; use multiply")
    names = ("return_min", "return_max") if kind == "return" else ("minimum", "maximum")
    for name, value in zip(names, (low, high), strict=True):
        setattr(scaler, name, value)


def _neighbours() -> Any:
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=1, algorithm="auto", n_jobs=torch.get_num_threads())
