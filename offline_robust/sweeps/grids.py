"""Sweeps as data: one YAML file becomes many runs, each with its own resolved configuration, name and folder."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import Field

from offline_robust.datasets.sources import find_recipe, read_recipe
from offline_robust.environment import EnvironmentSpec, make_spec
from offline_robust.errors import ConfigError, DatasetNotFound, nearest
from offline_robust.experiments.config import RunConfig, load_config
from offline_robust.files import bundled, expanded
from offline_robust.plain_yaml import read_yaml
from offline_robust.settings import Settings, validated

MAX_CELLS = 10_000
"""Runs of one sweep, at most."""

MAX_KEYS = 256
"""Keys of the grid, and of one item of the list."""

MAX_SEEDS = 1_000
_MAX_BYTES = 1_000_000
_MAX_NAME = 120
_OWN_KEYS = ("base", "name")
"""Keys of a list item that are not overrides."""


class SweepEvaluation(Settings):
    """The evaluation that all runs of a sweep share; what is left out comes from the first run's configuration."""

    suite: str | None = Field(
        None, max_length=4096, description="A suite's name or file; several are separated by commas."
    )
    episodes: int | None = Field(None, ge=1, le=1_000_000, description="Episodes for each condition.")
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="Seed of start states and noise.")


class SweepConfig(Settings):
    """Many runs: every item of the list, with every point of the grid, with every seed."""

    base: str | dict[str, Any] | None = Field(
        None, description="What every run starts from: a YAML file, a bundled name, or the values themselves."
    )
    grid: dict[str, tuple[Any, ...]] | None = Field(
        None, description="Dotted keys to lists of values; every combination of them is run."
    )
    items: tuple[dict[str, Any], ...] | None = Field(
        None,
        alias="list",
        description="Sets of overrides by dotted key; an item may have a `base` of its own, and a `name`.",
    )
    seeds: int | tuple[int, ...] = Field(1, description="How many seeds (0, 1, ...), or the seeds themselves.")
    evaluation: SweepEvaluation = SweepEvaluation()
    title: str = Field("", max_length=300, description="Title of the report.")

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds themselves."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    def to_dict(self) -> dict[str, Any]:
        """Plain values that make the same cells wherever they are read: bases are written out."""
        content: dict[str, Any] = {"title": self.title} if self.title else {}
        if self.base is not None:
            content["base"] = _written_out(self.base)
        if self.grid is not None:
            content["grid"] = {key: list(values) for key, values in self.grid.items()}
        if self.items is not None:
            content["list"] = [_item_written_out(item) for item in self.items]
        evaluation = self.evaluation.model_dump(exclude_none=True)
        return content | {"seeds": list(self.seed_list)} | ({"evaluation": evaluation} if evaluation else {})


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        name: of its folder; it says in what the run differs from the sweep's base, and its seed.
        config: resolved, the sweep's evaluation included.
        item: position in the sweep's list; 0 where there is none.
        overrides: what the list and the grid set, by dotted key, without the seed.
    """

    name: str
    config: RunConfig
    item: int
    overrides: Mapping[str, Any]


def load_sweep(source: str | Path | Mapping[str, Any]) -> SweepConfig:
    """Reads and checks a sweep: a YAML file, a bundled name (of ``configs/sweeps``), or the values.

    Raises:
        ConfigError: one line that names the key, what is wrong and the nearest known keys.
    """
    if isinstance(source, Mapping):
        values, path = source, "sweep"
    else:
        values, path = sweep_values(source)
        if "comparison" in values:
            raise ConfigError(f"{path}: a comparison, not a sweep: offline-robust compare {str(source)[:80]}")
    return validated(SweepConfig, values, path)


def sweep_values(source: str | Path) -> tuple[Mapping[str, Any], str]:
    """The content of a sweep's or comparison's YAML file, and where it was found.

    Raises:
        ConfigError: no such file, or it holds no mapping.
    """
    path = Path(source)
    folder = bundled("configs") / "sweeps"
    if not _is_file(path):
        path = folder / f"{source}.yaml"
    if not _is_file(path):
        known = [found.stem for found in folder.glob("*.yaml")]
        raise ConfigError(f"{str(source)[:80]}: no such sweep file{nearest(str(source)[:80], known) if known else ''}")
    values = read_yaml(path, "a sweep", _MAX_BYTES, ConfigError)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping (base, grid, list, seeds, evaluation)")
    return values, str(path)


def expand(sweep: SweepConfig, where: str = "sweep") -> tuple[Cell, ...]:
    """The runs of a sweep, all checked: seed by seed, in the order of the list, then of the grid's last key first.

    All runs in one environment are evaluated alike: as the first of them says where `SweepConfig.evaluation` is silent.

    Raises:
        ConfigError: nothing to run, too many runs, a key that a sweep does not set, a configuration that is not
            valid, or two runs that are the same.
    """
    seeds = _checked_seeds(sweep, where)
    points = _grid(sweep, where)
    items = _items(sweep, where)
    count = len(seeds) * len(points) * len(items)
    if count > MAX_CELLS:
        raise ConfigError(f"{where}: {count:,} runs, at most {MAX_CELLS:,} are allowed: shorten the grid or the list")
    bases = _Bases(where)
    cells: list[Cell] = []
    alike: dict[str, RunConfig] = {}
    for seed, (place, item), point in itertools.product(seeds, enumerate(items), points):
        own = {key: value for key, value in item.items() if key not in _OWN_KEYS}
        twice = sorted(own.keys() & point.keys())
        if twice:
            raise ConfigError(f"{where}: '{twice[0]}' is in the grid and in the list; keep it in one of them")
        base = item.get("base", sweep.base)
        if base is None:
            raise ConfigError(f"{where}: base is missing: a bundled config's name, a YAML file, or the values")
        overrides = own | point
        _refuse_nested(overrides, where)
        name = _name(_item_name(item, own), point, seed)
        config = _resolve(bases.values(base), overrides | {"seed": seed}, f"{where}: {name}")
        known = known_environment(config.dataset)
        place_of = config.env_id or (known.id if known is not None else config.dataset)
        first = alike.setdefault(place_of, config)
        cells.append(Cell(name, _evaluated_as(config, first, sweep.evaluation), place, overrides))
    _refuse_twins(cells, where)
    return tuple(cells)


@lru_cache(maxsize=256)
def known_environment(dataset: str) -> EnvironmentSpec | None:
    """The environment that a bundled dataset's recipe names; None of any other, for that takes reading its data."""
    recipe = None if expanded(dataset, DatasetNotFound).exists() else find_recipe(dataset)
    content = read_recipe(recipe[0]) if recipe is not None else {}
    if not content.get("env_id"):
        return None
    kwargs, limit, wrappers = content.get("env_kwargs"), content.get("step_limit"), content.get("wrappers") or ()
    return make_spec(content["env_id"], kwargs, step_limit=limit, wrappers=wrappers, source=f"{dataset}'s recipe")


def digest(config: RunConfig) -> str:
    """A hash of everything that a run's weights and results follow from: its configuration without ``wandb``."""
    values = {key: value for key, value in config.to_dict().items() if key != "wandb"}
    return sha256(repr(_sorted(values)).encode()).hexdigest()


class _Bases:
    """Configurations to start from, each read once."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._read: dict[str, dict[str, Any]] = {}

    def values(self, base: Any) -> Mapping[str, Any]:
        if isinstance(base, Mapping):
            return base
        if not isinstance(base, str):
            raise ConfigError(f"{self._where}: base: expected a config's name or its values, got {str(base)[:80]!r}")
        if base not in self._read:
            self._read[base] = load_config(base).to_dict()
        return self._read[base]


def _written_out(base: Any) -> Any:
    return load_config(base).to_dict() if isinstance(base, str) else base


def _item_written_out(item: Mapping[str, Any]) -> dict[str, Any]:
    """The item with its base's values, and the name that it has from the base's."""
    if "base" not in item:
        return dict(item)
    own = {key: value for key, value in item.items() if key not in _OWN_KEYS}
    return {"name": _item_name(item, own), **item, "base": _written_out(item["base"])}


def _checked_seeds(sweep: SweepConfig, where: str) -> tuple[int, ...]:
    if isinstance(sweep.seeds, int) and not 1 <= sweep.seeds <= MAX_SEEDS:
        raise ConfigError(f"{where}: seeds: a count from 1 to {MAX_SEEDS:,}, or a list; got {sweep.seeds}")
    seeds = sweep.seed_list
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**63 for seed in seeds):
        raise ConfigError(f"{where}: seeds: a list of different whole numbers from 0, got {str(list(seeds))[:80]}")
    return seeds


def _grid(sweep: SweepConfig, where: str) -> list[dict[str, Any]]:
    if sweep.grid is None:
        return [{}]
    if not sweep.grid:
        raise ConfigError(f"{where}: grid: is empty; give keys and their values, or leave it out")
    _check_count(len(sweep.grid), f"{where}: grid")
    for key, values in sweep.grid.items():
        _check_key(key, f"{where}: grid")
        if not values:
            raise ConfigError(f"{where}: grid: '{key[:80]}' has no values")
    size = math.prod(len(values) for values in sweep.grid.values())
    if size > MAX_CELLS:
        raise ConfigError(f"{where}: the grid has {size:,} points, at most {MAX_CELLS:,} runs are allowed")
    return [dict(zip(sweep.grid, point, strict=True)) for point in itertools.product(*sweep.grid.values())]


def _items(sweep: SweepConfig, where: str) -> Sequence[Mapping[str, Any]]:
    if sweep.items is None:
        return [{}]
    if not sweep.items:
        raise ConfigError(f"{where}: list: is empty; give sets of overrides, or leave it out")
    if len(sweep.items) > MAX_CELLS:
        raise ConfigError(f"{where}: list: {len(sweep.items):,} items, at most {MAX_CELLS:,} runs are allowed")
    for place, item in enumerate(sweep.items):
        _check_count(len(item), f"{where}: list[{place}]")
        for key in item:
            if key not in _OWN_KEYS:
                _check_key(key, f"{where}: list[{place}]")
        if "name" in item and not (isinstance(item["name"], str) and _slug(item["name"])):
            raise ConfigError(f"{where}: list[{place}]: name: expected a short text, got {str(item['name'])[:80]!r}")
    return sweep.items


def _refuse_nested(overrides: Mapping[str, Any], where: str) -> None:
    """Refuses a key together with a part of it: the later would undo the earlier, and the run's name tell of both."""
    for part in overrides:
        for dot in re.finditer(r"\.", part):
            if (key := part[: dot.start()]) in overrides:
                raise ConfigError(f"{where}: '{key[:80]}' and '{part[:80]}' set the same thing; keep one of them")


def _check_count(keys: int, where: str) -> None:
    if keys > MAX_KEYS:
        raise ConfigError(f"{where}: {keys:,} keys, at most {MAX_KEYS} are allowed; put them into a base")


def _check_key(key: str, where: str) -> None:
    section = key.partition(".")[0]
    if section == "seed":
        raise ConfigError(f"{where}: '{key[:80]}': seeds have a key of their own (seeds: 5)")
    if section == "evaluation":
        raise ConfigError(
            f"{where}: '{key[:80]}': all runs are evaluated alike; set it once, under the sweep's evaluation"
        )
    if section not in RunConfig.model_fields:
        raise ConfigError(f"{where}: unknown key '{key[:80]}'{nearest(section[:80], RunConfig.model_fields)}")


def _resolve(base: Mapping[str, Any], overrides: Mapping[str, Any], where: str) -> RunConfig:
    try:
        return load_config(base, overrides)
    except ConfigError as error:
        raise ConfigError(f"{where}: {str(error).removeprefix('config: ')}") from None


def _evaluated_as(config: RunConfig, first: RunConfig, shared: SweepEvaluation) -> RunConfig:
    given = shared.model_dump(exclude_none=True)
    return config.model_copy(update={"evaluation": first.evaluation.model_copy(update=given)})


def _refuse_twins(cells: Sequence[Cell], where: str) -> None:
    names: dict[str, Cell] = {}
    configs: dict[str, Cell] = {}
    for cell in cells:
        # Folders on some systems do not tell capitals from small letters.
        if cell.name.lower() in names:
            raise ConfigError(f"{where}: two runs would be called '{cell.name}': give the list's items different names")
        twin = configs.setdefault(digest(cell.config), cell)
        if twin is not cell:
            raise ConfigError(f"{where}: '{twin.name}' and '{cell.name}' are the same run: leave one out")
        names[cell.name.lower()] = cell


def _item_name(item: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """What a list item is called: its name, else its own base and overrides; "" for an empty one."""
    if "name" in item:
        return str(item["name"])
    base = item.get("base")
    return _joined([base if isinstance(base, str) else "", *_spelled(own)])


def _name(item: str, point: Mapping[str, Any], seed: int) -> str:
    """A readable name that follows from the run's own overrides alone, whatever else is in the sweep."""
    text = _joined([item, *_spelled(point)]) or "base"
    if len(text) > _MAX_NAME:
        text = f"{text[:_MAX_NAME]}-{sha256(text.encode()).hexdigest()[:8]}"
    return f"{text}-seed{seed}"


def _joined(parts: Sequence[str]) -> str:
    return "-".join(slug for part in parts if (slug := _slug(part)))


def _spelled(overrides: Mapping[str, Any]) -> list[str]:
    return [f"{key.removeprefix('learner.')}={_text(value)}" for key, value in overrides.items()]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "x".join(_text(part) for part in value)
    if isinstance(value, Mapping):
        return "+".join(_spelled(value))
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _slug(text: str) -> str:
    """A part of a folder's name: letters, digits and what no shell and no file system minds."""
    return re.sub(r"[^\w.=+-]+", "-", text, flags=re.ASCII).strip("-.")


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [(key, _sorted(value[key])) for key in sorted(value)]
    return [_sorted(part) for part in value] if isinstance(value, list | tuple) else value


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, or a null byte in it
        return False
