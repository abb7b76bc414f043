"""What can be perturbed in Gymnasium's LunarLander, discrete or continuous."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np

from offline_robust.environment.wrappers import Env
from offline_robust.envs.perturbations import FloatArray, Mode, ParameterSpec, register_parameter, registered
from offline_robust.envs.physics import Physics, register_physics

LUNAR_LANDERS = ("LunarLander-v3", "LunarLanderContinuous-v3")

_GLOBALS = ("MAIN_ENGINE_POWER", "SIDE_ENGINE_POWER", "INITIAL_RANDOM")


class LunarLanderPhysics:
    """Gravity, wind and engines of one lander.

    Gymnasium keeps the powers of the engines and of the initial push as globals of its module, shared by all landers
    of the process. Here each lander has its own: they are put in place by `activate` and taken back by `deactivate`,
    around every reset and step. Without those two calls they stay as they are.

    Args:
        env: a made environment.
        env_id: tells which parameters are registered for it.
    """

    def __init__(self, env: Env, env_id: str) -> None:
        inner: Any = env.unwrapped
        self._env = inner
        self._module = sys.modules[type(inner).__module__]
        self.parameters: Mapping[str, ParameterSpec] = registered(env_id)
        self._nominal: dict[str, float] = {
            "gravity": inner.gravity,
            "wind_power": inner.wind_power if inner.enable_wind else 0.0,
            "turbulence_power": inner.turbulence_power,
            **{name: getattr(self._module, name) for name in _GLOBALS},
        }
        self._calm = inner.wind_power  # what the attribute holds while the wind is off
        self._values = dict(self._nominal)
        self._outside = {name: self._nominal[name] for name in _GLOBALS}
        self._episode = inner.world

    def read(self, name: str) -> FloatArray:
        """See `Physics`."""
        return np.array([self._values[attribute] for attribute in self.parameters[name].attributes], np.float64)

    def write(self, name: str, values: FloatArray) -> None:
        """See `Physics`."""
        self._values.update(zip(self.parameters[name].attributes, map(float, values), strict=True))

    def commit(self) -> None:
        """See `Physics`; reaches a flight under way too."""
        env = self._env
        # Set on the object: the check of the constructor keeps gravity above -12, the simulation does not mind.
        env.gravity = self._values["gravity"]
        env.world.gravity = (0.0, env.gravity)
        env.turbulence_power = self._values["turbulence_power"]
        env.enable_wind = self._values["wind_power"] > 0.0
        env.wind_power = self._values["wind_power"] if env.enable_wind else self._calm

    def reset(self) -> None:
        """See `Physics`."""
        self._values = dict(self._nominal)
        self.commit()

    def activate(self) -> None:
        """Puts the engines of this lander in place."""
        for name in _GLOBALS:
            self._outside[name] = getattr(self._module, name)
            setattr(self._module, name, self._values[name])

    def deactivate(self) -> None:
        """Puts the engines back that there were before `activate`."""
        for name, value in self._outside.items():
            setattr(self._module, name, value)
        if self._env.world is not self._episode:
            self._episode = self._env.world
            if not self._env.enable_wind:
                self._place_wind()

    def _place_wind(self) -> None:
        """Chooses where in its pattern a wind that rises later in the episode will begin.

        Gymnasium does so at a reset with wind only. A copy of the generator is used, so that an episode whose wind
        never rises stays as it was.
        """
        draws = deepcopy(self._env.np_random)
        self._env.wind_idx, self._env.torque_idx = (int(draws.integers(-9999, 9999)) for _ in range(2))


def _open(env: Env, env_id: str) -> Physics | None:
    return LunarLanderPhysics(env, env_id) if env_id in LUNAR_LANDERS else None


def _register(
    name: str,
    unit: str,
    bounds: tuple[float, float],
    attributes: str,
    meaning: str,
    mode: Mode = "scale",
    structural: bool = False,
) -> None:
    for env in LUNAR_LANDERS:
        register_parameter(
            ParameterSpec(
                name,
                unit,
                *bounds,
                mode,
                meaning,
                structural=structural,
                env=env,
                attributes=tuple(attributes.split()),
            )
        )


register_physics(_open)

_register("gravity", "-", (-1e3, 0.0), "gravity", "gravitational acceleration, downwards negative")
_register(
    "wind_power", "-", (0.0, 1e4), "wind_power",
    "largest force of the wind; 0 is no wind and no turbulence", mode="absolute",
)  # fmt: skip
_register(
    "turbulence_power", "-", (0.0, 1e4), "turbulence_power",
    "largest torque of the wind; acts only while wind_power is above 0", mode="absolute",
)  # fmt: skip
_register("main_engine_power", "-", (0.0, 1e4), "MAIN_ENGINE_POWER", "power of the main engine")
_register("side_engine_power", "-", (0.0, 1e4), "SIDE_ENGINE_POWER", "power of the side engines")
_register("engine_power", "-", (0.0, 1e4), "MAIN_ENGINE_POWER SIDE_ENGINE_POWER", "powers of all engines together")
_register(
    "initial_random", "-", (0.0, 1e6), "INITIAL_RANDOM",
    "largest force, in each direction, of the random push at the start", mode="absolute", structural=True,
)  # fmt: skip
