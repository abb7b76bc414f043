"""Wrappers made again from what a file says of them: Gymnasium's own, and those of modules that the user named."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from offline_robust.environment.imports import named_by_user
from offline_robust.environment.spaces import flat_actions, flat_observations
from offline_robust.environment.spec import WrapperSpec
from offline_robust.errors import EvaluationError

Env = gym.Env[Any, Any]

TRANSPARENT = frozenset(
    {
        "OrderEnforcing",
        "PassiveEnvChecker",
        "RecordEpisodeStatistics",
        "RecordVideo",
        "HumanRendering",
        "RenderCollection",
        "Autoreset",
        "AutoResetWrapper",
    }
)
"""They change no figure of an episode and are left out."""

_MADE_AGAIN: dict[str, str] = {
    "TimeLimit": "TimeLimit",
    "RescaleAction": "RescaleAction",
    "ClipAction": "ClipAction",
    "StickyAction": "StickyAction",
    "FlattenObservation": "FlattenObservation",
    "FrameStackObservation": "FrameStackObservation",
    "FrameStack": "FrameStackObservation",
    "DtypeObservation": "DtypeObservation",
    "RescaleObservation": "RescaleObservation",
    "ReshapeObservation": "ReshapeObservation",
    "FilterObservation": "FilterObservation",
    "TimeAwareObservation": "TimeAwareObservation",
    "DelayObservation": "DelayObservation",
    "MaxAndSkipObservation": "MaxAndSkipObservation",
    "ClipReward": "ClipReward",
}
"""Gymnasium's names, those of its versions before 1.0 too, and the class of today."""
_REASONS = {
    "NormalizeObservation": "its running statistics are not in the data",
    "NormalizeReward": "its running statistics are not in the data",
    "TransformObservation": "the function it applies is not in the data",
    "TransformAction": "the function it applies is not in the data",
    "TransformReward": "the function it applies is not in the data",
    "LambdaObservation": "the function it applies is not in the data",
}
_DTYPES = {name: getattr(np, name) for name in ("float16", "float32", "float64", "int32", "int64", "uint8")}


def wrap(env: Env, wrapper: WrapperSpec) -> Env:
    """Puts a wrapper around an environment.

    Raises:
        EvaluationError: it cannot be made again, or its arguments do not fit; the line says what to do.
    """
    if ignorable(wrapper):
        return env
    make = maker(wrapper)
    try:
        wrapped: Env = make(env, **_arguments(env, wrapper))
    except (AssertionError, TypeError, ValueError, gym.error.Error) as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise EvaluationError(f"the wrapper {wrapper} does not fit the environment ({said}); {_way(wrapper)}") from None
    return wrapped


def ignorable(wrapper: WrapperSpec) -> bool:
    """Whether a wrapper changes no figure."""
    return wrapper.name in TRANSPARENT and _own(wrapper)


def maker(wrapper: WrapperSpec) -> Callable[..., Env]:
    """The class of a wrapper.

    Raises:
        EvaluationError: it is not Gymnasium's own, nor in a module that the user named, or its arguments are not known.
    """
    if _own(wrapper) and wrapper.recorded and wrapper.name in _MADE_AGAIN:
        made: Callable[..., Env] = getattr(gym.wrappers, _MADE_AGAIN[wrapper.name])
        return made
    if not wrapper.recorded:
        reason = (
            "Gymnasium recorded no arguments of it (it does not inherit from gymnasium.utils.RecordConstructorArgs)"
        )
    elif _own(wrapper):
        reason = _REASONS.get(wrapper.name, "it is not one of those that are made again")
    elif named_by_user(wrapper.module):
        found = getattr(_module(wrapper.module), wrapper.name, None)
        if isinstance(found, type) and issubclass(found, gym.Wrapper):
            return found
        reason = f"{wrapper.module} holds no gymnasium.Wrapper of that name"
    else:
        reason = f"it is not Gymnasium's own but of {wrapper.module!r}"
    raise EvaluationError(f"the wrapper {wrapper.name} cannot be made again: {reason}; {_way(wrapper)}")


def _way(wrapper: WrapperSpec) -> str:
    named = (
        f", or --import {wrapper.module} where you trust that module" if not _own(wrapper) and wrapper.module else ""
    )
    return f"go on without it with --ignore-wrapper {wrapper.name} (env.ignore_wrappers in a configuration){named}"


def _own(wrapper: WrapperSpec) -> bool:
    return wrapper.module == "gymnasium.wrappers"


def _module(name: str) -> Any:
    return sys.modules.get(name) or importlib.import_module(name)


def _arguments(env: Env, wrapper: WrapperSpec) -> dict[str, Any]:
    """Its keyword arguments as the class takes them: arrays and types are lists and names in files."""
    kwargs: dict[str, Any] = dict(wrapper.kwargs)
    if not _own(wrapper):
        return kwargs
    if wrapper.name == "FrameStack":
        return {"stack_size": kwargs.get("num_stack")}
    if wrapper.name == "DtypeObservation":
        name = str(kwargs.get("dtype"))
        if name not in _DTYPES:
            raise EvaluationError(f"DtypeObservation: dtype {name[:40]!r} is none of {', '.join(_DTYPES)}")
        return {"dtype": _DTYPES[name]}
    space = env.action_space if wrapper.name.endswith("Action") else env.observation_space
    for key, value in kwargs.items():
        if isinstance(value, list) and key != "shape" and not isinstance(space, spaces.Dict):
            kwargs[key] = np.array(value, space.dtype)
    if isinstance(kwargs.get("shape"), list):
        kwargs["shape"] = tuple(kwargs["shape"])
    return kwargs


def flat_view(env: Env, recorded: gym.Space[Any] | None = None) -> Env:
    """An environment with vectors of numbers for observations and actions; itself where it has them already.

    Args:
        env: with its wrappers.
        recorded: its observation space as the data have it, whose order of parts counts; None takes the environment's.

    Raises:
        EvaluationError: observations or actions that cannot be vectors of numbers.
    """
    seen = env.observation_space
    if recorded is not None and isinstance(seen, spaces.Dict) and isinstance(recorded, spaces.Dict):
        seen = _ordered(seen, recorded)
    observations, actions = flat_observations(seen), flat_actions(env.action_space)
    if observations is not env.observation_space:
        ordered = seen
        env = gym.wrappers.TransformObservation(env, lambda obs: spaces.flatten(ordered, obs), observations)
    if actions is not env.action_space:
        env = gym.wrappers.TransformAction(env, unflat_action(env.action_space), actions)
    return env


def _ordered(space: gym.Space[Any], like: gym.Space[Any]) -> gym.Space[Any]:
    """A space with the parts of its dictionaries in the order of another space of the same parts."""
    if isinstance(space, spaces.Dict) and isinstance(like, spaces.Dict) and space.keys() == like.keys():
        return spaces.Dict([(key, _ordered(space[key], like[key])) for key in like])
    if isinstance(space, spaces.Tuple) and isinstance(like, spaces.Tuple) and len(space) == len(like):
        return spaces.Tuple([_ordered(a, b) for a, b in zip(space, like, strict=True)])
    return space


def unflat_action(space: gym.Space[Any]) -> Callable[[Any], Any]:
    """From a flat action, as policies give it, to one of the space: its shape, whole numbers, its first number."""
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return lambda action: int(action) + start
    assert isinstance(space, spaces.Box)
    shape, dtype = space.shape, space.dtype
    whole = dtype is not None and dtype.kind != "f"

    def shaped(action: Any) -> Any:
        value = np.asarray(action)
        return (np.rint(value) if whole else value).reshape(shape).astype(dtype, copy=False)

    return shaped
