"""A comparison as a sweep: datasets x learners x seeds, each learner with its bundled configuration if it has one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
from pydantic import Field, field_validator

from offline_robust.datasets import load_dataset
from offline_robust.datasets.sources import locate
from offline_robust.environment import EnvironmentChoice, EnvironmentSpec
from offline_robust.errors import ConfigError
from offline_robust.experiments.config import EnvironmentConfig, TrainingConfig, load_config, load_learner
from offline_robust.files import bundled
from offline_robust.plain_yaml import read_yaml
from offline_robust.settings import Settings, validated
from offline_robust.sweeps.grids import (
    MAX_CELLS,
    Cell,
    SweepConfig,
    SweepEvaluation,
    known_environment,
    sweep_values,
)

_MAX_BYTES = 200_000
_NOT_LEARNERS = ("suites", "sweeps")
_MAX_PARTS = 1_000
_NOT_SET = ("dataset", "name", "base")
_MODEL_STEPS = "training.model_steps"


class Contender(Settings):
    """A learner that takes part, where its name does not say all."""

    learner: str = Field(min_length=1, max_length=200, description="A learner's name.")
    config: str | None = Field(
        None, max_length=4096, description="A bundled config's name or a YAML file in place of the learner's own."
    )
    name: str | None = Field(None, min_length=1, max_length=80, description="What its folders are called.")
    set: dict[str, Any] = Field(default_factory=dict, description="Overrides by dotted key, of this learner alone.")


class ComparisonConfig(Settings):
    """Which learners are compared on which data, and how."""

    datasets: tuple[str, ...] = Field(min_length=1, max_length=_MAX_PARTS, description="As in a run's `dataset`.")
    learners: tuple[str | Contender, ...] = Field(
        min_length=1, max_length=_MAX_PARTS, description="Learners, or configs; the report is about the first."
    )
    seeds: int | tuple[int, ...] = Field(5, description="How many seeds (0, 1, ...), or the seeds themselves.")
    evaluation: SweepEvaluation = SweepEvaluation()
    steps: int | None = Field(
        None, ge=1, le=100_000_000, description="Updates of every learner; by default each one's configuration says."
    )
    env: EnvironmentConfig | None = Field(
        None, description="The environment of the data, an id or a mapping as a run's; None takes the datasets'."
    )
    set: dict[str, Any] = Field(
        default_factory=dict,
        description="Overrides by dotted key, of every learner; training.model_steps of those that train something "
        "before their policy.",
    )
    title: str = Field("", max_length=300, description="Title of the report.")

    @field_validator("env", mode="before")
    @classmethod
    def _id_alone(cls, env: Any) -> Any:
        return {"id": env} if isinstance(env, str) else env

    @property
    def choice(self) -> EnvironmentChoice:
        """What is said of the environment."""
        return (self.env or EnvironmentConfig()).choice()


def load_comparison(source: str | Path | Mapping[str, Any]) -> ComparisonConfig:
    """Reads and checks a comparison: a YAML file with the key ``comparison``, or what is below that key.

    Raises:
        ConfigError: one line that names the key, what is wrong and the nearest known keys.
    """
    if isinstance(source, Mapping):
        return _checked(source, "comparison")
    values, path = sweep_values(source)
    if list(values) != ["comparison"] or not isinstance(values["comparison"], Mapping):
        raise ConfigError(f"{path}: expected one key, comparison, with datasets and learners below it")
    return _checked(values["comparison"], path)


def comparison_sweep(comparison: ComparisonConfig, where: str = "comparison", download: bool = False) -> SweepConfig:
    """The sweep that trains and evaluates a comparison.

    A learner trains as its bundled configuration for the dataset's environment says, on the dataset asked for. One
    without such a configuration has its defaults, and as many updates as the first learner that has one; what it trains
    before its policy (a nominal model, a density) has the share of them that its bundled configurations give it.

    Args:
        comparison: what is compared.
        where: its file, for messages.
        download: whether Minari datasets that are not here may be downloaded.

    Raises:
        ConfigError: unknown learner, or a learner that is there twice.
        DatasetNotFound: no such dataset, or its data are not made yet.
    """
    count = len(comparison.datasets) * len(comparison.learners)
    if count > MAX_CELLS:
        raise ConfigError(f"{where}: {count:,} learners on datasets, at most {MAX_CELLS:,} runs are allowed")
    items = []
    contenders = [_contender(entry) for entry in comparison.learners]
    called = _dataset_names(comparison.datasets)
    for dataset in comparison.datasets:
        locate(dataset, download)  # refused here, before anything is trained
        environment = comparison.choice.on(environment_of(dataset, comparison.choice))
        env_id = environment.id if environment is not None else None
        bases = [_base(contender, env_id) for contender in contenders]
        steps = comparison.steps or _steps_of(bases)
        for contender, base in zip(contenders, bases, strict=True):
            name = contender.name or contender.config or contender.learner
            if len(comparison.datasets) > 1:
                name = f"{called[dataset]}-{name}"
            overrides = comparison.set | contender.set
            for key in overrides:
                if key in _NOT_SET:
                    raise ConfigError(f"{where}: set: '{key}' is what a comparison chooses itself; leave it out")
            base_or_values = base or _defaults(contender.learner, dataset, env_id, overrides, _steps_of(bases), where)
            item: dict[str, Any] = {"name": name, "base": base_or_values}
            item["dataset"] = dataset
            if comparison.env is not None:
                item["env"] = comparison.env.model_dump(exclude_defaults=True)
            if base is None or comparison.steps is not None:
                item["training.steps"] = steps
            if _MODEL_STEPS in comparison.set and not _prepares(base_or_values):
                overrides = {k: v for k, v in overrides.items() if k != _MODEL_STEPS or k in contender.set}
            items.append(item | overrides)
    return SweepConfig(
        items=tuple(items), seeds=comparison.seeds, evaluation=comparison.evaluation, title=comparison.title
    )


def _dataset_names(datasets: Sequence[str]) -> dict[str, str]:
    """What datasets are called in the names of runs: files by their stems, those of one stem with their folders."""
    stems = {name: Path(name).stem if Path(name).exists() else name for name in datasets}
    twice = [stem for stem, count in Counter(stems.values()).items() if count > 1]
    return {
        name: f"{Path(name).resolve().parent.name}-{stem}" if stem in twice else stem for name, stem in stems.items()
    }


def environment_of(dataset: str, choice: EnvironmentChoice | None = None) -> EnvironmentSpec | None:
    """The environment a dataset was made in: of a bundled one as its recipe says, of others as data and user do."""
    return known_environment(dataset) or load_dataset(dataset, env=choice, download=False).environment


def bundled_config(learner: str, env_id: str | None) -> str | None:
    """The bundled configuration of a learner for an environment; of several the one with the shortest name."""
    found = [name for name, of, env in _bundled_configs() if of == learner and env is not None and env == env_id]
    return min(found, key=lambda name: (len(name), name), default=None)


@lru_cache(maxsize=1)
def _bundled_configs() -> tuple[tuple[str, str, str | None], ...]:
    """(name, learner, environment) of every bundled configuration."""
    root, found = bundled("configs"), []
    for path in sorted(root.glob("*/*.yaml")):
        if path.parent.name in _NOT_LEARNERS:
            continue
        values = read_yaml(path, "a configuration", _MAX_BYTES, ConfigError)
        learner = values.get("learner") if isinstance(values, dict) else None
        if isinstance(learner, dict):
            known = None if values.get("env") else environment_of(str(values.get("dataset")))
            env_id = values.get("env") or (known.id if known is not None else None)
            found.append((str(path.relative_to(root).with_suffix("")), str(learner.get("name")), env_id))
    return tuple(found)


def _checked(values: Mapping[str, Any], where: str) -> ComparisonConfig:
    comparison = validated(ComparisonConfig, values, where)
    entries: tuple[tuple[Sequence[object], str], ...]
    entries = ((comparison.datasets, "dataset"), (comparison.learners, "learner"))
    for names, word in entries:
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"{where}: {word} {str(name)[:80]} is there twice; leave one out")
    return comparison


def _contender(entry: str | Contender) -> Contender:
    """A bare name is a learner's, unless it can only be a configuration's."""
    if isinstance(entry, Contender):
        return entry
    if "/" in entry or entry.endswith((".yaml", ".yml")):
        learner = load_config(entry).learner.name
        return Contender(learner=learner, config=entry, name=str(Path(entry).with_suffix("")).strip("./"))
    return Contender(learner=entry)


def _base(contender: Contender, env_id: str | None) -> str | None:
    return contender.config or bundled_config(contender.learner, env_id)


def _steps_of(bases: Sequence[str | None]) -> int:
    """Updates of the first learner that has a configuration."""
    return next((load_config(base).training.steps for base in bases if base), TrainingConfig().steps)


def _prepares(base: str | Mapping[str, Any]) -> bool:
    """Whether a configuration trains something before its policy, or could."""
    config = load_config(base)
    return config.model is not None or config.training.model_steps > 0


def _defaults(
    learner: str, dataset: str, env_id: str | None, overrides: Mapping[str, Any], steps: int, where: str
) -> dict[str, Any]:
    """The values that a learner without a bundled configuration starts from.

    What it needs before its policy, a model or a density, depends on its settings.
    """
    values: dict[str, Any] = {"dataset": dataset, "env": env_id, "learner": {"name": learner}}
    own = {key: value for key, value in overrides.items() if key.startswith("learner.")}
    try:
        config = load_learner(values, own)
    except ConfigError as error:
        raise ConfigError(f"{where}: {str(error).removeprefix('config: ')}") from None
    if config.needs_model:
        values["model"] = {"name": "vae"}
    if config.needs_model or config.prepares:
        values["training"] = {"model_steps": max(1, round(_share(learner) * steps))}
    return values


@lru_cache(maxsize=64)
def _share(learner: str) -> float:
    """Updates before the policy's, as a share of the policy's: the median of the learner's bundled configurations.

    Ours. A quarter where it has none that trains anything before.
    """
    found = [load_config(name).training for name, of, _ in _bundled_configs() if of == learner]
    return median([own.model_steps / own.steps for own in found if own.model_steps] or [0.25])


def updates_table(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """How much every learner trains: one row for each learner, dataset and number of updates."""
    frame = pd.DataFrame(list(_updates(cells)))
    return [{str(key): value for key, value in row.items()} for row in frame.drop_duplicates().to_dict("records")]


def _updates(cells: Sequence[Cell]) -> Iterator[dict[str, Any]]:
    for cell in cells:
        config = cell.config
        yield {
            "dataset": config.dataset,
            "learner": config.learner.name,
            "updates": config.training.steps,
            "model_updates": config.training.model_steps,
            "batch_size": config.training.batch_size,
        }
