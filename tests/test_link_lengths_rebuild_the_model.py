"""Link lengths: the model built again is the same robot with other lengths, standing as high above the ground."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from offline_robust.envs.mujoco_lengths import LinkLengths, quiet_compiler
from offline_robust.envs.mujoco_physics import MuJoCoPhysics
from offline_robust.envs.perturbations import Perturbation
from offline_robust.envs.physics import perturb
from offline_robust.errors import EvaluationError

V5 = ("Hopper", "Walker2d", "HalfCheetah", "InvertedPendulum", "InvertedDoublePendulum", "Reacher", "Swimmer", "Ant")
ENVS = ["Hopper-v4", *(f"{name}-v5" for name in V5)]


@lru_cache(maxsize=16)
def made(env_id: str) -> Any:
    with quiet_compiler():
        return gym.make(env_id, disable_env_checker=True).unwrapped


@lru_cache(maxsize=16)
def opened(env_id: str) -> MuJoCoPhysics:
    return MuJoCoPhysics(made(env_id))


def stretched(env_id: str, **factors: float) -> MuJoCoPhysics:
    physics = opened(env_id)
    physics.reset()
    perturb(physics, [Perturbation(name, factor, "scale") for name, factor in factors.items()])
    return physics


def numbers(model: Any) -> dict[str, bytes]:
    found = {}
    for part, holder in (("", model), ("opt.", model.opt), ("stat.", model.stat)):
        for name in dir(holder):
            value = getattr(holder, name) if not name.startswith("_") else None
            if isinstance(value, np.ndarray | int | float):
                found[part + name] = np.asarray(value).tobytes()
    return found


def start(physics: MuJoCoPhysics) -> Any:
    data = mujoco.MjData(physics.model)
    data.qpos[:] = physics.qpos0
    mujoco.mj_forward(physics.model, data)
    return data


def trajectory(model: Any, start: np.ndarray, steps: int = 100, seed: int = 0) -> np.ndarray:
    data, rng, states = mujoco.MjData(model), np.random.default_rng(seed), []
    data.qpos[:] = start
    for _ in range(steps):
        data.ctrl[:] = rng.uniform(-1, 1, model.nu)
        mujoco.mj_step(model, data)
        states.append(np.concatenate([data.qpos, data.qvel]))
    return np.array(states)


@pytest.mark.parametrize("env_id", ENVS)
def test_nominal_lengths_give_gymnasium_s_own_model_to_the_last_bit(env_id: str) -> None:
    env = made(env_id)
    links = LinkLengths(env.fullpath, env.model, env.init_qpos)
    again = links.build(links.nominal)
    assert numbers(again) == numbers(env.model)
    np.testing.assert_array_equal(trajectory(again, env.init_qpos), trajectory(env.model, env.init_qpos))
    physics = opened(env_id)
    physics.reset()
    np.testing.assert_array_equal(physics.qpos0, env.init_qpos)


@pytest.mark.parametrize(
    ("env_id", "lengths"),
    [
        ("Hopper-v5", {"torso": 0.4, "thigh": 0.45, "leg": 0.5, "foot": 0.39}),
        ("Walker2d-v5", {"torso": 0.4, "right_thigh": 0.45, "left_leg": 0.5, "left_foot": 0.2}),
        ("HalfCheetah-v5", {"torso": 1.0, "bthigh": 0.29, "bshin": 0.3, "fthigh": 0.266, "ffoot": 0.14}),
        ("InvertedPendulum-v5", {"pole": np.hypot(0.6, 0.001)}),
        ("Reacher-v5", {"link0": 0.1, "link1": 0.1}),
        ("Swimmer-v5", {"torso": 1.0, "mid": 1.0, "back": 1.0}),
    ],
)
def test_lengths_are_metres_and_can_be_set_and_read(env_id: str, lengths: dict[str, float]) -> None:
    physics = stretched(env_id)
    for name, length in lengths.items():
        # A length typed as the XML's author would is the nominal one, without the rounding noise of the file.
        np.testing.assert_array_equal(physics.read(f"{name}_length"), [round(length, 9)])
    for name, length in lengths.items():
        physics.write(f"{name}_length", np.array([1.25 * length]))
    for name, length in lengths.items():
        np.testing.assert_array_equal(physics.read(f"{name}_length"), [1.25 * length])
        assert physics.parameters[f"{name}_length"].structural


DISTANCES = [
    # environment, parameter, the joint a link hangs by, the one at its end, and the length between them
    ("Hopper-v5", "thigh_length", "thigh_joint", "leg_joint", 0.45),
    ("Hopper-v5", "leg_length", "leg_joint", "foot_joint", 0.5),
    ("Walker2d-v5", "left_leg_length", "leg_left_joint", "foot_left_joint", 0.5),
    ("Walker2d-v5", "leg_length", "leg_joint", "foot_joint", 0.5),
    ("HalfCheetah-v5", "torso_length", "bthigh", "fthigh", 1.0),
    ("Reacher-v5", "link0_length", "joint0", "joint1", 0.1),
    ("Swimmer-v5", "mid_length", "motor1_rot", "motor2_rot", 1.0),
    ("Ant-v5", "leg_length", "hip_1", "ankle_1", 0.2 * np.sqrt(2)),
    ("InvertedDoublePendulum-v5", "pole_length", "hinge", "hinge2", 0.6),
]


@pytest.mark.parametrize(("env_id", "name", "near", "far", "length"), DISTANCES)
@pytest.mark.parametrize("factor", [0.6, 1.5])
def test_joints_move_apart_by_exactly_the_added_length(
    env_id: str, name: str, near: str, far: str, length: float, factor: float
) -> None:
    data = start(stretched(env_id, **{name: factor}))
    between = np.linalg.norm(data.joint(far).xanchor - data.joint(near).xanchor)
    assert between == pytest.approx(factor * length, abs=1e-9)


def test_nothing_but_the_stretched_link_changes_shape() -> None:
    nominal, physics = made("Walker2d-v5").model, stretched("Walker2d-v5", left_thigh_length=1.4)
    changed = [
        nominal.geom(g).name for g in range(nominal.ngeom) if (physics.model.geom_size != nominal.geom_size)[g].any()
    ]
    assert changed == ["thigh_left_geom"]
    assert physics.model.geom("thigh_left_geom").size[0] == nominal.geom("thigh_left_geom").size[0]
    heavier = np.flatnonzero(physics.model.body_mass != nominal.body_mass)
    assert [nominal.body(b).name for b in heavier] == ["thigh_left"]
    data = start(stretched("HalfCheetah-v5", torso_length=1.5))
    # The head stays 0.1 m ahead of the shoulder.
    np.testing.assert_allclose(data.geom("head").xpos - data.joint("fthigh").xanchor, [0.1, 0, 0.1], atol=1e-12)


@pytest.mark.parametrize("factor", [0.7, 1.5])
def test_mass_follows_the_density_unless_the_total_is_fixed(factor: float) -> None:
    hopper = stretched("Hopper-v5", leg_length=factor).model
    added = 1000 * np.pi * 0.04**2 * 0.5 * (factor - 1)
    assert hopper.body_mass.sum() - made("Hopper-v5").model.body_mass.sum() == pytest.approx(added)
    assert (hopper.body("leg").inertia[0] > made("Hopper-v5").model.body("leg").inertia[0]) == (factor > 1)
    cheetah = stretched("HalfCheetah-v5", torso_length=factor)
    assert cheetah.model.body_mass.sum() == pytest.approx(14.0)
    assert (cheetah.model.body("torso").mass[0] > 6.2502) == (factor > 1)
    assert "total mass stays" in cheetah.parameters["torso_length"].meaning


def gap_to_floor(physics: MuJoCoPhysics) -> float:
    """The clearance between the floor and the nearest geom, by MuJoCo's own collision code."""
    data, line = start(physics), np.zeros(6)
    geoms = np.flatnonzero(physics.model.geom_bodyid > 0)
    return min(mujoco.mj_geomDistance(physics.model, data, 0, int(geom), 10.0, line) for geom in geoms)


@pytest.mark.parametrize("factor", [0.7, 1.5])
@pytest.mark.parametrize("env_id", ["Hopper-v5", "Walker2d-v5", "HalfCheetah-v5", "Ant-v5", "Humanoid-v5"])
def test_the_robot_starts_with_its_feet_as_high_as_before(env_id: str, factor: float) -> None:
    before = gap_to_floor(stretched(env_id))
    physics = stretched(env_id, limb_length=factor)
    assert gap_to_floor(physics) == pytest.approx(before, abs=1e-6)
    rises = not env_id.startswith("Ant")  # it starts in the air with its legs level
    assert (physics.qpos0 - made(env_id).init_qpos).any() == rises
    # A fresh simulation of the model alone starts there too.
    np.testing.assert_array_equal(mujoco.MjData(physics.model).qpos, physics.qpos0)


def test_heights_in_observations_stay_heights_above_the_ground() -> None:
    physics = stretched("Hopper-v5", leg_length=1.2, thigh_length=0.8)
    lift = 0.2 * 0.5 - 0.2 * 0.45
    assert physics.qpos0[1] == pytest.approx(1.25 + lift)
    assert start(physics).body("torso").xpos[2] == pytest.approx(1.25 + lift)


def written_by_hand(leg: float, thigh: float) -> Any:
    """Hopper with half lengths typed into its XML tree, frames and joint anchors moved by hand."""
    spec, lift = mujoco.MjSpec.from_file(made("Hopper-v5").fullpath), 2 * (leg - 0.25) + 2 * (thigh - 0.225)
    spec.body("torso").pos = [0, 0, 1.25 + lift]
    spec.joint("rootx").pos = spec.joint("rootz").pos = [0, 0, -1.25 - lift]
    spec.joint("rootz").ref = 1.25 + lift
    spec.geom("thigh_geom").size = [0.05, thigh, 0]
    spec.geom("thigh_geom").pos = [0, 0, -thigh]
    spec.body("leg").pos = [0, 0, -2 * thigh - leg]
    spec.joint("leg_joint").pos = [0, 0, leg]
    spec.geom("leg_geom").size = [0.04, leg, 0]
    spec.body("foot").pos = [0.13, 0, -leg - 0.1]
    return spec.compile()


def test_a_stretched_hopper_moves_like_one_written_by_hand() -> None:
    physics, expected = stretched("Hopper-v5", leg_length=1.3, thigh_length=0.9), written_by_hand(0.325, 0.2025)
    np.testing.assert_allclose(physics.qpos0, expected.qpos0, atol=1e-12)
    ours, theirs = trajectory(physics.model, physics.qpos0), trajectory(expected, expected.qpos0)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert np.abs(theirs[-1] - trajectory(made("Hopper-v5").model, made("Hopper-v5").init_qpos)[-1]).max() > 1e-2


def test_a_longer_pole_falls_slower() -> None:
    angles = []
    for factor in (0.5, 1.0, 2.0):
        physics = stretched("InvertedPendulum-v5", pole_length=factor)
        physics.write("damping", np.zeros(2))
        data = start(physics)
        data.joint("hinge").qpos[0] = 0.1
        for _ in range(15):
            mujoco.mj_step(physics.model, data)
        angles.append(float(data.joint("hinge").qpos[0]))
    assert angles[0] > angles[1] > angles[2] > 0.1


def test_lengths_go_first_and_other_parameters_start_from_the_new_model() -> None:
    fresh = stretched("Hopper-v5", leg_length=1.5).model.body_mass.copy()
    physics = opened("Hopper-v5")
    physics.reset()
    both = [Perturbation("mass", 2.0, "scale"), Perturbation("leg_length", 1.5, "scale")]
    perturb(physics, both)
    np.testing.assert_array_equal(physics.model.body_mass, 2 * fresh)
    physics.write("leg_length", physics.read("leg_length"))
    np.testing.assert_array_equal(physics.model.body_mass, 2 * fresh)
    # A new length starts from a clean model.
    physics.write("torso_push_x", np.array([3.0]))
    physics.write("leg_length", np.array([0.6]))
    assert not physics.pushes.any()
    assert physics.read("leg_mass")[0] < fresh[3]
    np.testing.assert_array_equal(physics.read("damping"), np.ones(3))


def test_lengths_compose_and_a_known_build_comes_back_clean() -> None:
    physics = stretched("Hopper-v5", thigh_length=1.2, limb_length=1.5)
    np.testing.assert_allclose(physics.read("limb_length"), [0.45 * 1.8, 0.5 * 1.5, 0.39 * 1.5])
    clean, model = numbers(physics.model), physics.model
    physics.write("mass", physics.read("mass") * 3)
    physics.write("torso_push_x", np.array([3.0]))
    physics.commit()
    again = stretched("Hopper-v5", thigh_length=1.2, limb_length=1.5)
    assert again.model is model  # not built twice
    assert numbers(again.model) == clean
    assert not again.pushes.any()
    physics.reset()
    assert numbers(physics.model) == numbers(made("Hopper-v5").model)
    np.testing.assert_array_equal(physics.read("thigh_length"), [0.45])


def test_names_cover_both_sides_one_side_and_all_limbs() -> None:
    walker, ant = stretched("Walker2d-v5", leg_length=1.1), opened("Ant-v5")
    np.testing.assert_allclose(walker.read("right_leg_length"), [0.55])
    np.testing.assert_allclose(walker.read("left_leg_length"), [0.55])
    assert len(walker.read("limb_length")) == 6
    assert len(ant.read("leg_length")) == 12
    assert len(ant.read("front_left_leg_length")) == 3
    assert len(opened("InvertedDoublePendulum-v5").read("pole_length")) == 2


TOOL = """<mujoco><worldbody><body name="arm">{inertial}<joint name="turn" axis="0 0 1"/>
<geom name="arm" type="capsule" size=".02" fromto="0 0 0 .5 0 0"/>
<geom name="handle" type="capsule" size=".01" fromto=".55 -.1 0 .55 .1 0"/>
<site name="tip" pos=".6 0 0"/></body></worldbody></mujoco>"""


def test_what_hangs_at_the_end_moves_along_rigidly(tmp_path: Path) -> None:
    path = tmp_path / "tool.xml"
    path.write_text(TOOL.format(inertial=""))
    model = mujoco.MjModel.from_xml_path(str(path))
    links = LinkLengths(str(path), model, model.qpos0)
    longer = links.build(np.array([0.75]))
    np.testing.assert_allclose(longer.site("tip").pos - model.site("tip").pos, [0.25, 0, 0], atol=1e-12)
    np.testing.assert_allclose(longer.geom("handle").pos - model.geom("handle").pos, [0.25, 0, 0], atol=1e-12)
    np.testing.assert_array_equal(longer.geom("handle").size, model.geom("handle").size)
    # A mass that is stated apart from the shape would not follow: no length is offered.
    path.write_text(TOOL.format(inertial='<inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>'))
    model = mujoco.MjModel.from_xml_path(str(path))
    assert not LinkLengths(str(path), model, model.qpos0).names


def test_an_environment_with_an_edited_model_offers_no_lengths() -> None:
    env = copy.copy(made("Hopper-v5"))
    env.model = copy.copy(env.model)
    env.model.body_mass[1] *= 1.5
    physics = MuJoCoPhysics(env)
    assert not [name for name in physics.parameters if name.endswith("_length")]
    assert physics.read("torso_mass")[0] == env.model.body_mass[1]
    env.fullpath = "/nowhere/gone.xml"
    assert "leg_length" not in MuJoCoPhysics(env).parameters


def test_impossible_geometry_is_one_clear_line() -> None:
    physics = stretched("Reacher-v5")
    with pytest.raises(EvaluationError, match="outside its physical range"):
        physics.write("link0_length", np.zeros(1))
    physics = stretched("Hopper-v5")
    with pytest.raises(EvaluationError, match="outside its physical range"):
        physics.write("leg_length", np.array([101.0]))
    assert numbers(physics.model) == numbers(made("Hopper-v5").model)


def test_building_prints_nothing_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], recwarn: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    env = made("HalfCheetah-v5")
    physics = MuJoCoPhysics(env)
    physics.write("torso_length", np.array([1.3]))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    with quiet_compiler():
        gym.make("HalfCheetah-v5", disable_env_checker=True)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    # The user's own callback is back afterwards.
    assert mujoco.get_mju_user_warning() is None
