"""How datasets are made: ``datasets/<name>/recipe.yaml``, or a recipe of one's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from offline_robust.datasets.sources import bundled_names, find_recipe, policy_path, read_recipe
from offline_robust.environment import EnvironmentSpec, imported, make_spec
from offline_robust.envs import Perturbation
from offline_robust.errors import DatasetNotFound, nearest
from offline_robust.settings import Settings, validated
from offline_robust.untrusted import CodeRefused, refuse_code

_MAX_ROWS = 100_000_000
_SIZE = re.compile(r"\d+[km]")


class _Strict(Settings):
    model_config = ConfigDict(strict=True)


class Change(_Strict):
    """One parameter of the physics at another level during all of the collection; see `Perturbation`."""

    parameter: str
    """A name that the environment offers, such as ``ctrlrange``."""
    level: float
    """The factor, value or increment, depending on the mode."""
    mode: Literal["scale", "absolute", "add"] | None = None
    """How the level acts; the parameter's own way when absent."""

    def perturbation(self) -> Perturbation:
        """The same, as evaluation has it."""
        return Perturbation(self.parameter, self.level, self.mode)


class RecipePart(_Strict):
    """One behaviour and the rows it gives. Unknown keys are refused."""

    transitions: int = Field(ge=1, le=_MAX_ROWS)
    """Rows."""
    policy: str | None = None
    """A folder of the bundled models, or the path of a policy file or a run's folder, seen from the recipe; uniform
    random actions when absent."""
    epsilon: float = Field(ge=0.0, le=1.0)
    """Probability of a uniform action, step by step."""
    stochastic: bool = False
    """Whether the policy's action is drawn from its distribution rather than its mean."""
    perturb: list[Change] = Field(default_factory=list)
    """Physics that differ from the nominal ones."""


class Recipe(_Strict):
    """How a dataset is made: one behaviour, or several in ``parts``. Unknown keys are refused."""

    name: str = Field(pattern=r"^[a-z0-9][-a-z0-9_]*$", max_length=100)
    """Folder name, and the id ``offline-robust/<name>-v0``."""
    env_id: str = Field(min_length=1, max_length=200)
    """A registered Gymnasium environment. (``module:Env-v0`` would import code and is refused.)"""
    env_kwargs: dict[str, Any] = Field(default_factory=dict)
    """For `gymnasium.make`."""
    step_limit: int | None = Field(default=None, ge=0, le=1_000_000_000)
    """Steps at which an episode is cut; 0 never, as registered when absent."""
    wrappers: list[dict[str, Any]] = Field(default_factory=list)
    """Wrappers from the inside out, as ``{name: RescaleAction, kwargs: {min_action: -1, max_action: 1}}``."""
    seed: int = Field(ge=0)
    """Of start states and exploration."""
    description: str = Field(max_length=2_000)
    """One or two sentences for listings."""
    notes: str = Field(default="", max_length=10_000)
    """What else the card shall say: provenance in the literature, limits."""
    larger: dict[str, int] = Field(default_factory=dict)
    """Other sizes: ``1m: 1000000`` makes ``<name>-1m`` known, the same recipe with so many rows."""
    transitions: int | None = Field(default=None, ge=1, le=_MAX_ROWS)
    """This and the following: see `RecipePart`. They are left out where there are ``parts``."""
    policy: str | None = None
    epsilon: float | None = Field(default=None, ge=0.0, le=1.0)
    stochastic: bool = False
    perturb: list[Change] = Field(default_factory=list)
    parts: list[RecipePart] | None = Field(default=None, min_length=1, max_length=100)
    """A mixture: parts one after the other, with random streams of their own."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        try:
            refuse_code(self.env_id, self.env_kwargs)
        except CodeRefused as error:
            raise ValueError(f"env_id: {error}") from None
        single = {key for key in RecipePart.model_fields if key in self.model_fields_set}
        if self.parts is not None and single:
            raise ValueError(f"{', '.join(sorted(single))}: belongs into the parts where there are parts")
        if self.parts is None and (self.transitions is None or self.epsilon is None):
            raise ValueError(f"{'transitions' if self.transitions is None else 'epsilon'}: missing (or parts)")
        for size, rows in self.larger.items():
            if not _SIZE.fullmatch(size):
                raise ValueError(f"larger.{size}: sizes are called like 500k or 1m")
            if not 1 <= rows <= _MAX_ROWS or any(part.transitions * rows % self.rows for part in self.mixture):
                raise ValueError(f"larger.{size}: {rows:,} rows cannot be shared out among the parts")
        return self

    @property
    def mixture(self) -> list[RecipePart]:
        """The parts; a single one where the recipe has no ``parts``."""
        if self.parts is not None:
            return self.parts
        own = {key: getattr(self, key) for key in RecipePart.model_fields}
        return [RecipePart.model_construct(**own)]

    @property
    def environment(self) -> EnvironmentSpec:
        """What the data are collected in, whole.

        Raises:
            EvaluationError: keyword arguments or wrappers are not plain values.
        """
        return make_spec(
            self.env_id,
            self.env_kwargs,
            step_limit=self.step_limit,
            wrappers=self.wrappers,
            imports=imported(),
            source="the recipe",
        )

    @property
    def rows(self) -> int:
        """Rows of all parts together."""
        return sum(part.transitions for part in self.mixture)

    @property
    def dataset_id(self) -> str:
        """The id in Minari's metadata."""
        return f"offline-robust/{self.name}-v0"

    def sized(self, size: str) -> Recipe:
        """The recipe of another size, one of the keys of ``larger``."""
        rows = self.larger[size]
        about = self.model_dump(exclude_unset=True) | {"name": f"{self.name}-{size}", "larger": {}}
        if self.parts is None:
            about["transitions"] = rows
        else:
            for part in about["parts"]:
                part["transitions"] = part["transitions"] * rows // self.rows
        return Recipe(**about)


def load_recipe(name: str | Path) -> Recipe:
    """Reads the recipe of a bundled dataset, or a recipe file.

    Raises:
        DatasetNotFound: no such recipe.
        ConfigError: not YAML of plain values, an unknown key (with the nearest known one), or a value out of range.
    """
    path, size = recipe_file(name)
    recipe = parse_recipe(read_recipe(path), str(path))
    return recipe.sized(size) if size else recipe


def recipe_file(name: str | Path) -> tuple[Path, str]:
    """The file of a bundled recipe, or the file itself, and which of its larger sizes is meant ("" for none).

    Raises:
        DatasetNotFound: there is none.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path, ""
    found = find_recipe(str(name))
    if found is None:
        known = bundled_names()
        raise DatasetNotFound(f"no recipe '{name}'{nearest(str(name), known) if known else ''}")
    return found


def parse_recipe(content: Mapping[str, Any], where: str) -> Recipe:
    """Checks the values of a recipe.

    Raises:
        ConfigError: names the first wrong key.
    """
    return validated(Recipe, content, where)


def policies(recipe: Recipe, beside: Path) -> list[Path | None]:
    """The policy file of each part, None where it acts at random; paths are seen from the folder ``beside``."""
    return [None if part.policy is None else policy_path(part.policy, beside) for part in recipe.mixture]
