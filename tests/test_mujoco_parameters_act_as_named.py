"""MuJoCo parameters: each does to the simulation what its name says, and nominal means untouched to the last bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from offline_robust.envs.mujoco_lengths import quiet_compiler
from offline_robust.envs.mujoco_physics import MuJoCoPhysics, mujoco_physics
from offline_robust.envs.perturbations import Perturbation
from offline_robust.envs.physics import perturb
from offline_robust.errors import EvaluationError

ENVS = [f"{name}-v5" for name in ("Hopper", "HalfCheetah", "Walker2d", "Reacher", "InvertedPendulum", "Swimmer", "Ant")]


@lru_cache(maxsize=16)
def made(env_id: str) -> gym.Env[Any, Any]:
    with quiet_compiler():
        return gym.make(env_id, disable_env_checker=True)


@lru_cache(maxsize=16)
def opened(env_id: str) -> MuJoCoPhysics:
    return MuJoCoPhysics(made(env_id))


def physics_of(env_id: str) -> MuJoCoPhysics:
    physics = opened(env_id)
    physics.reset()
    return physics


def numbers(model: Any) -> dict[str, bytes]:
    """Every array and option of a model; the test's own reading, not the library's."""
    found = {}
    for part, holder in (("", model), ("opt.", model.opt), ("stat.", model.stat)):
        for name in dir(holder):
            value = getattr(holder, name) if not name.startswith("_") else None
            if isinstance(value, np.ndarray | int | float):
                found[part + name] = np.asarray(value).tobytes()
    return found


def run(physics: MuJoCoPhysics, steps: int, control: float = 0.0, **start: dict[str, float]) -> Any:
    """Simulates from the start state with positions and velocities of single joints replaced."""
    data = mujoco.MjData(physics.model)
    data.qpos[:] = physics.qpos0
    for joint, value in start.get("qpos", {}).items():
        data.joint(joint).qpos[0] += value
    for joint, value in start.get("qvel", {}).items():
        data.joint(joint).qvel[0] = value
    data.ctrl[:] = control
    data.xfrc_applied[:, :3] = physics.pushes
    for _ in range(steps):
        mujoco.mj_step(physics.model, data)
    return data


def changed(name: str, physics: MuJoCoPhysics) -> np.ndarray:
    values = physics.read(name)
    return np.where(values == 0.0, 0.25, values * 1.25)


@pytest.mark.parametrize("env_id", ENVS)
def test_every_parameter_is_nominal_until_changed_and_resets_to_the_last_bit(env_id: str) -> None:
    physics = physics_of(env_id)
    nominal = numbers(made(env_id).unwrapped.model)  # type: ignore[attr-defined]
    assert numbers(physics.model) == nominal
    for name in physics.parameters:
        physics.write(name, physics.read(name))
        physics.commit()
        assert numbers(physics.model) == nominal, name
        wanted = changed(name, physics)
        physics.write(name, wanted)
        physics.commit()
        np.testing.assert_allclose(physics.read(name), wanted, rtol=1e-15, err_msg=name)
        assert numbers(physics.model) != nominal or physics.pushes.any(), name
        physics.reset()
        assert numbers(physics.model) == nominal, name
        assert not physics.pushes.any()


def test_everything_changed_at_once_resets_and_leaves_copies_and_the_environment_alone() -> None:
    physics = physics_of("Hopper-v5")
    nominal = numbers(physics.model)
    for name in physics.parameters:
        physics.write(name, changed(name, physics))
    physics.commit()
    kept = copy.copy(physics.model)
    before = numbers(kept)
    physics.reset()
    assert numbers(physics.model) == nominal == numbers(made("Hopper-v5").unwrapped.model)  # type: ignore[attr-defined]
    physics.write("mass", physics.read("mass") * 3)
    assert numbers(kept) == before


def test_overlapping_parameters_compose_in_the_stated_order() -> None:
    physics = physics_of("Hopper-v5")
    mass, inertia = physics.model.body_mass.copy(), physics.model.body_inertia.copy()
    perturb(physics, [Perturbation("mass", 2.0, "scale"), Perturbation("torso_mass", 2.0, "scale")])
    np.testing.assert_allclose(physics.model.body_mass / np.where(mass, mass, 1), [0, 4, 2, 2, 2])
    np.testing.assert_allclose(physics.model.body_inertia[1:], inertia[1:] * np.array([4, 2, 2, 2])[:, None])
    physics.reset()
    perturb(physics, [Perturbation("damping", 3.0, "absolute"), Perturbation("leg_damping", 1.0, "add")])
    np.testing.assert_array_equal(physics.read("damping"), [3, 4, 3])


def test_sides_and_groups_mean_the_joints_they_name() -> None:
    cheetah, walker = physics_of("HalfCheetah-v5"), physics_of("Walker2d-v5")
    cheetah.write("back_damping", np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(cheetah.model.dof_damping, [0, 0, 0, 1, 2, 3, 4.5, 3, 1.5])
    cheetah.write("front_gear", np.array([4.0, 5.0, 6.0]))
    np.testing.assert_array_equal(cheetah.model.actuator_gear[:, 0], [120, 90, 60, 4, 5, 6])
    walker.write("left_ctrlrange", np.array([0.1, 0.2, 0.3]))
    np.testing.assert_array_equal(walker.model.actuator_ctrlrange[:, 1], [1, 1, 1, 0.1, 0.2, 0.3])
    walker.write("right_stiffness", np.ones(3))
    np.testing.assert_array_equal(walker.model.jnt_stiffness, [0, 0, 0, 1, 1, 1, 0, 0, 0])
    # The root of a robot and Reacher's target are not limbs.
    reacher = physics_of("Reacher-v5")
    reacher.write("frictionloss", np.ones(2))
    np.testing.assert_array_equal(reacher.model.dof_frictionloss, [1, 1, 0, 0])
    assert "target_x_damping" not in reacher.parameters
    assert not any(name.startswith("root") for name in cheetah.parameters)


def joint_speed(joint: str, control: float = 0.0, speed: float = 0.0) -> Callable[[MuJoCoPhysics], float]:
    return lambda physics: float(run(physics, 20, control, qvel={joint: speed}).joint(joint).qvel[0])


def place(joint: str, steps: int = 20, control: float = 0.0, **start: dict[str, float]) -> Callable[..., float]:
    return lambda physics: float(run(physics, steps, control, **start).joint(joint).qpos[0])


def foot_slide(physics: MuJoCoPhysics) -> float:
    return float(run(physics, 100, qvel={"rootx": 2.0}).body("foot").xpos[0])


UP = {"rootz": 5.0}
TABLE = [
    ("HalfCheetah-v5", "gravity", 5.0, 15.0, place("rootz", qpos=UP), "falls"),
    ("Reacher-v5", "joint0_damping", 0.1, 10.0, joint_speed("joint0", speed=5.0), "falls"),
    ("HalfCheetah-v5", "back_damping", 1.0, 20.0, joint_speed("bfoot", speed=5.0), "falls"),
    ("Hopper-v5", "thigh_damping", 0.0, 20.0, joint_speed("thigh_joint", control=-1.0), "rises"),
    ("Reacher-v5", "joint0_frictionloss", 0.0, 2.0, joint_speed("joint0", speed=5.0), "falls"),
    ("Reacher-v5", "joint0_armature", 0.5, 5.0, joint_speed("joint0", control=0.1), "falls"),
    ("Reacher-v5", "armature", 0.5, 5.0, joint_speed("joint1", control=0.1), "falls"),
    ("Reacher-v5", "joint1_gear", 50.0, 300.0, joint_speed("joint1", control=0.05), "rises"),
    ("Reacher-v5", "gear", -100.0, 100.0, joint_speed("joint0", control=0.05), "rises"),
    ("Reacher-v5", "joint0_ctrlrange", 0.01, 0.05, joint_speed("joint0", control=0.5), "rises"),
    ("HalfCheetah-v5", "bthigh_stiffness", 50.0, 500.0, place("bthigh", 5, qpos={"bthigh": 0.5, **UP}), "falls"),
    ("HalfCheetah-v5", "back_springref", -0.3, 0.3, place("bthigh", qpos=UP), "rises"),
    ("Hopper-v5", "torso_push_x", -20.0, 20.0, place("rootx", qpos=UP), "rises"),
    ("Hopper-v5", "torso_push_z", -20.0, 20.0, place("rootz", qpos=UP), "rises"),
    ("Ant-v5", "torso_push_y", -2.0, 2.0, lambda p: float(run(p, 20).qpos[1]), "rises"),
    ("Swimmer-v5", "wind_x", -3.0, 3.0, place("slider1"), "rises"),
    ("Swimmer-v5", "wind_y", -3.0, 3.0, place("slider2"), "rises"),
    ("Swimmer-v5", "density", 100.0, 4000.0, joint_speed("slider2", speed=2.0), "falls"),
    ("Swimmer-v5", "viscosity", 0.1, 100.0, joint_speed("slider1", speed=2.0), "falls"),
    ("HalfCheetah-v5", "friction", 0.1, 2.0, place("rootx", 100, qvel={"rootx": 3.0}), "falls"),
    ("HalfCheetah-v5", "floor_friction", 0.1, 2.0, place("rootx", 100, qvel={"rootx": 3.0}), "falls"),
    ("Hopper-v5", "floor_friction", 0.1, 1.9, foot_slide, "falls"),
    ("HalfCheetah-v5", "world_friction", 0.4, 2.0, place("rootx", 100, qvel={"rootx": 3.0}), "falls"),
    ("HalfCheetah-v5", "timestep", 0.005, 0.02, place("rootz", qpos=UP), "falls"),
    ("InvertedPendulum-v5", "cart_mass", 1.0, 40.0, joint_speed("slider", control=0.05), "falls"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("env_id", "name", "low", "high", "measure", "direction"), TABLE, ids=[f"{row[0]}-{row[1]}" for row in TABLE]
)
def test_more_of_it_moves_the_simulation_as_physics_say(
    env_id: str, name: str, low: float, high: float, measure: Callable[[MuJoCoPhysics], float], direction: str
) -> None:
    measured = []
    for level in (low, high):
        physics = physics_of(env_id)
        perturb(physics, [Perturbation(name, level, "absolute")])
        measured.append(measure(physics))
    difference = measured[1] - measured[0]
    assert abs(difference) > 1e-3
    assert (difference > 0) == (direction == "rises"), measured


def test_free_fall_and_pushes_obey_newton() -> None:
    physics = physics_of("HalfCheetah-v5")
    physics.write("gravity", np.array([3.0]))
    # MuJoCo's Euler steps fall by g dt^2 (1 + 2 + ... + n).
    fallen = 5.0 - run(physics, 50, qpos=UP).joint("rootz").qpos[0]
    assert fallen == pytest.approx(3.0 * 0.01**2 * 50 * 51 / 2, rel=1e-9)
    speeds = []
    for factor in (1.0, 4.0):
        physics.reset()
        physics.write("gravity", np.zeros(1))
        physics.write("mass", physics.read("mass") * factor)
        physics.write("torso_push_x", np.array([7.0]))
        physics.commit()
        data = run(physics, 50)
        mujoco.mj_forward(physics.model, data)
        mujoco.mj_subtreeVel(physics.model, data)
        speeds.append(data.subtree_linvel[1, 0])
    np.testing.assert_allclose(speeds, [7.0 * 0.5 / 14.0, 7.0 * 0.5 / 56.0], rtol=1e-3)


def test_wind_needs_air_and_blows_downwind() -> None:
    physics = physics_of("Hopper-v5")
    still = run(physics, 50, qpos=UP).qpos.copy()
    physics.write("wind_x", np.array([20.0]))
    np.testing.assert_array_equal(run(physics, 50, qpos=UP).qpos, still)
    physics.write("density", np.array([1.2]))
    assert run(physics, 50, qpos=UP).qpos[0] > still[0] + 1e-3


def test_a_spring_pulls_to_its_rest_position_and_only_if_stiff() -> None:
    physics = physics_of("Reacher-v5")
    physics.write("joint1_springref", np.array([1.0]))
    assert run(physics, 100).joint("joint1").qpos[0] == 0.0
    physics.write("joint1_stiffness", np.array([20.0]))
    assert run(physics, 1000).joint("joint1").qpos[0] == pytest.approx(1.0, abs=0.02)


def test_a_smaller_control_range_equals_a_clipped_action() -> None:
    physics = physics_of("Hopper-v5")
    clipped = run(physics, 50, control=0.4).qpos.copy()
    physics.write("ctrlrange", np.full(3, 0.4))
    np.testing.assert_array_equal(run(physics, 50, control=1.0).qpos, clipped)


def test_an_off_centre_control_range_keeps_its_centre() -> None:
    env = copy.copy(made("Reacher-v5").unwrapped)
    env.model = copy.copy(env.model)  # type: ignore[attr-defined]
    env.model.actuator_ctrlrange[0] = [-1.0, 3.0]  # type: ignore[attr-defined]
    physics = MuJoCoPhysics(env)
    physics.write("ctrlrange", physics.read("ctrlrange") * 0.5)
    np.testing.assert_array_equal(physics.model.actuator_ctrlrange, [[0.0, 2.0], [-0.5, 0.5]])


def test_the_floor_alone_is_inert_below_the_feet_and_floor_friction_is_not() -> None:
    physics = physics_of("Hopper-v5")
    start = {"qvel": {"rootx": 2.0}}
    nominal = run(physics, 100, **start).qpos.copy()
    physics.write("world_friction", np.array([0.1]))
    np.testing.assert_array_equal(run(physics, 100, **start).qpos, nominal)
    physics.reset()
    physics.write("floor_friction", np.array([0.1]))
    assert physics.model.geom_priority.tolist() == [1, 0, 0, 0, 0]
    assert np.abs(run(physics, 100, **start).qpos - nominal).max() > 1e-2


def test_floor_friction_is_offered_only_where_priority_changes_nothing_else() -> None:
    env = copy.copy(made("Hopper-v5").unwrapped)
    env.model = copy.copy(env.model)  # type: ignore[attr-defined]
    env.model.geom_solref[0, 0] *= 2  # type: ignore[attr-defined]
    offered = MuJoCoPhysics(env).parameters
    assert "floor_friction" not in offered
    assert "world_friction" in offered


@pytest.mark.parametrize("name", ["mass", "armature", "gear", "springref", "torso_mass"])
def test_derived_constants_follow_what_they_derive_from(name: str) -> None:
    physics = physics_of("Hopper-v5")
    derived = physics.model.dof_invweight0.copy(), physics.model.actuator_acc0.copy()
    physics.write(name, changed(name, physics))
    physics.commit()
    fresh = copy.copy(physics.model)
    mujoco.mj_setConst(fresh, mujoco.MjData(fresh))
    assert numbers(fresh) == numbers(physics.model)
    if name != "springref":
        now = physics.model.dof_invweight0, physics.model.actuator_acc0
        assert any(not np.array_equal(a, b) for a, b in zip(now, derived, strict=True))


def test_what_is_impossible_is_refused_in_one_line() -> None:
    physics = physics_of("Hopper-v5")
    refusals: list[tuple[str, Any, str]] = [
        ("torso_mas", [1.0], "did you mean 'torso_mass'"),
        ("torso_mass", [0.0], "outside its physical range"),
        ("damping", [1.0, -1.0, 1.0], "outside its physical range"),
        ("timestep", [np.nan], "outside its physical range"),
        ("damping", [1.0], "shape"),
        ("leg_length", [-0.5], "outside its physical range"),
    ]
    for name, values, message in refusals:
        with pytest.raises(EvaluationError, match=message):
            physics.write(name, np.array(values))
    assert numbers(physics.model) == numbers(made("Hopper-v5").unwrapped.model)  # type: ignore[attr-defined]


def test_only_what_exists_is_offered() -> None:
    pendulum, reacher = physics_of("InvertedPendulum-v5").parameters, physics_of("Reacher-v5").parameters
    # Nothing can touch anything on the rail.
    assert not {"friction", "floor_friction", "world_friction", "limb_length"} & set(pendulum)
    assert {"cart_mass", "pole_mass", "hinge_damping", "slider_gear", "pole_push_x"} <= set(pendulum)
    assert {"joint0_damping", "joint1_stiffness", "ctrlrange", "link0_length"} <= set(reacher)
    assert mujoco_physics(gym.make("Pendulum-v1"), "Pendulum-v1") is None
    hopper = physics_of("Hopper-v5").parameters
    assert hopper["stiffness"].default_mode == "absolute"  # nominally 0: there is nothing to scale
    assert hopper["damping"].default_mode == "scale"
