"""What can be perturbed in Gymnasium's classic control: CartPole, Acrobot and the mountain cars."""

from __future__ import annotations

from typing import Any

import numpy as np

from offline_robust.environment.making import CONTINUOUS_CARTPOLE
from offline_robust.environment.wrappers import Env
from offline_robust.envs.cartpole import START
from offline_robust.envs.perturbations import Mode, ParameterSpec, register_parameter
from offline_robust.envs.physics import AttributePhysics, Physics, register_physics

GYMNASIUM_CARTPOLES = ("CartPole-v0", "CartPole-v1")
CARTPOLES = (*GYMNASIUM_CARTPOLES, CONTINUOUS_CARTPOLE)


class CartPolePhysics(AttributePhysics):
    """Gymnasium's CartPole, which keeps products of its parameters and always starts alike.

    Its total mass and its pole's moment are brought up to date after every change; without that a changed mass acts
    half or not at all. Its reset is extended by ``start_angle``.
    """

    def __init__(self, env: Env, env_id: str) -> None:
        inner: Any = env.unwrapped
        if not hasattr(inner, "start_angle"):
            _extend_reset(inner)
        super().__init__(env, env_id)

    def commit(self) -> None:
        """See `Physics`."""
        inner = self._env
        inner.total_mass = inner.masspole + inner.masscart
        inner.polemass_length = inner.masspole * inner.length

    def reset(self) -> None:
        """See `Physics`."""
        super().reset()
        self.commit()


class AcrobotPhysics(AttributePhysics):
    """Gymnasium's Acrobot; the centre of mass of a link moves with its length."""

    def __init__(self, env: Env, env_id: str) -> None:
        super().__init__(env, env_id)
        inner = self._env
        self._middles = [getattr(inner, f"LINK_COM_POS_{k}") / getattr(inner, f"LINK_LENGTH_{k}") for k in (1, 2)]

    def commit(self) -> None:
        """See `Physics`."""
        for k, middle in enumerate(self._middles, 1):
            setattr(self._env, f"LINK_COM_POS_{k}", middle * getattr(self._env, f"LINK_LENGTH_{k}"))

    def reset(self) -> None:
        """See `Physics`."""
        super().reset()
        self.commit()


def _extend_reset(inner: Any) -> None:
    """Lets one CartPole start with its pole anywhere within ``start_angle``, from the same draws."""
    inner.start_angle, plain = START, inner.reset

    def reset(**options: Any) -> tuple[Any, dict[str, Any]]:
        _, info = plain(**options)
        inner.state[2] *= inner.start_angle / START
        return np.array(inner.state, np.float32), info

    inner.reset = reset


def _open(env: Env, env_id: str) -> Physics | None:
    if env_id in GYMNASIUM_CARTPOLES:
        return CartPolePhysics(env, env_id)
    return AcrobotPhysics(env, env_id) if env_id == "Acrobot-v1" else None


def _register(
    envs: tuple[str, ...],
    name: str,
    unit: str,
    high: float,
    attributes: str,
    meaning: str,
    low: float = 0.0,
    mode: Mode = "scale",
    structural: bool = False,
) -> None:
    # Lengths, masses and time steps divide; all else may vanish.
    positive = name == "dt" or name.startswith(("length", "mass", "pole_", "cart_", "moment"))
    for env in envs:
        register_parameter(
            ParameterSpec(
                name,
                unit,
                low,
                high,
                mode,
                meaning,
                low_open=positive,
                structural=structural,
                env=env,
                attributes=tuple(attributes.split()),
            )
        )


register_physics(_open)

_register(
    CARTPOLES, "gravity", "m/s^2", 1e3, "gravity", "gravitational acceleration; negative lifts the pole", low=-1e3
)
_register(CARTPOLES, "force_mag", "N", 1e5, "force_mag", "force of a full push")
_register(CARTPOLES, "length", "m", 100.0, "length", "half the length of the pole")
_register(CARTPOLES, "pole_mass", "kg", 1e3, "masspole", "mass of the pole")
_register(CARTPOLES, "cart_mass", "kg", 1e3, "masscart", "mass of the cart")
_register(CARTPOLES, "mass", "kg", 1e3, "masscart masspole", "masses of cart and pole together")
_register(CARTPOLES, "dt", "s", 1.0, "tau", "simulated time per step")
_register(
    CARTPOLES, "start_angle", "rad", np.pi, "start_angle",
    "half-width of the uniform start of the pole's angle", mode="absolute", structural=True,
)  # fmt: skip

_ACROBOT = ("Acrobot-v1",)
_register(_ACROBOT, "length_1", "m", 100.0, "LINK_LENGTH_1", "length of the first link; its centre of mass moves along")
_register(
    _ACROBOT, "length_2", "m", 100.0, "LINK_LENGTH_2", "length of the second link; its centre of mass moves along"
)
_register(_ACROBOT, "mass_1", "kg", 1e3, "LINK_MASS_1", "mass of the first link")
_register(_ACROBOT, "mass_2", "kg", 1e3, "LINK_MASS_2", "mass of the second link")
_register(_ACROBOT, "moment", "kg m^2", 1e3, "LINK_MOI", "moment of inertia of each link")
_register(_ACROBOT, "dt", "s", 1.0, "dt", "simulated time per step")
_register(
    _ACROBOT, "torque_noise", "N m", 1e3, "torque_noise_max",
    "half-width of uniform noise on the torque", mode="absolute",
)  # fmt: skip

_register(("MountainCar-v0",), "force", "-", 1.0, "force", "change of velocity by a push, per step")
_register(
    ("MountainCar-v0",), "gravity", "-", 1.0, "gravity", "change of velocity by the steepest slope, per step", low=-1.0
)
_register(("MountainCarContinuous-v0",), "power", "-", 1.0, "power", "change of velocity by a full push, per step")
