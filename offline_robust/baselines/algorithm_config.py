"""The configuration of a d3rlpy algorithm in our YAML: d3rlpy's own fields, checked and filled in before a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from offline_robust.baselines.fields import SPACE, resolve
from offline_robust.baselines.names import CONTINUOUS, DISCRETE, PREFIX
from offline_robust.errors import ConfigError
from offline_robust.learners import LearnerConfig

__all__ = ["SPACE", "D3RLPyConfig"]


class D3RLPyConfig(LearnerConfig):
    """A d3rlpy algorithm by name. `reward_shift` and its kin act first, d3rlpy's own reward scaler after them."""

    name: str = Field(pattern=rf"^{PREFIX}[A-Za-z0-9]{{1,40}}$")
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="Fields of d3rlpy's config class of that name, without batch_size (training.batch_size is). "
        "Factories and scalers are a type's name or {type: ..., its fields}. action_scaler: space, the default, "
        "scales by the bounds of the action space where these are not [-1, 1]; others are fitted on the data.",
    )
    version: str | None = Field(
        None,
        max_length=40,
        pattern=r"^[0-9A-Za-z.+]+$",
        description="d3rlpy's version, whose defaults fill in `config`; written by the run, not by you.",
    )

    @property
    def algorithm(self) -> str:
        """d3rlpy's name of it."""
        return self.name.removeprefix(PREFIX)

    @property
    def discrete(self) -> bool:
        """Whether the algorithm chooses among discrete actions."""
        return self.algorithm in DISCRETE

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Checks and completes `config`, unless a run has done so already: reading a run needs no d3rlpy.

        Raises:
            ConfigError: an unknown field or type (nearest names), or a value of the wrong type.
            MissingExtra: d3rlpy is not installed.
        """
        if not isinstance(values, dict) or values.get("version") is not None:
            return values
        name, given = str(values.get("name")).removeprefix(PREFIX), values.get("config", {})
        if name not in CONTINUOUS + DISCRETE:
            return values
        if not isinstance(given, Mapping):
            raise ConfigError(f"learner.config: expected a mapping of {name}'s fields, got {type(given).__name__}")
        config, version = resolve(name, given)
        return {**values, "config": config, "version": version}
