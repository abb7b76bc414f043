"""What is in a dataset, in numbers: `data info`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from offline_robust.datasets.transitions import TENSORS, TransitionDataset
from offline_robust.environment import dimension_names

BINS = 20
"""Bins per action dimension of the coverage entropy."""
_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def describe(dataset: TransitionDataset) -> dict[str, Any]:
    """Sizes, returns, ends, per-dimension statistics and coverage; plain numbers, ready for JSON.

    Returns:
        A nested dictionary. Returns are undiscounted and raw. ``coverage`` says how much of the action space the
        data use: per dimension the share of the space's range between the smallest and largest action, and the
        entropy of a `BINS`-bin histogram over that range divided by log(BINS) (1: uniform, 0: a single bin); for
        discrete actions the same of the action counts. ``observation_names`` names the dimensions where the
        environment has named parts. ``one_step_change_std`` is the standard deviation of
        s' - s per dimension over rows with a true next observation (None when there is none).
    """
    arrays = {name: getattr(dataset, name).cpu().numpy() for name in TENSORS}
    returns = dataset.episode_returns().cpu().numpy()
    lengths = np.bincount(arrays["episode"])
    last = np.r_[np.diff(arrays["episode"]) != 0, True]
    valid = arrays["next_valid"]
    change = (arrays["next_observations"].astype(np.float64) - arrays["observations"])[valid]
    names = dimension_names(dataset.environment.observation_space) if dataset.environment is not None else None
    return {
        "provenance": dict(dataset.provenance),
        "env_id": dataset.env_id,
        "environment": None if dataset.environment is None else str(dataset.environment),
        "observation_names": None if names is None else list(names),
        "observation_space": str(dataset.observation_space),
        "action_space": str(dataset.action_space),
        "transitions": len(dataset),
        "episodes": dataset.episodes,
        "observation_dim": dataset.observation_dim,
        "action_dim": dataset.action_dim,
        "discrete": dataset.discrete,
        "memory_bytes": sum(array.nbytes for array in arrays.values()),
        "returns": _spread(returns),
        "episode_lengths": _spread(lengths),
        "rewards": _spread(arrays["rewards"]),
        "episodes_terminated": float(arrays["terminated"][last].mean()),
        "episodes_truncated": float((arrays["truncated"] & ~arrays["terminated"])[last].mean()),
        "rows_without_next_observation": int((~valid).sum()),
        "observations": _dimensions(arrays["observations"]),
        "actions": _action_counts(dataset, arrays["actions"]) if dataset.discrete else _dimensions(arrays["actions"]),
        "coverage": _coverage(dataset, arrays["actions"]),
        "one_step_change_std": change.std(axis=0).tolist() if len(change) else None,
        "fingerprint": dataset.fingerprint,
    }


def _spread(values: NDArray[Any]) -> dict[str, float]:
    values = values.astype(np.float64)
    quantiles = np.quantile(values, _QUANTILES)
    named = {f"q{round(100 * q):02d}": float(value) for q, value in zip(_QUANTILES, quantiles, strict=True)}
    return {"mean": float(values.mean()), "std": float(values.std()), **named}


def _dimensions(values: NDArray[Any]) -> list[dict[str, float]]:
    """Mean, std, min and max of each column, in float64."""
    wide = values.astype(np.float64)
    columns = zip(wide.mean(0), wide.std(0), wide.min(0), wide.max(0), strict=True)
    return [{"mean": float(a), "std": float(b), "min": float(c), "max": float(d)} for a, b, c, d in columns]


def _action_counts(dataset: TransitionDataset, actions: NDArray[Any]) -> list[dict[str, float]]:
    assert isinstance(dataset.action_space, gym.spaces.Discrete)
    counts = np.bincount(actions - int(dataset.action_space.start), minlength=int(dataset.action_space.n))
    return [{"count": int(count), "share": float(count / len(actions))} for count in counts]


def _coverage(dataset: TransitionDataset, actions: NDArray[Any]) -> list[dict[str, float | None]]:
    space = dataset.action_space
    if isinstance(space, gym.spaces.Discrete):
        counts = np.bincount(actions - int(space.start), minlength=int(space.n))
        return [{"share_of_range": float((counts > 0).mean()), "entropy": _entropy(counts)}]
    covered: list[dict[str, float | None]] = []
    for values, low, high in zip(actions.T.astype(np.float64), space.low, space.high, strict=True):
        bounded = np.isfinite(low) and np.isfinite(high) and high > low
        begin, end = (float(low), float(high)) if bounded else (float(values.min()), float(values.max()))
        inside = np.clip(values, begin, end)
        share = float((inside.max() - inside.min()) / (end - begin)) if bounded else None
        counts = np.histogram(inside, BINS, (begin, end))[0] if end > begin else np.eye(1, BINS, dtype=np.int64)[0]
        covered.append({"share_of_range": share, "entropy": _entropy(counts)})
    return covered


def _entropy(counts: NDArray[Any]) -> float:
    """Entropy of a histogram over the entropy of the uniform one: within [0, 1]."""
    if len(counts) < 2:
        return 0.0
    share = counts[counts > 0] / counts.sum()
    return float(np.clip(-(share * np.log(share)).sum() / np.log(len(counts)), 0.0, 1.0))
