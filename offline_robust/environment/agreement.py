"""Whether two descriptions are of one environment, and what they disagree about."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from offline_robust.environment.spaces import same_actions, same_observations
from offline_robust.environment.spec import EnvironmentSpec, registered_limit


def agree(one: EnvironmentSpec, other: EnvironmentSpec) -> str:
    """What two descriptions of one environment disagree about, in words that say both; empty where they agree.

    What one of them leaves open (a limit as registered, spaces that nobody said) is no disagreement.
    """
    said = [(spec.source or "one", spec) for spec in (one, other)]
    (first, a), (second, b) = said
    if a.id != b.id:
        return f"the environment is {a.id} in {first} and {b.id} in {second}"
    for key in sorted(a.kwargs.keys() | b.kwargs.keys()):
        mine, theirs = (repr(s.kwargs[key])[:80] if key in s.kwargs else "not given" for s in (a, b))
        if key not in a.kwargs or key not in b.kwargs or not _same_value(a.kwargs[key], b.kwargs[key]):
            return f"{a.id}'s {key} is {mine} in {first} and {theirs} in {second}"
    limits = [s.step_limit if s.step_limit is not None else registered_limit(s.id) for s in (a, b)]
    if limits[0] != limits[1]:
        mine, theirs = ("as registered" if limit is None else str(limit or "none") for limit in limits)
        return f"{a.id}'s step limit is {mine} in {first} and {theirs} in {second}"
    stacks = [" > ".join(str(wrapper) for wrapper in s.wrappers) or "none" for s in (a, b)]
    if a.wrappers != b.wrappers:
        return f"{a.id}'s wrappers are {stacks[0]} in {first} and {stacks[1]} in {second}"
    return _spaces(a, b)


def _spaces(one: EnvironmentSpec, other: EnvironmentSpec) -> str:
    """What the spaces of two descriptions disagree about, as `agree`."""
    for name, same in (("observation_space", same_observations), ("action_space", same_actions)):
        left, right = getattr(one, name), getattr(other, name)
        if left is not None and right is not None and not same(left, right):
            first, second = one.source or "one", other.source or "the other"
            return f"{one.id}'s {name.replace('_', ' ')} is {left} in {first} and {right} in {second}"
    return ""


def _same_value(one: Any, other: Any) -> bool:
    """Whether two plain values are equal; numbers by value (1 is 1.0), NaN equals NaN."""
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same_value(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_same_value(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and bool(one == other)
