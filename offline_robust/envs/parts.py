"""What an environment consists of: its attributes, and those of its parts."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import gymnasium as gym

_DEPTH, _MOST, _PARTS = 5, 1_000, 20_000


def layers(env: Any) -> Iterator[Any]:
    """An environment and what its wrappers wrap, from the outside in."""
    yield env
    while isinstance(env, gym.Wrapper):
        env = env.env
        yield env


def parts_of(env: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Every value that an object holds in its attributes, and that what it holds does, some levels down.

    Lists and dictionaries are looked into unless they are long; classes, modules and slots are not.

    Yields:
        The dictionary (an object's attributes, too) or list that holds the value, the key in it, and the value.
    """
    seen, level = {id(env)}, [env]
    for _ in range(_DEPTH):
        below = []
        for part in level:
            inside = part if isinstance(part, dict | list) else vars(part)
            for key, value in list(inside.items() if isinstance(inside, dict) else enumerate(inside)):
                yield inside, key, value
                if _may_hold(value) and id(value) not in seen and len(seen) < _PARTS:
                    seen.add(id(value))
                    below.append(value)
        level = below


def _may_hold(value: Any) -> bool:
    if isinstance(value, dict | list):
        return len(value) <= _MOST
    return hasattr(value, "__dict__") and not isinstance(value, type | ModuleType)
