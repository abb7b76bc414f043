"""Bundled datasets and the recipes they are made from: ``datasets/<name>/recipe.yaml``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from offline_robust.datasets.collect import collect
from offline_robust.datasets.sources import RECIPE, bundled_names
from offline_robust.datasets.transitions import TransitionDataset
from offline_robust.datasets.writers import write_minari
from offline_robust.errors import ConfigError, DatasetNotFound, nearest
from offline_robust.files import bundled
from offline_robust.networks import load_policy

_MAX_BYTES = 2**16


class Recipe(BaseModel):
    """How a dataset is made. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(pattern=r"^[a-z0-9][-a-z0-9_]*$")
    """Folder name, and the id ``offline-robust/<name>-v0``."""
    env_id: str
    """A registered Gymnasium environment."""
    env_kwargs: dict[str, Any] = Field(default_factory=dict)
    """For `gymnasium.make`."""
    policy: str | None = None
    """A folder of the bundled models, which holds policy.safetensors; uniform random actions when absent."""
    epsilon: float = Field(ge=0.0, le=1.0)
    """Probability of a uniform action, step by step."""
    transitions: int = Field(ge=1, le=100_000_000)
    """Rows."""
    seed: int = Field(ge=0)
    """Of start states and exploration."""
    description: str
    """One or two sentences for listings."""

    @property
    def dataset_id(self) -> str:
        """The id in Minari's metadata."""
        return f"offline-robust/{self.name}-v0"


def load_recipe(name: str | Path) -> Recipe:
    """Reads the recipe of a bundled dataset, or a recipe file.

    Raises:
        DatasetNotFound: no such recipe.
        ConfigError: not YAML, an unknown key (with the nearest known one), or a value out of range.
    """
    path = Path(name) if Path(name).suffix in (".yaml", ".yml") else bundled("datasets") / str(name) / RECIPE
    if not path.is_file():
        known = bundled_names()
        raise DatasetNotFound(f"no recipe '{name}' ({path}){nearest(str(name), known) if known else ''}")
    if path.stat().st_size > _MAX_BYTES:
        raise ConfigError(f"{path}: is longer than {_MAX_BYTES:,} bytes; a recipe is a dozen lines")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no keys; a recipe has {', '.join(Recipe.model_fields)}")
    for key in content:
        if key not in Recipe.model_fields:
            raise ConfigError(f"{path}: unknown key '{key}'{nearest(str(key), Recipe.model_fields)}")
    try:
        return Recipe(**content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def collect_recipe(
    name: str | Path,
    out: str | Path | None = None,
    *,
    parallel: int = 64,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> TransitionDataset:
    """Makes a bundled dataset anew, bit for bit on the same library versions and kind of processor.

    Args:
        name: a bundled dataset, or a recipe file.
        out: a folder; the data are written under its ``data`` in Minari's layout. Nothing is written when None.
        parallel: environments that are advanced together; the result does not depend on it.
        overwrite: replace existing data.
        progress: called with the number of rows so far.

    Raises:
        DatasetNotFound: no such recipe.
        ConfigError: the recipe is wrong.
        CheckpointError: the behaviour policy is missing or damaged.
        DatasetError: the environment does not fit the policy, or ``out`` holds data already.
    """
    recipe = load_recipe(name)
    policy = None if recipe.policy is None else load_policy(bundled("models") / recipe.policy / "policy.safetensors")
    dataset = collect(
        policy,
        recipe.env_id,
        transitions=recipe.transitions,
        epsilon=recipe.epsilon,
        seed=recipe.seed,
        parallel=parallel,
        env_kwargs=recipe.env_kwargs,
        progress=progress,
    )
    if out is not None:
        write_minari(
            dataset,
            out,
            dataset_id=recipe.dataset_id,
            description=recipe.description,
            overwrite=overwrite,
            algorithm_name=f"{recipe.policy or 'random'}, epsilon {recipe.epsilon:g}",
        )
    return dataset
