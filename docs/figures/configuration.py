"""Prints docs/reference/configuration.md from the configuration models, so that the page cannot go stale.

python docs/figures/configuration.py > docs/reference/configuration.md
python docs/figures/configuration.py --check        # leaves with 1 when the page differs
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from offline_robust.baselines import PREFIX, D3RLPyConfig
from offline_robust.experiments.config import (
    EnvironmentConfig,
    EvaluationConfig,
    RunConfig,
    TrainingConfig,
    WandbConfig,
)
from offline_robust.learners import LEARNERS, LearnerConfig
from offline_robust.models import MODELS

PAGE = Path(__file__).parents[1] / "reference" / "configuration.md"
SIGNS = {"ge": "≥ ", "gt": "> ", "le": "≤ ", "lt": "< "}
MISSING = {
    ("wandb", "project"): "Name of the W&B project.",
    ("wandb", "entity"): "W&B user or team; null is the key's default.",
    ("wandb", "tags"): "Tags beside the library's version.",
    ("learner", "name"): "Which learner; decides which of the tables below holds.",
    ("model", "name"): "Which nominal model.",
    ("run", "learner"): "The learner: a mapping with a `name`; see below.",
    ("run", "model"): "The nominal model: a mapping with a `name`, for learners that have one; see below.",
    ("run", "training"): "See below.",
    ("run", "evaluation"): "See below.",
    ("run", "wandb"): "See below.",
}
"""Meanings of the fields whose models do not describe them."""

HEAD = """\
# Configuration

<!-- Printed by docs/figures/configuration.py. Do not edit: change the models and print again. -->

A configuration is one YAML file. `offline-robust train FILE` reads it, checks every key and value before anything
starts, and writes the resolved form, with every default filled in, to the run's `config.yaml`. Unknown keys are
refused with the nearest known name. `--set KEY=VALUE` changes one key; the key is dotted (`learner.delta`) and the
value is read as YAML. [How to configure and resume](../how-to/configure-and-resume.md) shows both in use.

"DR-SAC: ..." in a meaning is the value of the paper's released code (arXiv 2506.12622); "Ours" marks what neither the
paper nor its code has.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, section("Top level", "", RunConfig, "run")]
    ours = {name: kind.Config for name, kind in LEARNERS.own.items() if not name.startswith(PREFIX)}
    shared = set(LearnerConfig.model_fields)
    parts.append(section("`learner`, all of them", "learner", LearnerConfig, "learner", shared))
    for name, config in ours.items():
        own = set(config.model_fields) - shared
        if own:
            parts.append(section(f"`learner`, name `{name}`", "learner", config, "learner", own))
    bridge = ("config", "version")
    parts.append(section("`learner`, name `d3rlpy:...`", "learner", D3RLPyConfig, "learner", bridge))
    for name, model in MODELS.own.items():
        parts.append(section(f"`model`, name `{name}`", "model", model.Config, "model"))
    sections: dict[str, type[BaseModel]] = {
        "env": EnvironmentConfig,
        "training": TrainingConfig,
        "evaluation": EvaluationConfig,
        "wandb": WandbConfig,
    }
    for name, kind in sections.items():
        parts.append(section(f"`{name}`", name, kind, name))
    return "\n".join(parts)


def section(title: str, prefix: str, model: type[BaseModel], group: str, only: Iterable[str] | None = None) -> str:
    """A heading and the table of a model's fields, in their order."""
    lines = [f"## {title}", "", "| key | default | values | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if only is not None and name not in only:
            continue
        key = f"{prefix}.{name}" if prefix else name
        meaning = (field.description or MISSING[group, name]).replace("None", "null").replace("|", "&#124;")
        if name == "name":
            known = [name for name in (LEARNERS if group == "learner" else MODELS).own if not name.startswith(PREFIX)]
            names = " or ".join(f"`{name}`" for name in known)
            lines.append(f"| `{key}` | required | {names} | {meaning} |")
        else:
            lines.append(f"| `{key}` | {shown_default(field)} | {values(field)} | {meaning} |")
    return "\n".join(lines) + "\n"


def shown_default(field: FieldInfo) -> str:
    """The default as YAML would hold it."""
    if field.is_required():
        return "required"
    default = field.default if field.default is not PydanticUndefined else field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return ""
    if default is None:
        return "`null`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def values(field: FieldInfo) -> str:
    """Type and range in words."""
    text = kind(field.annotation)
    found: list[str] = []
    for item in field.metadata:
        found += [f"{sign}{number(getattr(item, name))}" for name, sign in SIGNS.items() if hasattr(item, name)]
        if getattr(item, "min_length", None):
            found.append("not empty")
    return ", ".join([text, *found])


def kind(annotation: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{item}`" for item in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if item is type(None) else kind(item) for item in arguments)
    if origin is tuple:
        return f"list of {kind(arguments[0])}s"
    if origin in (dict, Mapping) or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "mapping"
    return {int: "whole number", float: "number", str: "text", bool: "true or false"}[annotation]


def number(value: float) -> str:
    """A bound, with thousands separated."""
    if isinstance(value, int):
        return "2^63 − 1" if value == 2**63 - 1 else f"{value:,}"
    return f"{value:g}"


def main() -> None:
    """Prints the page, or compares it with the file."""
    text = page()
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") != text:
            sys.exit(f"{PAGE} is stale: python docs/figures/configuration.py > {PAGE}")
        return
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
