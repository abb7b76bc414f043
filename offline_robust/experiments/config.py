"""One run as data: YAML with dotted overrides, validated before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError

from offline_robust.errors import ConfigError, nearest
from offline_robust.files import bundled
from offline_robust.learners import LEARNERS, LearnerConfig
from offline_robust.models import MODELS, VAEConfig

_MAX_BYTES = 1_000_000


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainingConfig(_Frozen):
    """How long, how large, how often."""

    steps: int = Field(10_000, ge=1, le=100_000_000, description="Updates of the policy.")
    model_steps: int = Field(0, ge=0, le=100_000_000, description="Updates of the nominal model alone, before those.")
    batch_size: int = Field(256, ge=1, le=1_000_000, description="B, transitions a minibatch. DR-SAC: 256.")
    holdout: float = Field(
        0.02, ge=0, lt=1, description="Share of episodes kept from all training, to test the nominal model on. Ours."
    )
    log_every: int = Field(100, ge=1, description="Updates between lines of metrics.jsonl (means over them).")
    checkpoint_every: int = Field(1_000, ge=1, description="Updates between checkpoints (at the next logged update).")
    threads: int = Field(1, ge=1, le=1024, description="CPU threads; part of what makes a resumed run bit-exact.")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda or cuda:N.")


class EvaluationConfig(_Frozen):
    """The evaluation that belongs to the run."""

    suite: str | None = Field(None, description="A suite's name or file; None evaluates the nominal system only.")
    episodes: int = Field(20, ge=1, le=1_000_000, description="Episodes for each condition. RFQI: 20, DR-SAC: 50.")
    seed: int = Field(0, ge=0, description="Start states and noise; the same for every run that is compared.")


class WandbConfig(_Frozen):
    """Weights & Biases; metrics.jsonl is written in any case."""

    mode: Literal["disabled", "auto", "offline", "online"] = Field(
        "disabled", description="auto: online where there is a key, else offline."
    )
    project: str = Field("offline-robust", min_length=1, max_length=128)
    entity: str | None = None
    tags: tuple[str, ...] = ()


class RunConfig(_Frozen):
    """Everything a run depends on."""

    dataset: str = Field(min_length=1, description="Bundled name, Minari id or folder, .hdf5 (D4RL) or .npz.")
    env: str | None = Field(None, description="Environment to evaluate on; None takes the dataset's.")
    env_kwargs: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of that environment.")
    learner: SerializeAsAny[LearnerConfig]
    model: SerializeAsAny[VAEConfig] | None = Field(None, description="The nominal model, where the learner has one.")
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    wandb: WandbConfig = WandbConfig()
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seeds every random stream of the training.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to config.yaml."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The resolved configuration."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def load_config(source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Reads and validates a configuration.

    Args:
        source: a YAML file, a bundled name (``dr_sac/pendulum``) or the values themselves.
        overrides: dotted keys to values, for example ``{"learner.delta": 0.3}``.

    Raises:
        ConfigError: one line that names the key, what is wrong and the nearest known keys.
    """
    values = _read(source) if isinstance(source, str | Path) else _plain(source)
    where = str(source) if isinstance(source, str | Path) else "config"
    for key, value in (overrides or {}).items():
        _set(values, key, value)
    return _build(values, where)


def parse_override(text: str) -> tuple[str, Any]:
    """``learner.delta=0.3`` to ``("learner.delta", 0.3)``; the value is read as YAML.

    Raises:
        ConfigError: no ``=``, or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r}: expected KEY=VALUE, for example learner.delta=0.3")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {text!r}: the value is not valid YAML") from None


def _build(values: dict[str, Any], where: str) -> RunConfig:
    for key in values:
        if key not in RunConfig.model_fields:
            raise ConfigError(f"{where}: unknown key '{key}'{nearest(key, RunConfig.model_fields)}")
    parts = dict(values)
    parts["learner"] = _part(values.get("learner"), {k: c for k, (c, _) in LEARNERS.items()}, where, "learner")
    if values.get("model") is not None:
        parts["model"] = _part(values["model"], {k: c for k, (c, _) in MODELS.items()}, where, "model")
    sections: dict[str, type[BaseModel]] = {
        "training": TrainingConfig,
        "evaluation": EvaluationConfig,
        "wandb": WandbConfig,
    }
    for name, section in sections.items():
        if name in values:
            parts[name] = _validated(section, values[name], where, name)
    config: RunConfig = _validated(RunConfig, parts, where, "")
    if LEARNERS[config.learner.name][1].uses_model and config.model is None:
        name = config.learner.name
        raise ConfigError(f"{where}: {name} samples next states from a nominal model: add model: {{name: vae}}")
    if config.training.model_steps and config.model is None:
        raise ConfigError(f"{where}: training.model_steps is {config.training.model_steps} but there is no model")
    return config


def _part(values: Any, known: dict[str, Any], where: str, section: str) -> Any:
    if not isinstance(values, dict) or not isinstance(values.get("name"), str):
        raise ConfigError(f"{where}: {section}: expected a mapping with a name (known: {', '.join(sorted(known))})")
    if values["name"] not in known:
        raise ConfigError(
            f"{where}: {section}.name: unknown {section} '{values['name']}'{nearest(values['name'], known)}"
        )
    return _validated(known[values["name"]], values, where, section)


def _validated(kind: type[BaseModel], values: Any, where: str, section: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: {section or 'config'}: expected a mapping, got {values!r}")
    try:
        return kind(**{str(key): value for key, value in values.items()})
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in ([section] if section else []) + list(first["loc"]))
        if first["type"] == "extra_forbidden":
            key = str(first["loc"][-1])
            raise ConfigError(f"{where}: unknown key '{path}'{nearest(key, kind.model_fields)}") from None
        shown = repr(first["input"])[:80]
        problem = "missing" if first["type"] == "missing" else f"{first['msg']}, got {shown}"
        raise ConfigError(f"{where}: {path}: {problem}") from None


def _read(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    if not path.is_file():
        path = bundled("configs") / f"{source}.yaml"
    if not path.is_file():
        root = bundled("configs")
        names = [str(p.relative_to(root).with_suffix("")) for p in root.glob("*/*.yaml") if p.parent.name != "suites"]
        raise ConfigError(f"{source}: no such config file{nearest(str(source), names)}")
    if path.stat().st_size > _MAX_BYTES:
        raise ConfigError(f"{path}: larger than {_MAX_BYTES:,} bytes: not a config file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {type(values).__name__}")
    return {str(key): value for key, value in values.items()}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {str(k): _plain(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    here = values
    for parent in parents:
        below = here.get(parent)
        if below is None:
            below = here[parent] = {}
        if not isinstance(below, dict):
            raise ConfigError(f"--set {key}: '{parent}' is a value, not a section")
        here = below
    here[last] = value
