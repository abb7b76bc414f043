"""Observation and action spaces: from files (untrusted JSON), from an environment, or from the data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from offline_robust.datasets.findings import refusal
from offline_robust.environment import (
    EnvironmentSpec,
    decode_space,
    encode_space,
    flat_actions,
    flat_observations,
    make_env,
    make_spec,
    step_limit,
)
from offline_robust.environment.spaces import MAX_ACTIONS
from offline_robust.environment.wrappers import flat_view
from offline_robust.errors import DatasetError, EvaluationError
from offline_robust.untrusted import CodeRefused, refuse_code
from offline_robust.untrusted import parse_json as bounded_json

Spaces = gym.spaces.Box | gym.spaces.Discrete

OWN_PREFIX = "offline_robust/"
"""What our writers add to formats that have no place for it lies under this prefix."""
MAX_JSON = 16 * 2**20
"""Bytes of JSON that are parsed."""

_FORMAT = 1
_ENV_ID = re.compile(r"(?:[\w-]+/)*[\w.-]+")


@dataclass(frozen=True)
class Description:
    """What a file says about the environment, apart from its arrays, which are vectors of numbers."""

    observation_space: gym.spaces.Box | None = None
    action_space: Spaces | None = None
    environment: EnvironmentSpec | None = None


def encode_description(description: Description) -> str:
    """One line of JSON, the same for the same content; `decode_description` reads it back."""
    environment = description.environment
    content: dict[str, Any] = {
        "format": _FORMAT,
        "env_id": environment.id if environment is not None else None,
        "env_kwargs": dict(environment.kwargs) if environment is not None else {},
        "observation_space": _text(description.observation_space),
        "action_space": _text(description.action_space),
    }
    if environment is not None and not environment.only_id:
        content["environment"] = environment.to_dict()
    return json.dumps(content, sort_keys=True)


def decode_description(where: str, text: str | bytes) -> Description:
    """Reads `encode_description`'s JSON from a file that is not trusted.

    Raises:
        DatasetError: it is not such JSON.
    """
    content = parse_json(f"{where}: {OWN_PREFIX}description", text)
    if content.get("format") != _FORMAT:
        raise refusal(where, f"{OWN_PREFIX}description has format {content.get('format')!r}, this version reads 1")
    spaces = {
        key: read_space(f"{where}: {key}", content[key]) if isinstance(content.get(key), str) else None
        for key in ("observation_space", "action_space")
    }
    observations, actions = spaces["observation_space"], spaces["action_space"]
    if actions is not None and not isinstance(actions, gym.spaces.Discrete):  # which counts as its actions do
        actions = flat_space(where, actions, flat_actions)
    return Description(
        None if observations is None else flat_space(where, observations, flat_observations),
        cast("Spaces | None", actions),
        own_environment(where, content),
    )


def own_environment(where: str, content: Mapping[str, Any]) -> EnvironmentSpec | None:
    """The environment in what our writers keep: whole, or its id and keyword arguments as older files have it.

    The file is not trusted: one that names an environment that would import code (`refuse_code`) names none.

    Raises:
        DatasetError: it is there, and damaged.
    """
    whole = content.get("environment")
    named = {"id": content.get("env_id"), "kwargs": content.get("env_kwargs")} if whole is None else whole
    env_id, kwargs = (named.get("id"), named.get("kwargs")) if isinstance(named, dict) else (None, None)
    try:
        refuse_code(env_id, kwargs)
    except CodeRefused:
        return None
    try:
        if whole is not None:
            return EnvironmentSpec.from_dict(whole, where)
        if not isinstance(env_id, str) or len(env_id) > 200 or _ENV_ID.fullmatch(env_id) is None:
            return None
        keyed = isinstance(kwargs, dict) and all(isinstance(key, str) for key in kwargs)
        return make_spec(env_id, kwargs if keyed else {}, source=where)
    except EvaluationError as error:
        raise refusal(where, str(error).removeprefix(f"{where}: ")) from None


def parse_json(where: str, text: str | bytes, mend: str = "restore the file from its source") -> dict[str, Any]:
    """A JSON object of bounded size; ``mend`` says what to do about another.

    Raises:
        DatasetError: too long, not JSON, nested too deep, a number too large, or not an object.
    """
    if len(text) > MAX_JSON:
        raise refusal(where, f"is {len(text):,} bytes of JSON", f"at most {MAX_JSON:,} are read")
    try:
        content = bounded_json(text)
    except ValueError as error:
        raise refusal(where, f"is not JSON ({error})", mend) from None
    if not isinstance(content, dict):
        raise refusal(where, f"holds a JSON {type(content).__name__}, not an object", mend)
    return content


def read_space(where: str, text: str) -> gym.Space[Any]:
    """Any space from Minari's JSON.

    Raises:
        DatasetError: damaged, too large, or of a kind that Minari does not write.
    """
    parse_json(where, text)
    try:
        return decode_space(where, text)
    except EvaluationError as error:
        raise refusal(where, str(error).removeprefix(f"{where}: ")) from None


def flat_space(where: str, space: gym.Space[Any], flat: Callable[[gym.Space[Any]], Any]) -> Any:
    """What observations or actions of a space are seen as (`flat_observations`, `flat_actions`).

    Raises:
        DatasetError: they are not numbers; the line is right for that space.
    """
    try:
        return flat(space)
    except EvaluationError as error:
        raise refusal(where, str(error)) from None


def spaces_of(environment: EnvironmentSpec) -> tuple[EnvironmentSpec, gym.spaces.Box, Spaces, int | None]:
    """What an environment says of itself: it is made and closed.

    Returns:
        The description with its spaces filled in, what observations and actions are seen as, and the step limit.

    Raises:
        DatasetError: it cannot be made, or its observations or actions are not numbers.
    """
    try:
        env = make_env(environment)
        try:
            seen = flat_view(env, environment.observation_space)
            limit = step_limit(env)
        finally:
            env.close()  # type: ignore[no-untyped-call]
    except EvaluationError as error:
        raise DatasetError(str(error)) from None
    whole = replace(
        environment,
        observation_space=environment.observation_space or env.observation_space,
        action_space=environment.action_space or env.action_space,
    )
    return whole, cast(gym.spaces.Box, seen.observation_space), cast(Spaces, seen.action_space), limit


def infer_observation_space(width: int) -> gym.spaces.Box:
    """An unbounded Box."""
    return gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)


def infer_action_space(where: str, actions: NDArray[Any], least: int = 0) -> Spaces:
    """The box that the data span, or as many discrete actions as the largest one needs, and ``least`` at least.

    Raises:
        DatasetError: a discrete action is negative or absurdly large.
    """
    if actions.dtype.kind == "i":
        low, high = int(actions.min()), int(actions.max())
        if low < 0 or high >= MAX_ACTIONS:
            row = int(actions.argmin() if low < 0 else actions.argmax())
            raise refusal(where, f"row {row:,} holds {actions[row]}", "discrete actions count from 0; or give env_id")
        return gym.spaces.Discrete(max(high + 1, least))
    # Not finite: reported by the checks; the space must exist for them to run.
    finite = np.where(np.isfinite(actions), actions, 0.0)
    return gym.spaces.Box(finite.min(axis=0), finite.max(axis=0), dtype=np.float32)


def _text(space: Spaces | None) -> str | None:
    return None if space is None else encode_space(space)
