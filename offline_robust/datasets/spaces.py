"""Observation and action spaces: from files (untrusted JSON), from an environment, or from the data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from offline_robust.datasets.problems import refusal
from offline_robust.errors import DatasetError, nearest
from offline_robust.untrusted import CodeRefused, refuse_code
from offline_robust.untrusted import parse_json as bounded_json

Spaces = gym.spaces.Box | gym.spaces.Discrete

OWN_PREFIX = "offline_robust/"
"""What our writers add to formats that have no place for it lies under this prefix."""
MAX_JSON = 16 * 2**20
"""Bytes of JSON that are parsed."""
MAX_ACTIONS = 1_000_000
"""The largest number of discrete actions that is believed."""

_FORMAT = 1
_DTYPE = re.compile(r"bool|(?:float|int|uint)(?:8|16|32|64)")
_MAX_VALUES = 10_000_000
_ENV_ID = re.compile(r"(?:[\w-]+/)*[\w.-]+")


@dataclass(frozen=True)
class Description:
    """What a file says about the environment, apart from its arrays."""

    observation_space: gym.spaces.Box | None = None
    action_space: Spaces | None = None
    env_id: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)


def encode_description(description: Description) -> str:
    """One line of JSON, the same for the same content; `decode_description` reads it back."""
    content = {
        "format": _FORMAT,
        "env_id": description.env_id,
        "env_kwargs": plain_kwargs(description.env_kwargs),
        "observation_space": _text(description.observation_space),
        "action_space": _text(description.action_space),
    }
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
        key: decode_space(f"{where}: {key}", content[key]) if isinstance(content.get(key), str) else None
        for key in ("observation_space", "action_space")
    }
    observation_space = spaces["observation_space"]
    if observation_space is not None and not isinstance(observation_space, gym.spaces.Box):
        raise refusal(where, f"the observation space is {observation_space}", "only vectors (Box) are supported")
    env_id, env_kwargs = environment(content.get("env_id"), content.get("env_kwargs"))
    return Description(observation_space, spaces["action_space"], env_id, env_kwargs)


def parse_json(where: str, text: str | bytes) -> dict[str, Any]:
    """A JSON object of bounded size.

    Raises:
        DatasetError: too long, not JSON, nested too deep, a number too large, or not an object.
    """
    if len(text) > MAX_JSON:
        raise refusal(where, f"is {len(text):,} bytes of JSON", f"at most {MAX_JSON:,} are read")
    try:
        content = bounded_json(text)
    except ValueError as error:
        raise refusal(where, f"is not JSON ({error})", "restore the file from its source") from None
    if not isinstance(content, dict):
        raise refusal(where, f"holds a JSON {type(content).__name__}, not an object", "restore it from its source")
    return content


def decode_space(where: str, text: str) -> Spaces:
    """A vector Box or a Discrete space from Minari's JSON.

    Raises:
        DatasetError: another kind of space (dictionary, tuple, text, image), or damaged JSON.
    """
    from minari.serialization import deserialize_space

    content = parse_json(where, text)
    kind = content.get("type")
    if kind in ("Dict", "Tuple", "Text", "MultiDiscrete", "MultiBinary"):
        mend = "only vectors and Discrete actions are supported: flatten when collecting (FlattenObservation)"
        raise refusal(where, f"is a {kind} space", mend)
    _check_size(where, content)
    try:
        space = deserialize_space(content)
    except Exception as error:  # the file decides what goes wrong in here
        raise refusal(where, f"is not a space ({type(error).__name__}: {error})", "restore metadata.json") from None
    return vector_space(where, space)


def _check_size(where: str, content: dict[str, Any]) -> None:
    """Refuses a Box whose numbers would take more than the file has, before they are made."""
    dtype, shape = content.get("dtype", "float32"), content.get("shape", [])
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise refusal(where, f"is not a space: its number type is {str(dtype)[:40]!r}", "restore metadata.json")
    lengths = shape if isinstance(shape, list) else [shape]
    if not all(type(length) is int and 0 <= length <= _MAX_VALUES for length in lengths):
        raise refusal(where, f"is not a space: its shape is {str(shape)[:80]}", "restore metadata.json")
    if (values := math.prod(lengths)) > _MAX_VALUES:
        raise refusal(where, f"has {values:,} values", f"at most {_MAX_VALUES:,} are read")


def vector_space(where: str, space: object) -> Spaces:
    """The space itself when it is a vector Box or a Discrete space of believable size.

    Raises:
        DatasetError: it is anything else.
    """
    if isinstance(space, gym.spaces.Discrete):
        if not 0 < space.n <= MAX_ACTIONS:
            raise refusal(where, f"has {space.n:,} actions", f"1 to {MAX_ACTIONS:,} are supported")
        return space
    if not isinstance(space, gym.spaces.Box):
        raise refusal(where, f"is {space}", "only vectors (Box) and Discrete actions are supported")
    if len(space.shape) != 1:
        raise refusal(where, f"has shape {space.shape}, not a vector", "flatten or extract features when collecting")
    return space


def environment(env_id: object, env_kwargs: object) -> tuple[str | None, dict[str, Any]]:
    """The environment id and keyword arguments that a file names, as plain data.

    The file is not trusted: an id of the form ``module:Name-v0`` would make Gymnasium import that module, so that
    only what `refuse_code` lets pass is kept.
    """
    known = isinstance(env_id, str) and len(env_id) <= 200 and _ENV_ID.fullmatch(env_id) is not None
    if not known:
        return None, {}
    try:
        refuse_code(env_id, env_kwargs)
    except CodeRefused:
        return None, {}
    keyed = isinstance(env_kwargs, dict) and all(isinstance(key, str) for key in env_kwargs)
    return str(env_id), dict(env_kwargs) if keyed else {}  # type: ignore[call-overload]


def plain_kwargs(env_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of the environment as JSON holds them.

    Raises:
        DatasetError: one of them cannot be written as JSON.
    """
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(env_kwargs)))
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"env_kwargs cannot be written to a file ({error}): use numbers, strings and lists"
        ) from None
    return plain


def spaces_of(env_id: str, env_kwargs: Mapping[str, Any]) -> tuple[gym.spaces.Box, Spaces, int | None]:
    """The observation space, the action space and the time limit of an environment, which is made and closed.

    Raises:
        DatasetError: Gymnasium does not know the id, or its spaces are not supported.
    """
    try:
        env = gym.make(env_id, **env_kwargs)
    except Exception as error:  # unknown id, missing simulator, wrong keyword
        hint = nearest(env_id, list(gym.registry)) if env_id not in gym.registry else ""
        hint = hint if "did you mean" in hint else ""
        raise DatasetError(
            f"env_id '{env_id}': cannot be made ({type(error).__name__}: {str(error).splitlines()[0]}){hint}"
        ) from None
    try:
        observation_space = vector_space(f"{env_id}: observation space", env.observation_space)
        action_space = vector_space(f"{env_id}: action space", env.action_space)
        limit = env.spec.max_episode_steps if env.spec is not None else None
    finally:
        env.close()  # type: ignore[no-untyped-call]
    if not isinstance(observation_space, gym.spaces.Box):
        raise DatasetError(f"env_id '{env_id}': observations are {observation_space}, only vectors are supported")
    return observation_space, action_space, limit


def infer_observation_space(width: int) -> gym.spaces.Box:
    """An unbounded Box."""
    return gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)


def infer_action_space(where: str, actions: NDArray[Any]) -> Spaces:
    """The box that the data span, or as many discrete actions as the largest one needs.

    Raises:
        DatasetError: a discrete action is negative or absurdly large.
    """
    if actions.dtype.kind == "i":
        low, high = int(actions.min()), int(actions.max())
        if low < 0 or high >= MAX_ACTIONS:
            row = int(actions.argmin() if low < 0 else actions.argmax())
            raise refusal(where, f"row {row:,} holds {actions[row]}", "discrete actions count from 0; or give env_id")
        return gym.spaces.Discrete(high + 1)
    # Not finite: reported by the checks; the space must exist for them to run.
    finite = np.where(np.isfinite(actions), actions, 0.0)
    return gym.spaces.Box(finite.min(axis=0), finite.max(axis=0), dtype=np.float32)


def _text(space: Spaces | None) -> str | None:
    if space is None:
        return None
    from minari.serialization import serialize_space

    text: str = serialize_space(space)
    return text
