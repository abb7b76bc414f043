"""Plain values to d3rlpy's configuration objects, with every unknown name refused.

d3rlpy's configs are dataclasses whose fields are numbers, strings, lists, or components chosen from a registry
(encoders, optimisers, Q functions, scalers, learning-rate schedules). Its own loader ignores unknown keys and checks
no types; this one does both, and yields d3rlpy's own JSON form: ``{type: vector, params: {hidden_units: [64, 64]}}``.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from pydantic import TypeAdapter, ValidationError

from offline_robust.baselines.names import DISCRETE, require_d3rlpy
from offline_robust.errors import ConfigError, nearest
from offline_robust.networks.spec import MAX_LAYERS, MAX_WIDTH

SPACE = "space"
"""Our own action scaler: the bounds of the action space, where these are not [-1, 1] already."""

_NONE: dict[str, Any] = {"type": "none", "params": {}}
_NOT_VECTORS = ("pixel", "tuple")  # encoders and scalers for observations that we have not
_LARGEST = {"n_critics": 100, "n_quantiles": 1_000, "n_greedy_quantiles": 1_000, "n_blocks": MAX_LAYERS}
_WIDTHS = ("hidden_size", "output_size", "embed_size", "feature_size")


def resolve(name: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Checks a config's values and fills in d3rlpy's defaults.

    Args:
        name: d3rlpy's name of the algorithm, for example ``TD3PlusBC``.
        given: field names to plain values.

    Returns:
        All fields in d3rlpy's JSON form, and d3rlpy's version. Resolving them again gives the same.

    Raises:
        ConfigError: unknown field or type (with the nearest names), missing or wrong value.
        MissingExtra: d3rlpy is not installed.
    """
    d3rlpy = require_d3rlpy(f"learner d3rlpy:{name}")
    kind = getattr(d3rlpy.algos, f"{name}Config")
    path = "learner.config"
    if "batch_size" in given:
        raise ConfigError(f"{path}.batch_size: the size of a minibatch is training.batch_size")
    values = dict(given)
    scaler = values.pop("action_scaler", None if name in DISCRETE else SPACE)
    resolved = _fields(kind, values, path, f"d3rlpy:{name}", ("batch_size", "action_scaler"))
    if scaler == SPACE or (isinstance(scaler, Mapping) and scaler.get("type") == SPACE):
        resolved["action_scaler"] = {"type": SPACE, "params": {}}
    else:
        base = _component_of(typing.get_type_hints(kind)["action_scaler"])
        resolved["action_scaler"] = _component(base, scaler, f"{path}.action_scaler", (SPACE,))
    if name in DISCRETE and resolved["action_scaler"] != _NONE:
        raise ConfigError(f"{path}.action_scaler: discrete actions have no scale; leave it out")
    return resolved, str(d3rlpy.__version__)


def build(kind: type[Any], resolved: Mapping[str, Any]) -> Any:
    """A d3rlpy dataclass of resolved values; what `resolve` gave must have passed it."""
    hints, values = typing.get_type_hints(kind), {}
    for name, value in resolved.items():
        base = _component_of(hints[name])
        if base is not None:
            values[name] = None if value == _NONE else build(_types(base)[value["type"]], value["params"])
        else:
            values[name] = tuple(value) if typing.get_origin(hints[name]) is tuple else value
    return kind(**values)


def plain(component: Any) -> dict[str, Any]:
    """A scaler in its JSON form, with what it was fitted to."""
    if component is None:
        return dict(_NONE)
    fields = {f.name: getattr(component, f.name) for f in dataclasses.fields(component)}
    return {
        "type": component.get_type(),
        "params": {name: value.tolist() if hasattr(value, "tolist") else value for name, value in fields.items()},
    }


def weights_of(resolved: Mapping[str, Any]) -> int:
    """A lower bound of the number of weights that a config's networks have, by arithmetic alone."""
    total = 0
    for name, value in resolved.items():
        if not name.endswith("encoder_factory"):
            continue
        params = value["params"]
        widths = params.get("hidden_units", [256, 256])
        inner = sum(a * b for a, b in pairwise(widths))
        if "n_blocks" in params:
            inner = 2 * params["hidden_size"] * params["output_size"] * params["n_blocks"]
        total += inner * (resolved.get("n_critics", 1) if name == "critic_encoder_factory" else 1)
    return total


def _fields(
    kind: type[Any], given: Mapping[str, Any], path: str, of: str, skip: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Every field of a dataclass, from what is given and its defaults."""
    known = {field.name: field for field in dataclasses.fields(kind) if field.name not in skip}
    for key in given:
        if key not in known:
            raise ConfigError(f"unknown key '{path}.{str(key)[:80]}' of {of}{nearest(str(key), [*known, *skip[1:]])}")
    hints, resolved = typing.get_type_hints(kind), {}
    for name, field in known.items():
        if name in given:
            value = given[name]
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            raise ConfigError(f"{path}.{name}: missing")
        base = _component_of(hints[name])
        here = f"{path}.{name}"
        resolved[name] = _plain(hints[name], value, here) if base is None else _component(base, value, here)
    return resolved


def _component(base: Any, value: Any, path: str, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """``{type, params}`` from a type's name, a mapping with a type, nothing, or d3rlpy's default object."""
    types = _types(base)
    params: Any = {}
    if value is None:
        name = "none"
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = value.get_type()  # type: ignore[attr-defined]
    elif isinstance(value, str):
        name = value
    elif isinstance(value, Mapping) and isinstance(value.get("type"), str):
        name, params = value["type"], {key: item for key, item in value.items() if key != "type"}
        if set(params) == {"params"}:
            params = params["params"]
    else:
        raise ConfigError(f"{path}: expected a type's name or a mapping with a type{nearest('', types)}")
    if not isinstance(params, Mapping):
        raise ConfigError(f"{path}.params: expected a mapping, got {type(params).__name__}")
    if name == "none" and not params:
        return dict(_NONE)
    if name not in types:
        raise ConfigError(f"{path}: unknown type '{name[:80]}'{nearest(name, [*types, *more, 'none'])}")
    return {"type": name, "params": _fields(types[name], params, path, f"type {name}")}


def _plain(hint: Any, value: Any, path: str) -> Any:
    """A number, text or list of the type that d3rlpy states, finite and of a size that can be meant."""
    if "ndarray" in str(hint):
        hint = list[float] | float | None
        value = value.tolist() if hasattr(value, "tolist") else value
    try:
        result = TypeAdapter(hint).dump_python(TypeAdapter(hint).validate_python(value), mode="json")
    except ValidationError as error:
        said = error.errors(include_url=False)[0]["msg"]
        raise ConfigError(f"{path}: {said}, got {repr(value)[:80]}") from None
    name = path.rsplit(".", 1)[-1]
    for number in result if isinstance(result, list) else [result]:
        if isinstance(number, float) and not math.isfinite(number):
            raise ConfigError(f"{path}: {number} is not finite")
        limit = MAX_WIDTH if name == "hidden_units" or name in _WIDTHS else _LARGEST.get(name)
        if limit is not None and not 1 <= number <= limit:
            raise ConfigError(f"{path}: {number} is outside 1..{limit:,}")
    if isinstance(result, list) and name == "hidden_units" and not 1 <= len(result) <= MAX_LAYERS:
        raise ConfigError(f"{path}: {len(result)} layers, expected 1 to {MAX_LAYERS}")
    return result


def _component_of(hint: Any) -> Any:
    """The registry's base class that a type hint names, or None for plain values."""
    from d3rlpy.serializable_config import CONFIG_STORAGE

    candidates = [hint, *typing.get_args(hint)]
    return next((kind for kind in candidates if isinstance(kind, type) and kind in CONFIG_STORAGE), None)


def _types(base: Any) -> dict[str, Any]:
    """Names to classes of a registry, without those for images and tuples."""
    from d3rlpy.serializable_config import CONFIG_STORAGE

    registered = CONFIG_STORAGE[base].config_list
    return {name: kind for name, kind in registered.items() if name not in _NOT_VECTORS}
