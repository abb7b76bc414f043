"""Spaces: read from files that are not trusted, and seen flat, as vectors of numbers with names.

Learners see observations (N, O) and actions (N, A) or (N,). What an environment has beside flat boxes is flattened
exactly as Gymnasium's FlattenObservation does, in data and in evaluation alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from offline_robust.errors import EvaluationError
from offline_robust.untrusted import parse_json

Array = NDArray[Any]
FlatAction = gym.spaces.Box | gym.spaces.Discrete

MAX_WIDTH = 65_536
"""The widest observation or action, flat."""
MAX_ACTIONS = 1_000_000
"""The largest number of discrete actions that is believed."""
MAX_JSON = 16 * 2**20
"""Bytes of JSON that are parsed."""
_MAX_DEPTH, _MAX_PARTS, _MAX_VALUES = 12, 10_000, 16 * MAX_WIDTH
_DTYPE = re.compile(r"bool|(?:float|int|uint)(?:8|16|32|64)")

_ADVICE = {
    "Text": "texts are not numbers: encode them when collecting, or leave them out (a wrapper of yours)",
    "Graph": "graphs have no fixed number of entries: reduce them to a vector when collecting",
    "Sequence": "sequences have no fixed length: pad or summarise them when collecting",
    "OneOf": "alternatives have no fixed meaning for each number: choose one when collecting",
}


def encode_space(space: gym.Space[Any]) -> str:
    """One line of JSON, Minari's; `decode_space` reads it back, the order of a dictionary's parts included."""
    from minari.serialization import serialize_space

    text: str = serialize_space(space)
    return text


def decode_space(where: str, text: str) -> gym.Space[Any]:
    """A space from Minari's JSON.

    Raises:
        EvaluationError: damaged, too large, or of a kind that Minari does not write.
    """
    if len(text) > MAX_JSON:
        raise EvaluationError(f"{where}: is {len(text):,} characters of JSON; at most {MAX_JSON:,} are read")
    try:
        return _decoded(parse_json(text), 0, [0, 0])
    except EvaluationError as error:
        raise EvaluationError(f"{where}: {error}") from None
    except Exception as error:  # the file decides what goes wrong in here
        said = " ".join(str(error).split())[:200]
        raise EvaluationError(f"{where}: is not a space ({type(error).__name__}: {said}); restore it") from None


def _decoded(content: Any, depth: int, counted: list[int]) -> gym.Space[Any]:
    from minari.serialization import deserialize_space

    if depth > _MAX_DEPTH:
        raise EvaluationError(f"is nested deeper than {_MAX_DEPTH} levels")
    kind, below = content["type"], content.get("subspaces")
    if kind == "Dict":
        # In the order of the file, which is the environment's: Gymnasium flattens in it. A mapping would be sorted.
        return gym.spaces.Dict([(str(key), _decoded(part, depth + 1, counted)) for key, part in below.items()])
    if kind == "Tuple":
        return gym.spaces.Tuple([_decoded(part, depth + 1, counted) for part in below])
    if kind == "Discrete" and not 0 < content["n"] <= MAX_ACTIONS:
        raise EvaluationError(f"has {content['n']} values, 1 to {MAX_ACTIONS:,} are read")
    _check_size(kind, content, counted)
    space: gym.Space[Any] = deserialize_space(content)
    return space


def _check_size(kind: str, content: Any, counted: list[int]) -> None:
    """Refuses a space, or the parts of one together, whose numbers would take more than the file has, before they are
    made.

    Args:
        kind: of the space or part.
        content: of it.
        counted: parts and numbers so far, which are added to.
    """
    dtype, shape = content.get("dtype", "float32"), content.get("n" if kind == "MultiBinary" else "shape") or []
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise EvaluationError(f"is not a space: its number type is {str(dtype)[:40]!r}; restore it")
    lengths = shape if isinstance(shape, list) else [shape]
    if not all(type(length) is int and 0 <= length <= _MAX_VALUES for length in lengths):
        raise EvaluationError(f"is not a space, or larger than is read: its shape is {str(shape)[:80]}")
    counted[0] += 1
    counted[1] += math.prod(lengths)
    if counted[0] > _MAX_PARTS or counted[1] > _MAX_VALUES:
        raise EvaluationError(f"has more than {_MAX_PARTS:,} parts or {_MAX_VALUES:,} numbers, which are read at most")


def flat_observations(space: gym.Space[Any]) -> gym.spaces.Box:
    """The vectors (O,) that observations of a space are seen as; the space itself where they are vectors already.

    Raises:
        EvaluationError: observations that are not numbers, or not of one length; the line is right for that space.
    """
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1 and space.shape[0] <= MAX_WIDTH:
        return space
    _check(space, "observations", "")
    if (width := _width(space)) > MAX_WIDTH or width == 0:
        raise EvaluationError(f"observations have {width:,} numbers; vectors of 1 to {MAX_WIDTH:,} are supported")
    flat = gym.spaces.flatten_space(space)
    assert isinstance(flat, gym.spaces.Box)
    return flat


def flat_actions(space: gym.Space[Any]) -> FlatAction:
    """The vectors (A,) or the numbers 0, 1, ... that actions of a space are seen as.

    Raises:
        EvaluationError: composite actions, or actions that are not numbers; the line is right for that space.
    """
    if isinstance(space, gym.spaces.Discrete):
        if not 0 < space.n <= MAX_ACTIONS:
            raise EvaluationError(f"there are {space.n:,} actions; 1 to {MAX_ACTIONS:,} are supported")
        return space if space.start == 0 else gym.spaces.Discrete(int(space.n))
    if isinstance(space, gym.spaces.Box):
        _check(space, "actions", "")
        if not 0 < math.prod(space.shape) <= MAX_WIDTH:
            raise EvaluationError(f"actions have shape {space.shape}; 1 to {MAX_WIDTH:,} numbers are supported")
        if len(space.shape) == 1 and space.dtype is not None and space.dtype.kind == "f":
            return space
        kind: Any = space.dtype if space.dtype is not None and space.dtype.kind == "f" else np.float32
        return gym.spaces.Box(space.low.flatten().astype(kind), space.high.flatten().astype(kind), dtype=kind)
    kind = type(space).__name__
    if kind in ("Dict", "Tuple", "MultiDiscrete", "MultiBinary"):
        raise EvaluationError(
            f"actions are a {kind} of several parts at once, which no learner here has: use continuous actions (Box) "
            "or number the combinations (Discrete) when collecting"
        )
    raise EvaluationError(f"actions are a {kind} space; " + _ADVICE.get(kind, "Box and Discrete are supported"))


def _check(space: gym.Space[Any], word: str, part: str) -> None:
    """Refuses what is not numbers, anywhere in a space."""
    at = f"{word}{f' ({part})' if part else ''}"
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        for name, below in _below(space):
            _check(below, word, f"{part}.{name}" if part else name)
        return
    if isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary):
        return
    kind = type(space).__name__
    if not isinstance(space, gym.spaces.Box):
        raise EvaluationError(f"{at} are a {kind} space; " + _ADVICE.get(kind, "only spaces of numbers are supported"))
    if space.dtype is not None and space.dtype.kind not in "fiub":
        raise EvaluationError(f"{at} hold {space.dtype}, not numbers")
    if space.dtype == np.uint8 and len(space.shape) >= 2:
        raise EvaluationError(
            f"{at} are images of shape {space.shape}, which need networks that are not here: extract features when "
            "collecting"
        )


def _below(space: gym.spaces.Dict | gym.spaces.Tuple) -> list[tuple[str, gym.Space[Any]]]:
    if isinstance(space, gym.spaces.Dict):
        return [(str(key), part) for key, part in space.spaces.items()]
    return [(str(index), part) for index, part in enumerate(space.spaces)]


def _width(space: gym.Space[Any]) -> int:
    """How many numbers a space has, flat; nothing is allocated to count them."""
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        return sum(_width(part) for _, part in _below(space))
    if isinstance(space, gym.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return int(space.nvec.sum())
    return math.prod(space.shape or (1,))


def parts(space: gym.Space[Any], name: str = "") -> list[tuple[str, int]]:
    """The named parts of a space in the order in which they are flattened: (name, how many numbers).

    A part of a dictionary is called by its key, one of a tuple by its number, with a point between levels.
    """
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        found: list[tuple[str, int]] = []
        for key, part in _below(space):
            found += parts(part, f"{name}.{key}" if name else key)
        return found
    return [(name, _width(space))]


def dimension_names(space: gym.Space[Any] | None) -> tuple[str, ...] | None:
    """A name for each flat dimension, such as ``desired_goal[0]``; None where the parts of a space have no names."""
    if not isinstance(space, gym.spaces.Dict | gym.spaces.Tuple) or len(found := parts(space)) > _MAX_PARTS:
        return None
    return tuple(f"{name}[{k}]" if width > 1 else name for name, width in found for k in range(width))


def flatten(where: str, space: gym.Space[Any], read: Callable[[tuple[str, ...]], Array]) -> Array:
    """The observations of a space as rows of numbers (N, O), equal to Gymnasium's `flatten` row by row.

    Args:
        where: the source, for messages.
        space: of one observation.
        read: gives the values (N, ...) of one part by its path; the parts of dictionaries and tuples are read singly.

    Raises:
        EvaluationError: values that do not have the space's shape, or lie outside a space of whole numbers.
    """
    columns = _columns(where, space, read, ())
    rows = {len(column) for column in columns}
    if len(rows) > 1:
        raise EvaluationError(f"{where}: parts of one observation have {min(rows):,} to {max(rows):,} rows")
    return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)


def _columns(
    where: str, space: gym.Space[Any], read: Callable[[tuple[str, ...]], Array], path: tuple[str, ...]
) -> list[Array]:
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        return [column for key, part in _below(space) for column in _columns(where, part, read, (*path, key))]
    values, at = read(path), ".".join((where, *path))
    shape = space.shape or ()
    if values.ndim == 2 and values.shape[1] == 1 and not shape:
        values = values[:, 0]  # a single number, kept as a column
    if values.shape[1:] != shape:
        raise EvaluationError(f"{at}: has shape {values.shape[1:]} where the space has {shape}")
    if isinstance(space, gym.spaces.Box | gym.spaces.MultiBinary):
        return [values.reshape(len(values), math.prod(shape))]
    if values.dtype.kind not in "iub":
        raise EvaluationError(f"{at}: holds {values.dtype} where the space has whole numbers")
    if len(values) == 0:
        return [np.zeros((0, _width(space)), np.float32)]
    # Each kind of value goes through Gymnasium's own function once: whatever it does, we do the same.
    kinds, place = np.unique(values.reshape(len(values), -1), axis=0, return_inverse=True)
    flat = []
    for kind in kinds:
        value = kind.reshape(shape).astype(np.int64) if shape else np.int64(kind[0])
        if not space.contains(value):
            raise EvaluationError(f"{at}: holds {value}, outside {space}")
        flat.append(gym.spaces.flatten(space, value))
    return [np.array(flat)[place.reshape(-1)]]


def same_observations(one: gym.Space[Any], other: gym.Space[Any]) -> bool:
    """Whether two spaces have the same parts of the same shapes.

    Bounds, which change between versions, and the order of a dictionary's parts, which `flat_view` takes over, aside.
    """
    if isinstance(one, gym.spaces.Dict | gym.spaces.Tuple):
        if type(one) is not type(other):
            return False
        ours, theirs = dict(_below(one)), dict(_below(other))  # type: ignore[arg-type]  # of one type, as asked
        return ours.keys() == theirs.keys() and all(same_observations(part, theirs[key]) for key, part in ours.items())
    if isinstance(one, gym.spaces.Box) and isinstance(other, gym.spaces.Box):
        return one.shape == other.shape
    return bool(one == other)


def same_actions(one: gym.Space[Any], other: gym.Space[Any]) -> bool:
    """Whether two action spaces have the same shape and bounds (to float32), or the same actions."""
    if isinstance(one, gym.spaces.Box) and isinstance(other, gym.spaces.Box):
        return one.shape == other.shape and all(
            np.array_equal(a.astype(np.float32), b.astype(np.float32))
            for a, b in ((one.low, other.low), (one.high, other.high))
        )
    return bool(one == other)
