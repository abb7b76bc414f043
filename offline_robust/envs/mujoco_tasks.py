"""What Gymnasium's MuJoCo environments (v4 and v5) observe, reward and end on, for many episodes at once.

Each task repeats the arithmetic of its environment (gymnasium.envs.mujoco, 1.0) in the same order and in the same
types, so that the figures are equal bit for bit. In particular control costs stay in the dtype of the actions
(float32), sums run over the last axis of contiguous arrays (the order in which NumPy adds up one row), lengths go
through the dot product as in ``np.linalg.norm``, and squares of scalars through the scalar power.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_robust.envs.scalar_power import square

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Action = NDArray[Any]

Snapshot = Mapping[str, Float]
"""MjData fields by name, one row (n, ...) per episode, and of each episode's model ``dt`` (n,), the seconds between
two actions, ``timestep`` (n,), ``mass`` (n, nbody) in kg and their sum ``total_mass`` (n,)."""


class Task(ABC):
    """One environment's observation, reward and termination, over n episodes.

    Attributes:
        fields: the derived MjData fields it reads; after a step they lag one substep behind the state, which is what
            Gymnasium reads too.
        contacts: whether it reads ``cfrc_ext``, which a step does not compute.
    """

    fields: tuple[str, ...] = ()
    contacts: bool = False

    def mark(self, now: Snapshot) -> Float:
        """What the next step compares with: (n, ...), a copy."""
        return np.zeros(len(now["qpos"]))

    @abstractmethod
    def observe(self, now: Snapshot) -> Float:
        """Observations (n, O)."""

    @abstractmethod
    def judge(self, before: Float, now: Snapshot, actions: Action) -> tuple[Float, Bool]:
        """Rewards (n,) and terminated (n,) of the step from the mark ``before`` to ``now``."""


class _Health:
    """The bonus for staying healthy. In v4 the falling step earns it too where falling ends the episode."""

    def __init__(self, env: Any, version: str) -> None:
        self._bonus, self._ends = env._healthy_reward, bool(env._terminate_when_unhealthy)
        self._always = version == "v4" and self._ends

    def bonus(self, healthy: Bool) -> Float:
        return np.asarray((healthy | self._always) * self._bonus)

    def ended(self, healthy: Bool) -> Bool:
        return ~healthy if self._ends else np.zeros_like(healthy)


class Runner(Task):
    """Hopper, Walker2d, HalfCheetah and Swimmer: forward speed, less effort, plus health where there is any.

    Args:
        env: the unwrapped environment.
        version: "v4" or "v5".
        hidden: how many leading positions the observation leaves out by default.
        clip: whether the observed velocities are clipped to 10.
    """

    def __init__(self, env: Any, version: str, hidden: int, clip: bool) -> None:
        self._hidden = hidden if env._exclude_current_positions_from_observation else 0
        self._clip = clip
        self._forward, self._effort = env._forward_reward_weight, env._ctrl_cost_weight
        self._health = _Health(env, version) if hasattr(env, "_healthy_z_range") else None
        if self._health:
            self._height, self._angle = env._healthy_z_range, env._healthy_angle_range
            self._state = getattr(env, "_healthy_state_range", None)

    def mark(self, now: Snapshot) -> Float:
        """The forward position (n,)."""
        return now["qpos"][:, 0].copy()

    def observe(self, now: Snapshot) -> Float:
        """Positions and velocities."""
        velocity = np.clip(now["qvel"], -10, 10) if self._clip else now["qvel"]
        return np.concatenate((now["qpos"][:, self._hidden :], velocity), axis=1)

    def judge(self, before: Float, now: Snapshot, actions: Action) -> tuple[Float, Bool]:
        """Speed over the step, not the speed at its end."""
        reward = self._forward * ((now["qpos"][:, 0] - before) / now["dt"])
        healthy = self._healthy(now)
        if self._health:
            reward = reward + self._health.bonus(healthy)
        ended = self._health.ended(healthy) if self._health else ~healthy
        return reward - _effort(self._effort, actions), ended

    def _healthy(self, now: Snapshot) -> Bool:
        position, velocity = now["qpos"], now["qvel"]
        if not self._health:
            return np.ones(len(position), bool)
        healthy = _inside(position[:, 1], self._height) & _inside(position[:, 2], self._angle)
        if self._state is not None:
            healthy &= _inside(position[:, 2:], self._state).all(1) & _inside(velocity, self._state).all(1)
        return healthy


class Ant(Task):
    """Ant: forward speed of its main body, health, effort and contact forces."""

    fields = ("xpos",)

    def __init__(self, env: Any, version: str) -> None:
        self._hidden = 2 if env._exclude_current_positions_from_observation else 0
        self._health, self._effort = _Health(env, version), env._ctrl_cost_weight
        self._height, self._clip = env._healthy_z_range, env._contact_force_range
        self._contact = env._contact_cost_weight
        if version == "v4":
            self._forward, self._body, self._first = 1, env.model.body("torso").id, 0
            self.contacts = self._shown = bool(env._use_contact_forces)
        else:
            self._forward, self._body, self._first = env._forward_reward_weight, env.model.body(env._main_body).id, 1
            # The v5 reward counts contacts whether or not they are observed.
            self.contacts, self._shown = True, bool(env._include_cfrc_ext_in_observation)

    def mark(self, now: Snapshot) -> Float:
        """The forward position of the main body (n,)."""
        return now["xpos"][:, self._body, 0].copy()

    def observe(self, now: Snapshot) -> Float:
        """Positions, velocities and, where asked for, clipped contact forces."""
        parts = [now["qpos"][:, self._hidden :], now["qvel"]]
        if self._shown:
            parts.append(_flat(self._forces(now)[:, self._first :]))
        return np.concatenate(parts, axis=1)

    def judge(self, before: Float, now: Snapshot, actions: Action) -> tuple[Float, Bool]:
        """Speed and health, less effort and contacts."""
        height, (low, high) = now["qpos"][:, 2], self._height
        healthy = np.isfinite(now["qpos"]).all(1) & np.isfinite(now["qvel"]).all(1) & (low <= height) & (height <= high)
        reward = (self.mark(now) - before) / now["dt"] * self._forward + self._health.bonus(healthy)
        cost = _effort(self._effort, actions)
        if self.contacts:
            cost = cost + self._contact * np.square(_flat(self._forces(now))).sum(1)
        return reward - cost, self._health.ended(healthy)

    def _forces(self, now: Snapshot) -> Float:
        return np.asarray(np.clip(now["cfrc_ext"], *self._clip))


class _Parts:
    """What Humanoid and HumanoidStandup observe: v4 everything, v5 what is asked for, without the world body."""

    fields = ("cinert", "cvel", "qfrc_actuator")

    def __init__(self, env: Any, version: str) -> None:
        # HumanoidStandup-v4 has no option: it always leaves out the horizontal position.
        self._hidden = 2 if getattr(env, "_exclude_current_positions_from_observation", True) else 0
        # The floating base has no actuator, so v5 leaves out its six forces.
        parts = {"cinert": 1, "cvel": 1, "qfrc_actuator": 6, "cfrc_ext": 1}
        if version == "v4":
            self._parts = dict.fromkeys(parts, 0)
        else:
            # Gymnasium asks for True itself: any other true value leaves the part out.
            self._parts = {k: v for k, v in parts.items() if getattr(env, f"_include_{k}_in_observation") is True}

    def observe(self, now: Snapshot) -> Float:
        parts = [_flat(now[name][:, first:]) for name, first in self._parts.items()]
        return np.concatenate((now["qpos"][:, self._hidden :], now["qvel"], *parts), axis=1)


class Humanoid(Task):
    """Humanoid: forward speed of the centre of mass, health, effort and (v5) contact forces."""

    fields = (*_Parts.fields, "xipos")
    contacts = True

    def __init__(self, env: Any, version: str) -> None:
        self._parts = _Parts(env, version)
        self._health, self._height = _Health(env, version), env._healthy_z_range
        self._forward, self._effort = env._forward_reward_weight, env._ctrl_cost_weight
        self._contact = None if version == "v4" else (env._contact_cost_weight, env._contact_cost_range)

    def mark(self, now: Snapshot) -> Float:
        """Where the bodies' centres of mass are (n, nbody, 3): a change of masses moves the common centre."""
        return now["xipos"].copy()

    def observe(self, now: Snapshot) -> Float:
        """Positions, velocities, inertias, body velocities, actuator and contact forces."""
        return self._parts.observe(now)

    def judge(self, before: Float, now: Snapshot, actions: Action) -> tuple[Float, Bool]:
        """Speed and health, less effort (of the controls, in float64) and contacts."""
        speed = (_centre(now, now["xipos"]) - _centre(now, before)) / now["dt"]
        healthy = _inside(now["qpos"][:, 2], self._height)
        reward = self._forward * speed + self._health.bonus(healthy)
        cost = _effort(self._effort, now["ctrl"])
        if self._contact:
            weight, bounds = self._contact
            cost = cost + np.clip(weight * np.square(_flat(now["cfrc_ext"])).sum(1), *bounds)
        return reward - cost, self._health.ended(healthy)


class HumanoidStandup(Task):
    """HumanoidStandup: height over the physics time step (`uph_cost_weight` is never read), effort, impacts, plus 1."""

    fields = _Parts.fields
    contacts = True

    def __init__(self, env: Any, version: str) -> None:
        self._parts = _Parts(env, version)
        self._effort = getattr(env, "_ctrl_cost_weight", 0.1)
        self._impact = getattr(env, "_impact_cost_weight", 0.5e-6)
        self._bounds = getattr(env, "_impact_cost_range", (-np.inf, 10))

    def observe(self, now: Snapshot) -> Float:
        """As Humanoid."""
        return self._parts.observe(now)

    def judge(self, before: Float, now: Snapshot, actions: Action) -> tuple[Float, Bool]:
        """Never ends."""
        rise = now["qpos"][:, 2] / now["timestep"]
        impact = np.clip(self._impact * np.square(_flat(now["cfrc_ext"])).sum(1), *self._bounds)
        return rise - _effort(self._effort, now["ctrl"]) - impact + 1, np.zeros(len(rise), bool)


class InvertedPendulum(Task):
    """InvertedPendulum: 1 per step; v5 gives 0 for the falling one."""

    def __init__(self, env: Any, version: str) -> None:
        self._old = version == "v4"

    def observe(self, now: Snapshot) -> Float:
        """Positions and velocities."""
        return np.concatenate((now["qpos"], now["qvel"]), axis=1)

    def judge(self, before: Float, now: Snapshot, actions: Action) -> tuple[Float, Bool]:
        """Ends beyond 0.2 rad, or where a figure is not finite."""
        observation = self.observe(now)
        ended = ~np.isfinite(observation).all(1) | (np.abs(observation[:, 1]) > 0.2)
        return np.ones(len(ended)) if self._old else (~ended).astype(np.float64), ended


class InvertedDoublePendulum(Task):
    """InvertedDoublePendulum: a bonus, less the tip's distance from upright and the joints' speeds."""

    fields = ("site_xpos", "qfrc_constraint")

    def __init__(self, env: Any, version: str) -> None:
        self._old = version == "v4"
        self._bonus = 10 if self._old else env._healthy_reward

    def observe(self, now: Snapshot) -> Float:
        """The cart, sines and cosines of the joints, clipped velocities and constraint forces (v5: the first)."""
        angles = np.ascontiguousarray(now["qpos"][:, 1:])
        forces = np.clip(now["qfrc_constraint"], -10, 10)[:, : None if self._old else 1]
        velocity = np.clip(now["qvel"], -10, 10)
        return np.concatenate((now["qpos"][:, :1], np.sin(angles), np.cos(angles), velocity, forces), axis=1)

    def judge(self, before: Float, now: Snapshot, actions: Action) -> tuple[Float, Bool]:
        """Ends when the tip is at 1 m or lower; from v5 on the falling step earns no bonus."""
        x, y = now["site_xpos"][:, 0, 0], now["site_xpos"][:, 0, 2]
        ended = y <= 1
        bonus = self._bonus if self._old else self._bonus * ~ended
        distance = 0.01 * square(x) + square(y - 2)
        return bonus - distance - (1e-3 * square(now["qvel"][:, 1]) + 5e-3 * square(now["qvel"][:, 2])), ended


class Reacher(Task):
    """Reacher: the fingertip's distance from the goal and the effort. In v4 the distance is that before the step."""

    fields = ("xpos",)

    def __init__(self, env: Any, version: str) -> None:
        self._old = version == "v4"
        self._tip, self._target = env.model.body("fingertip").id, env.model.body("target").id
        self._distance = 1 if self._old else env._reward_dist_weight
        self._effort = 1 if self._old else env._reward_control_weight

    def mark(self, now: Snapshot) -> Float:
        """From the goal to the fingertip (n, 3)."""
        return now["xpos"][:, self._tip] - now["xpos"][:, self._target]

    def observe(self, now: Snapshot) -> Float:
        """Cosines and sines of the joints, goal, joint velocities, and the way to the goal (v5: in the plane)."""
        angles = np.ascontiguousarray(now["qpos"][:, :2])
        way = self.mark(now)[:, : 3 if self._old else 2]
        return np.concatenate((np.cos(angles), np.sin(angles), now["qpos"][:, 2:], now["qvel"][:, :2], way), axis=1)

    def judge(self, before: Float, now: Snapshot, actions: Action) -> tuple[Float, Bool]:
        """Never ends."""
        distance = -_length(before if self._old else self.mark(now)) * self._distance
        return distance + -np.square(actions).sum(1) * self._effort, np.zeros(len(distance), bool)


class Pusher(Task):
    """Pusher-v5: the arm near the object, the object near the goal, and the effort."""

    fields = ("xpos",)

    def __init__(self, env: Any, version: str) -> None:
        self._bodies = [env.model.body(name).id for name in ("tips_arm", "object", "goal")]
        self._near, self._far = env._reward_near_weight, env._reward_dist_weight
        self._effort = env._reward_control_weight

    def observe(self, now: Snapshot) -> Float:
        """Seven joints, their velocities, and where arm, object and goal are."""
        places = [now["xpos"][:, body] for body in self._bodies]
        return np.concatenate((now["qpos"][:, :7], now["qvel"][:, :7], *places), axis=1)

    def judge(self, before: Float, now: Snapshot, actions: Action) -> tuple[Float, Bool]:
        """Never ends."""
        tip, thing, goal = (now["xpos"][:, body] for body in self._bodies)
        near, far = -_length(thing - tip) * self._near, -_length(thing - goal) * self._far
        return far + -np.square(actions).sum(1) * self._effort + near, np.zeros(len(far), bool)


def _inside(values: Float, bounds: tuple[float, float]) -> Bool:
    return np.asarray((bounds[0] < values) & (values < bounds[1]))


def _flat(values: Float) -> Float:
    """(n, ...) as a contiguous (n, m): the layout in which sums add up in Gymnasium's order."""
    return np.ascontiguousarray(values).reshape(len(values), -1)


def _effort(weight: float, controls: Action) -> NDArray[Any]:
    return np.asarray(weight * np.square(controls).sum(1))


def _length(vectors: Float) -> Float:
    """Row by row the square root of the dot product, which may differ from that of the summed squares."""
    return np.asarray(np.sqrt(np.vecdot(vectors, vectors)))


def _centre(now: Snapshot, places: Float) -> Float:
    """The forward coordinate (n,) of the centre of mass."""
    moments = (now["mass"][:, :, None] * places).sum(1)
    return np.asarray(moments[:, 0] / now["total_mass"])
