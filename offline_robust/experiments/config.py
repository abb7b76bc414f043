"""One run as data: YAML with dotted overrides, validated before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, Field, SerializeAsAny, field_validator

from offline_robust.baselines import D3RLPyLearner  # noqa: F401 - d3rlpy's algorithms register themselves
from offline_robust.environment import EnvironmentChoice
from offline_robust.errors import ConfigError, nearest
from offline_robust.files import bundled
from offline_robust.learners import LEARNERS, LearnerConfig
from offline_robust.models import MODELS, ModelConfig
from offline_robust.plain_yaml import MAX_DEPTH, PlainLoader, dump_yaml
from offline_robust.settings import Settings, shown, validated
from offline_robust.untrusted import CodeRefused, refuse_code

_MAX_BYTES = 200_000


class TrainingConfig(Settings):
    """How long, how large, how often."""

    steps: int = Field(10_000, ge=1, le=100_000_000, description="Updates of the policy.")
    model_steps: int = Field(
        0, ge=0, le=100_000_000, description="Updates of the nominal model (FQI: of the state VAE) alone."
    )
    batch_size: int = Field(256, ge=1, le=100_000, description="B, transitions a minibatch. DR-SAC: 256.")
    holdout: float = Field(
        0.02, ge=0, lt=1, description="Share of episodes kept from all training, to test the nominal model on. Ours."
    )
    log_every: int = Field(100, ge=1, description="Updates between lines of metrics.jsonl (means over them).")
    checkpoint_every: int = Field(1_000, ge=1, description="Updates between checkpoints (at the next logged update).")
    threads: int = Field(1, ge=1, le=1024, description="CPU threads; part of what makes a resumed run bit-exact.")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:[0-9]{1,2})?)$", description="cpu, cuda or cuda:N.")


class EvaluationConfig(Settings):
    """The evaluation that belongs to the run."""

    suite: str | None = Field(
        None, max_length=4096, description="A suite's name or file; None evaluates the nominal system only."
    )
    episodes: int = Field(20, ge=1, le=1_000_000, description="Episodes for each condition. RFQI: 20, DR-SAC: 50.")
    seed: int = Field(0, ge=0, description="Start states and noise; the same for every run that is compared.")


class WandbConfig(Settings):
    """Weights & Biases; metrics.jsonl is written in any case."""

    mode: Literal["disabled", "auto", "offline", "online"] = Field(
        "disabled", description="auto: online where there is a key, else offline."
    )
    project: str = Field("offline-robust", min_length=1, max_length=128)
    entity: str | None = Field(None, max_length=128)
    tags: tuple[str, ...] = ()


class EnvironmentConfig(Settings):
    """What is said of the environment beside what the data say; where both speak they must agree."""

    id: str | None = Field(None, min_length=1, max_length=200, description="Its Gymnasium id; None is the dataset's.")
    kwargs: dict[str, Any] | None = Field(None, description="Keyword arguments; None are the dataset's.")
    step_limit: int | None = Field(
        None, ge=0, le=1_000_000_000, description="Steps an episode at most, 0 for no limit; None is the dataset's."
    )
    wrappers: tuple[dict[str, Any], ...] | None = Field(
        None,
        max_length=50,
        description="Wrappers from the inside out, `{name: RescaleAction, kwargs: {min_action: -1, max_action: 1}}`; "
        "None are the dataset's.",
    )
    ignore_wrappers: tuple[str, ...] = Field((), max_length=50, description="Wrappers of the dataset's to leave out.")

    @field_validator("id")
    @classmethod
    def _imports_nothing(cls, env: str | None) -> str | None:
        """A run's folder may come from anyone, and its config.yaml must not make Gymnasium import a module."""
        try:
            refuse_code(env)
        except CodeRefused as error:
            raise ValueError(str(error)) from None
        return env

    @field_validator("kwargs")
    @classmethod
    def _names_no_code(cls, kwargs: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            refuse_code(None, kwargs)
        except CodeRefused as error:
            raise ValueError(str(error).removeprefix("env_kwargs: ")) from None
        return kwargs

    def choice(self) -> EnvironmentChoice:
        """The same for those who load data."""
        return EnvironmentChoice(
            self.id, self.kwargs, self.step_limit, self.wrappers, self.ignore_wrappers, source="the configuration"
        )


class RunConfig(Settings):
    """Everything a run depends on."""

    dataset: str = Field(
        min_length=1, max_length=4096, description="Bundled name, Minari id or folder, .hdf5 (D4RL) or .npz."
    )
    env: EnvironmentConfig | None = Field(
        None, description="The environment of the data, an id or a mapping as below; None takes the dataset's."
    )
    learner: SerializeAsAny[LearnerConfig]
    model: SerializeAsAny[ModelConfig] | None = Field(None, description="The nominal model, where the learner has one.")
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    wandb: WandbConfig = WandbConfig()
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seeds every random stream of the training.")

    @field_validator("env", mode="before")
    @classmethod
    def _id_alone(cls, env: Any) -> Any:
        return {"id": env} if isinstance(env, str) else env

    @property
    def env_id(self) -> str | None:
        """The environment's id where the configuration says it."""
        return self.env.id if self.env is not None else None

    @property
    def environment(self) -> EnvironmentChoice:
        """What the configuration says of the environment."""
        return (self.env or EnvironmentConfig()).choice()

    @property
    def label(self) -> str:
        """What seeds average over, in words: the learner, its radius, what widens its model."""
        return " ".join(part for part in (self.learner.label, self.model.label if self.model else "") if part)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to config.yaml."""
        # Not pydantic's mode="json": it makes null of the infinite limits that environments take.
        values: dict[str, Any] = _plain(self.model_dump(), "config")
        if self.env is not None:
            said = {key: values["env"][key] for key in self.env.model_dump(exclude_defaults=True)}
            values["env"] = self.env.id if said.keys() == {"id"} else said
        return values

    def to_yaml(self) -> str:
        """The resolved configuration."""
        return dump_yaml(self.to_dict())


def load_config(source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Reads and validates a configuration.

    Args:
        source: a YAML file, a bundled name (``dr_sac/pendulum``) or the values themselves.
        overrides: dotted keys to values, for example ``{"learner.delta": 0.3}``.

    Raises:
        ConfigError: one line that names the key, what is wrong and the nearest known keys.
    """
    where = str(source) if isinstance(source, str | Path) else "config"
    values = _one_env(_read(source) if isinstance(source, str | Path) else _plain(source, where), where)
    for key, value in (overrides or {}).items():
        _set(values, str(key), value)
    return _build(_one_env(_plain(values, where), where), where)


def _one_env(values: dict[str, Any], where: str) -> dict[str, Any]:
    """The values with ``env_kwargs``, as older configurations have it, inside ``env``."""
    kwargs = values.pop("env_kwargs", None)
    if isinstance(values.get("env"), str) and kwargs:
        values["env"] = {"id": values["env"]}
    if kwargs:
        env = values["env"] = values.get("env") or {}
        if isinstance(env, dict) and env.get("kwargs") not in (None, kwargs):
            raise ConfigError(f"{where}: env_kwargs and env.kwargs say different things; keep env.kwargs")
        if isinstance(env, dict):
            env["kwargs"] = kwargs
    return values


def load_learner(values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> LearnerConfig:
    """The learner's part of a configuration alone: what it says of the rest is not looked at.

    Raises:
        ConfigError: as `load_config`.
    """
    plain = _plain(values, "config")
    for key, value in (overrides or {}).items():
        _set(plain, key, value)
    config: LearnerConfig = _part(plain.get("learner"), LEARNERS, "config", "learner")
    return config


def parse_override(text: str) -> tuple[str, Any]:
    """``learner.delta=0.3`` to ``("learner.delta", 0.3)``; the value is read as YAML.

    Raises:
        ConfigError: no ``=``, or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {shown.repr(text)}: expected KEY=VALUE, for example learner.delta=0.3")
    return key.strip(), _parse(value, f"--set {_short(key.strip())}")


def _build(values: dict[str, Any], where: str) -> RunConfig:
    for key in values:
        if key not in RunConfig.model_fields:
            raise ConfigError(f"{where}: unknown key '{_short(key)}'{nearest(key, RunConfig.model_fields)}")
    parts = dict(values)
    parts["learner"] = _part(values.get("learner"), LEARNERS, where, "learner")
    if values.get("model") is not None:
        parts["model"] = _part(values["model"], MODELS, where, "model")
    sections: dict[str, type[BaseModel]] = {
        "training": TrainingConfig,
        "evaluation": EvaluationConfig,
        "wandb": WandbConfig,
    }
    for name, section in sections.items():
        if name in values:
            parts[name] = _validated(section, values[name], where, name)
    config: RunConfig = _validated(RunConfig, parts, where, "")
    try:
        config.learner.check(config)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return config


def _part(values: Any, known: Mapping[str, Any], where: str, section: str) -> Any:
    if not isinstance(values, dict) or not isinstance(values.get("name"), str):
        raise ConfigError(f"{where}: {section}: expected a mapping with a name (known: {', '.join(sorted(known))})")
    if values["name"] not in known:
        name = values["name"]
        raise ConfigError(f"{where}: {section}.name: unknown {section} '{_short(name)}'{nearest(name, known)}")
    return _validated(known[values["name"]].Config, values, where, section)


def _validated(kind: type[BaseModel], values: Any, where: str, section: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: {section or 'config'}: expected a mapping, got {shown.repr(values)}")
    return validated(kind, values, where, section)


def _read(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    try:
        if not path.is_file():
            path = bundled("configs") / f"{source}.yaml"
        if not path.is_file():
            root = bundled("configs")
            names = [str(p.relative_to(root).with_suffix("")) for p in root.glob("*/*.yaml")]
            known = [name for name in names if not name.startswith("suites/")]
            raise ConfigError(f"{_short(str(source))}: no such config file{nearest(str(source), known)}")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:  # a name too long, no right to read
        raise ConfigError(f"{_short(str(source))}: cannot be read: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{path}: larger than {_MAX_BYTES:,} bytes: not a config file")
    values = _parse(content, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {type(values).__name__}")
    return values


def _parse(text: str | bytes, where: str) -> Any:
    """YAML to plain values; whatever is wrong with it is one line."""
    try:
        values = yaml.load(text, PlainLoader)
    except (yaml.YAMLError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: not valid YAML: {_short(' '.join(str(error).split()), 200)}") from None
    return _plain(values, where)


def _plain(value: Any, where: str, path: tuple[str, ...] = ()) -> Any:
    """A copy of None, booleans, numbers, text, lists and mappings; nothing else is a configuration."""
    here = f"{where}: {_short('.'.join(path))}" if path else where
    if len(path) > MAX_DEPTH:
        raise ConfigError(f"{here}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(f"{here}: keys must be text, got a key of type {type(key).__name__}")
        return {key: _plain(item, where, (*path, _short(key))) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where, (*path, str(index))) for index, item in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int) and value.bit_length() > 64:
        raise ConfigError(f"{here}: holds a whole number of more than 64 bits")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"{here}: holds a {type(value).__name__}; write numbers, text, lists and mappings")


def _short(text: str, length: int = 80) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    if parents[:1] == ["env"] and isinstance(values.get("env"), str):
        values["env"] = {"id": values["env"]}
    here = values
    for parent in parents:
        below = here.get(parent)
        if below is None:
            below = here[parent] = {}
        if not isinstance(below, dict):
            raise ConfigError(f"--set {_short(key)}: '{_short(parent)}' is a value, not a section")
        here = below
    here[last] = value
