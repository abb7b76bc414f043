"""YAML from anyone: configs, suites and recipes are read by a loader that makes plain values only.

Numbers are those of `numerals`: PyYAML alone makes 8 of ``010``, 3,661 of ``1:1:1`` and text of ``1e-4``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from offline_robust.errors import UserError
from offline_robust.numerals import LIKE_A_NUMBER, decimal, whole

MAX_DEPTH = 20
"""Levels of nesting that are read."""
MAX_NODES = 200_000
"""Values and keys of one document that are read: some seconds."""

_TAG = "tag:yaml.org,2002:"
_INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_FLOAT = re.compile(rf"(?:{_INFINITE.pattern}|(?![^.eE]*\Z)(?![-+]?0[xXoObB])(?:{LIKE_A_NUMBER.pattern}))\Z", re.ASCII)
_INT = re.compile(rf"(?:{LIKE_A_NUMBER.pattern})\Z", re.ASCII)
_NUMBERS = ((_TAG + "float", _FLOAT), (_TAG + "int", _INT))
_FIRST = "-+.0123456789"
"""What numbers begin with."""


def _resolvers(known: dict[str, Any], *without: str) -> dict[str, Any]:
    """By first character, what plain text is read as; the numbers of `numerals` last."""
    tags = [_TAG + kind for kind in without]
    kept = {first: [(tag, text) for tag, text in found if tag not in tags] for first, found in known.items()}
    return kept | {first: [*kept.get(first, []), *_NUMBERS] for first in _FIRST}


class PlainLoader(yaml.SafeLoader):
    """YAML of plain values: no aliases (a few lines of them stand for gigabytes), dates, bytes or deep nesting."""

    yaml_constructors = {  # noqa: RUF012 - a class attribute of yaml's own
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }
    yaml_implicit_resolvers = _resolvers(yaml.SafeLoader.yaml_implicit_resolvers, "int", "float", "timestamp")
    depth = nodes = 0

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Builds a mapping, unless a key of it is there twice: which of the two was meant, nobody can tell."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: the key {name[:60]!r} is there twice")
            seen.add(name)
        return node

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Builds a node of the document, unless it is an alias or lies too deep."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read, write the value out")
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise yaml.YAMLError(f"more than {MAX_NODES:,} values and keys")
        if self.depth >= MAX_DEPTH:
            raise yaml.YAMLError(f"nested deeper than {MAX_DEPTH} levels")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _number(loader: PlainLoader, node: Any) -> int | float:
    text = str(loader.construct_scalar(node))
    try:
        if node.tag == _TAG + "int":
            return whole(text)
        return float(text.replace(".", "")) if _INFINITE.fullmatch(text) else decimal(text)
    except ValueError as problem:
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {problem} (text goes in quotes)") from None


class _PlainDumper(yaml.SafeDumper):
    """Puts text in quotes that `PlainLoader`, or another reader of YAML, would take for something else."""

    yaml_implicit_resolvers = _resolvers(yaml.SafeDumper.yaml_implicit_resolvers)


for _kind in ("int", "float"):
    PlainLoader.add_constructor(_TAG + _kind, _number)


def dump_yaml(content: Any, **options: Any) -> str:
    """YAML of plain values that `PlainLoader` reads as the same values; ``options`` as for ``yaml.dump``."""
    return str(yaml.dump(content, Dumper=_PlainDumper, sort_keys=False, **options))


def read_yaml(path: Path, what: str, most: int, error: type[UserError]) -> Any:
    """The content of a YAML file of at most ``most`` bytes.

    Raises:
        error: too long, unreadable, or not YAML of plain values; ``what`` says what it should have been.
    """
    try:
        if path.exists() and not path.is_file():
            raise error(f"{path}: not a file, expected {what}")
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise error(f"{path}: larger than {most:,} bytes, not {what}")
        return yaml.load(content.decode("utf-8"), PlainLoader)
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"{path}: cannot read {what} ({problem})") from None
    except (yaml.YAMLError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as problem:
        raise error(f"{path}: not valid YAML ({' '.join(str(problem).split())[:300]})") from None
