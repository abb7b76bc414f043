"""Settings as frozen pydantic models, and what is wrong with values for them in one line."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from offline_robust.errors import ConfigError, nearest

shown = reprlib.Repr()  # shortens before it formats
shown.maxstring = shown.maxother = 80
shown.maxlevel = 3

_MEMBERS = ("tuple[", "list[", "dict[", "function-")
"""How what pydantic calls the members of a union begins: it puts them among the keys of a place."""


class Settings(BaseModel):
    """Values that do not change; unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


SettingsT = TypeVar("SettingsT", bound=BaseModel)


def validated(kind: type[SettingsT], values: Any, where: str, section: str = "", key: str = "key") -> SettingsT:
    """Validates values as a model.

    Args:
        kind: the model.
        values: what is to become one.
        where: the file or block the values come from.
        section: the dotted key that they stand at in it, "" for all of it.
        key: what a key is called here.

    Raises:
        ConfigError: one line that names the first wrong key, what is wrong, and the nearest known keys.
    """
    try:
        return kind.model_validate(values)
    except ConfigError as error:  # of a part that checks itself
        raise ConfigError(f"{where}: {error}") from None
    except ValidationError as error:
        problems = error.errors(include_url=False)
    # A key that is unknown is often the one that is missing, misspelt.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    blocks = list(_blocks(kind, first["loc"]))
    place = [*([section] if section else []), *(part for part, _ in blocks)]
    path = ".".join(str(part)[:80] for part in place)
    if first["type"] == "extra_forbidden":
        name, block = blocks[-1]
        known = [field.alias or field_name for field_name, field in block.model_fields.items()] if block else []
        raise ConfigError(f"{where}: unknown {key} '{path}'{nearest(str(name)[:80], known)}") from None
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        said = "missing"
    elif path:  # a message on the whole has its values in it
        said += f", got {shown.repr(first['input'])}"
    raise ConfigError(": ".join(part for part in (where, path, said) if part)) from None


def _blocks(kind: type[BaseModel], place: Sequence[int | str]) -> Iterator[tuple[int | str, type[BaseModel] | None]]:
    """The keys of a place in a model, each with the model that it is a key of; None of what is no model's."""
    block: type[BaseModel] | None = kind
    for part in place:
        if isinstance(part, str) and _is_member(part, block):
            continue
        yield part, block
        if isinstance(part, str):
            fields = block.model_fields if block is not None else {}
            field = fields.get(part) or next((field for field in fields.values() if field.alias == part), None)
            block = next(_models(field.annotation), None) if field is not None else None


def _is_member(part: str, block: type[BaseModel] | None) -> bool:
    return part in ("int", "str") or part.startswith(_MEMBERS) or (block is not None and part == block.__name__)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a type names, ``list[Contender] | None`` being one of `Contender`."""
    if isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
