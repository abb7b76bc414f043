"""What an environment is, as data: its id, what it is made with, its time limit, its wrappers, its spaces."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym

from offline_robust.environment.spaces import decode_space, encode_space
from offline_robust.errors import EvaluationError
from offline_robust.untrusted import CodeRefused, parse_json, refuse_code

NO_LIMIT = 0
"""A `step_limit` that says: no limit, whatever the registration says."""

_ENV_ID = re.compile(r"(?:[\w-]+/)*[\w.-]+")
_MAX_ID, _MAX_WRAPPERS, _MAX_DEPTH, _MAX_ITEMS, _MAX_STEPS = 200, 50, 12, 100_000, 10**9
_GYMNASIUM = "gymnasium.wrappers"
_SILENT = ("render_mode",)
"""Keywords that change no figure and may need a screen: they are left out."""


@dataclass(frozen=True)
class WrapperSpec:
    """One wrapper that lies around an environment, from the inside out."""

    name: str
    """Its class's name, such as ``RescaleAction``."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Its keyword arguments beside the environment, plain values."""
    module: str = _GYMNASIUM
    """Where its class lies, as recorded. It is imported only where it is Gymnasium's own or the user named it."""
    recorded: bool = True
    """False where Gymnasium could not record its arguments, so that nobody can make it again."""

    def __str__(self) -> str:
        said = ", ".join(f"{key}={value!r}" for key, value in self.kwargs.items())
        return f"{self.name}({said[:120]})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `EnvironmentSpec.from_dict` reads them back."""
        content: dict[str, Any] = {"name": self.name, "kwargs": dict(self.kwargs)}
        if self.module != _GYMNASIUM:
            content["module"] = self.module
        return content if self.recorded else content | {"recorded": False}


@dataclass(frozen=True)
class EnvironmentSpec:
    """Everything that an environment's figures depend on, carried whole from the data to the report.

    Data, policies, configurations, runs and results hold one each. Where two of them say different things about one
    environment, `agree` refuses and says both.
    """

    id: str
    """Its Gymnasium id."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments for `gymnasium.make`, plain values."""
    step_limit: int | None = None
    """Steps at which an episode is cut; None as registered, `NO_LIMIT` never."""
    wrappers: tuple[WrapperSpec, ...] = ()
    """What lies around it, from the inside out, beside what `gymnasium.make` adds itself."""
    imports: tuple[str, ...] = field(default=(), compare=False)
    """Modules that the user named to have it registered. Files tell them for messages; none is imported by itself."""
    observation_space: gym.Space[Any] | None = field(default=None, compare=False)
    """As the environment with its wrappers has it, before anything is flattened; None where nobody said."""
    action_space: gym.Space[Any] | None = field(default=None, compare=False)
    """The same of actions."""
    source: str = field(default="", compare=False)
    """Who says so: a file, a configuration, an option; for messages."""

    def __str__(self) -> str:
        parts = [f"{key}={value!r}" for key, value in self.kwargs.items()]
        if not self._limited_as_registered:
            parts.append(f"step_limit={self.step_limit or 'none'}")
        parts += [str(wrapper) for wrapper in self.wrappers]
        said = ", ".join(parts)
        if len(said) > _MAX_ID:  # cut, and yet different for different environments
            digest = hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:8]
            said = f"{said[: _MAX_ID - 15]}... #{digest}"
        return f"{self.id} with {said}" if said else self.id

    @property
    def plain(self) -> bool:
        """Whether the id says all."""
        return not self.kwargs and self._limited_as_registered and not self.wrappers

    @property
    def _limited_as_registered(self) -> bool:
        return self.step_limit is None or self.step_limit == registered_limit(self.id)

    @property
    def only_id(self) -> bool:
        """Whether nothing but its id and keyword arguments is known of it."""
        return self.to_dict().keys() == {"id", "kwargs"}

    @property
    def bare(self) -> EnvironmentSpec:
        """The same without its wrappers; the spaces are then unknown."""
        return replace(self, wrappers=(), observation_space=None, action_space=None) if self.wrappers else self

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the same for the same environment; `from_dict` reads them back. `source` is left out."""
        content: dict[str, Any] = {"id": self.id, "kwargs": dict(self.kwargs)}
        if self.step_limit is not None:
            content["step_limit"] = self.step_limit
        if self.wrappers:
            content["wrappers"] = [wrapper.to_dict() for wrapper in self.wrappers]
        if self.imports:
            content["imports"] = list(self.imports)
        for name in ("observation_space", "action_space"):
            if getattr(self, name) is not None:
                content[name] = encode_space(getattr(self, name))
        return content

    @classmethod
    def from_dict(cls, content: object, source: str, *, foreign: bool = True) -> EnvironmentSpec:
        """Reads `to_dict`'s values from a file that is not trusted.

        Args:
            content: the values.
            source: who says so.
            foreign: whether they may come from somebody else; False where they never left this process.

        Raises:
            EvaluationError: they are not such values, or name code to be imported.
        """
        if not isinstance(content, Mapping):
            raise EvaluationError(f"{source}: the environment is not a mapping of id, kwargs, step_limit and wrappers")
        known = ("id", "kwargs", "step_limit", "wrappers", "imports", "observation_space", "action_space")
        for key in content:
            if key not in known:
                raise EvaluationError(
                    f"{source}: environment: unknown key {str(key)[:60]!r}; known: {', '.join(known)}"
                )
        if foreign:
            try:
                refuse_code(content.get("id"), content.get("kwargs"))
            except CodeRefused as error:
                raise EvaluationError(f"{source}: {error}") from None
        spaces = {
            name: decode_space(f"{source}: {name}", content[name])
            for name in ("observation_space", "action_space")
            if isinstance(content.get(name), str)
        }
        imports = content.get("imports") or ()
        if not isinstance(imports, list | tuple) or not all(isinstance(m, str) and len(m) < 200 for m in imports):
            raise EvaluationError(f"{source}: environment: imports are not names of modules")
        return make_spec(
            content.get("id"),
            content.get("kwargs") or {},
            step_limit=content.get("step_limit"),
            wrappers=content.get("wrappers") or (),
            imports=tuple(imports),
            source=source,
            **spaces,
        )


def make_spec(
    env_id: object,
    kwargs: object = None,
    *,
    step_limit: object = None,
    wrappers: object = (),
    imports: tuple[str, ...] = (),
    source: str = "",
    observation_space: gym.Space[Any] | None = None,
    action_space: gym.Space[Any] | None = None,
) -> EnvironmentSpec:
    """An `EnvironmentSpec` of values from anywhere, checked.

    Raises:
        EvaluationError: one of them is not of its kind, or names code to be imported.
    """
    at = f"{source}: " if source else ""
    if not isinstance(env_id, str) or not 0 < len(env_id) <= _MAX_ID or not env_id.isprintable():
        raise EvaluationError(f"{at}the environment's id is not a name: {str(env_id)[:80]!r}")
    if ":" in env_id:
        raise EvaluationError(
            f"{at}environment {env_id!r}: module:Env ids import code; name it in `evaluate --env`, or give --import"
        )
    if _ENV_ID.fullmatch(env_id) is None:
        raise EvaluationError(f"{at}the environment's id {env_id!r} is not of the form [namespace/]name-v0")
    given = {} if kwargs is None else kwargs
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise EvaluationError(f"{at}the environment's kwargs are not a mapping of names to values")
    given, step_limit = _limit_aside(given, step_limit, at)
    if step_limit is not None and (type(step_limit) is not int or not 0 <= step_limit <= _MAX_STEPS):
        raise EvaluationError(f"{at}the environment's step_limit is not a whole number of steps (0: none)")
    if not isinstance(wrappers, Sequence) or isinstance(wrappers, str) or len(wrappers) > _MAX_WRAPPERS:
        raise EvaluationError(f"{at}the environment's wrappers are not a list of at most {_MAX_WRAPPERS}")
    plain = plain_values({key: value for key, value in given.items() if key not in _SILENT}, f"{at}kwargs")
    return EnvironmentSpec(
        env_id,
        plain,
        step_limit,
        tuple(_wrapper(wrapper, at) for wrapper in wrappers),
        imports,
        observation_space,
        action_space,
        source,
    )


def _limit_aside(kwargs: Mapping[str, Any], step_limit: object, at: str) -> tuple[Mapping[str, Any], object]:
    """`gymnasium.make` takes a step limit among the keyword arguments, -1 for none; here it has a place of its own."""
    if "max_episode_steps" not in kwargs:
        return kwargs, step_limit
    others = {key: value for key, value in kwargs.items() if key != "max_episode_steps"}
    limit = kwargs["max_episode_steps"]
    if limit is None:
        return others, step_limit
    limit = NO_LIMIT if limit == -1 else limit
    if step_limit not in (None, limit):
        raise EvaluationError(f"{at}max_episode_steps among the kwargs is {limit} and step_limit is {step_limit}")
    return others, limit


def from_gymnasium(text: str, source: str) -> EnvironmentSpec | None:
    """Reads Gymnasium's JSON of an environment (`EnvSpec.to_json`), as Minari keeps it; nothing it names is imported.

    A time limit of Gymnasium's spec is a fact: none there is none, whatever the registration of today says.

    Returns:
        None where it names no environment that could be made again: no id, or one that would import code.

    Raises:
        EvaluationError: it is damaged.
    """
    try:
        content = parse_json(text)
    except ValueError as error:
        raise EvaluationError(f"{source}: is not JSON ({str(error)[:200]})") from None
    if not isinstance(content, Mapping):
        raise EvaluationError(f"{source}: holds no object")
    env_id = content.get("id")
    if not isinstance(env_id, str) or not 0 < len(env_id) <= _MAX_ID or _ENV_ID.fullmatch(env_id) is None:
        return None
    try:
        refuse_code(env_id, content.get("kwargs"))
    except CodeRefused:
        return None
    entry = content.get("entry_point")
    limit = content.get("max_episode_steps") or NO_LIMIT if "max_episode_steps" in content else None
    wrappers = []
    for wrapper in content.get("additional_wrappers") or ():
        if not isinstance(wrapper, Mapping) or not isinstance(wrapper.get("name"), str):
            raise EvaluationError(f"{source}: a wrapper is not an object with a name")
        module, _, name = str(wrapper.get("entry_point", "")).partition(":")
        kwargs = wrapper.get("kwargs")
        wrappers.append(
            {"name": name or wrapper["name"], "module": module, "kwargs": kwargs or {}, "recorded": kwargs is not None}
        )
    package = str(entry).partition(":")[0].partition(".")[0] if isinstance(entry, str) else ""
    return make_spec(
        env_id,
        content.get("kwargs"),
        step_limit=limit,
        wrappers=wrappers,
        imports=(package,) if package.isidentifier() and package not in ("gymnasium", "offline_robust") else (),
        source=source,
    )


def registered_limit(env_id: str) -> int | None:
    """The step limit that an id is registered with, `NO_LIMIT` for none; None where it is not registered here."""
    registered = gym.registry.get(env_id)
    return None if registered is None else registered.max_episode_steps or NO_LIMIT


def _wrapper(content: object, at: str) -> WrapperSpec:
    if isinstance(content, WrapperSpec):
        return content
    if isinstance(content, str):
        content = {"name": content}
    if not isinstance(content, Mapping) or not isinstance(content.get("name"), str):
        raise EvaluationError(f"{at}a wrapper is not a name, or a mapping of name and kwargs")
    name, module = content["name"], content.get("module", _GYMNASIUM)
    kwargs = content.get("kwargs") or {}
    if not name.isidentifier() or len(name) > _MAX_ID or not isinstance(module, str) or len(module) > _MAX_ID:
        raise EvaluationError(f"{at}a wrapper's name is not one of a class: {name[:80]!r}")
    if not isinstance(kwargs, Mapping) or not all(isinstance(key, str) for key in kwargs):
        raise EvaluationError(f"{at}the kwargs of {name} are not a mapping of names to values")
    if module.startswith(f"{_GYMNASIUM}."):  # where in Gymnasium a class lies is no difference: users do not write it
        module = _GYMNASIUM
    return WrapperSpec(name, plain_values(kwargs, f"{at}{name}"), module, content.get("recorded") is not False)


def plain_values(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A copy of keyword arguments as files hold them: numbers (infinite ones too), text, lists, mappings.

    Raises:
        EvaluationError: something else is among them, they are nested too deep, or there are too many.
    """
    counted = [0]

    def copied(value: Any, depth: int) -> Any:
        counted[0] += 1
        if depth > _MAX_DEPTH or counted[0] > _MAX_ITEMS:
            raise EvaluationError(
                f"{where}: more than {_MAX_ITEMS:,} values, or nested deeper than {_MAX_DEPTH} levels"
            )
        if hasattr(value, "tolist"):  # NumPy's scalars and arrays
            value = value.tolist()
        if value is None or isinstance(value, bool | float | str):
            return value
        if isinstance(value, int):
            if value.bit_length() > 64:
                raise EvaluationError(f"{where}: holds a whole number of more than 64 bits")
            return value
        if isinstance(value, Mapping):
            return {str(key): copied(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [copied(item, depth + 1) for item in value]
        raise EvaluationError(f"{where}: holds a {type(value).__name__}; write numbers, texts, lists and mappings")

    return {str(key): copied(value, 1) for key, value in values.items()}


def with_recorded(spec: EnvironmentSpec, recorded: Mapping[str, gym.Space[Any]]) -> EnvironmentSpec:
    """The same with the spaces that its data state, where it has none."""
    return replace(
        spec,
        observation_space=spec.observation_space or recorded.get("observation_space"),
        action_space=spec.action_space or recorded.get("action_space"),
    )
