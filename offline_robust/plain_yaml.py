"""YAML from anyone: configs, suites and recipes are read by a loader that makes plain values only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from offline_robust.errors import UserError

MAX_DEPTH = 20
"""Levels of nesting that are read."""
MAX_NODES = 200_000
"""Values and keys of one document that are read: some seconds."""


class PlainLoader(yaml.SafeLoader):
    """YAML of plain values: no aliases (a few lines of them stand for gigabytes), dates, bytes or deep nesting."""

    yaml_constructors = {  # noqa: RUF012 - a class attribute of yaml's own
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }
    yaml_implicit_resolvers = {  # noqa: RUF012 - dates are text
        first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
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
