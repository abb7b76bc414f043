"""Whether the environment of the data is the one that is there: asked before anything is trained."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from offline_robust.datasets import TransitionDataset
from offline_robust.datasets.origins import switch_words
from offline_robust.environment import EnvironmentSpec
from offline_robust.environment.making import EnvironmentMissing
from offline_robust.envs import System, system
from offline_robust.errors import ConfigError, EvaluationError


def confirm(dataset: TransitionDataset, said: bool) -> list[str]:
    """Makes the environment of a dataset, where it can be made here, and compares it with the data.

    Args:
        dataset: with its environment.
        said: whether the user's configuration names the environment, and not the data alone.

    Returns:
        What to warn of: that it is not there, since training itself needs no simulator.

    Raises:
        ConfigError: the environment and the data differ, a wrapper cannot be made again, or the one that the user
            named is not there.
    """
    environment = dataset.environment
    if environment is None:
        return []
    try:
        of = system(environment)
    except EnvironmentMissing as error:
        if said:
            raise ConfigError(str(error)) from None
        return [f"trained without a look at the environment, which evaluation will need: {error}"]
    except EvaluationError as error:
        raise ConfigError(str(error)) from None
    if difference := _difference(dataset, of, environment):
        raise ConfigError(difference)
    return []


def _difference(dataset: TransitionDataset, of: System, environment: EnvironmentSpec) -> str:
    inferred = " ".join(str(text) for text in dataset.provenance.get("inferred", ()))
    width = of.observation_space.shape
    if width != (dataset.observation_dim,):
        return (
            f"the data have observations of {dataset.observation_dim} numbers and {environment} gives "
            f"{width[0] if width else 0}: {switch_words(environment, dataset.observation_dim) or _way(environment)}"
        )
    ours, theirs = dataset.action_space, of.action_space
    if isinstance(ours, gym.spaces.Discrete) or isinstance(theirs, gym.spaces.Discrete):
        same = ours == theirs
    else:
        assert isinstance(theirs, gym.spaces.Box)
        bounds = "action_space" in inferred or all(
            np.allclose(a.astype(np.float32), b.astype(np.float32), rtol=1e-6)
            for a, b in ((ours.low, theirs.low), (ours.high, theirs.high))
        )
        same = ours.shape == theirs.shape and bounds
    return "" if same else f"the data have the actions {ours} and {environment} takes {theirs}: {_way(environment)}"


def _way(environment: EnvironmentSpec) -> str:
    words = {
        "the configuration": "another environment is named in the configuration's env than the data come from",
        "env": "another environment is named than the data come from",
    }
    return words.get(environment.source, f"they are not of one environment, as {environment.source or 'the data'} says")
