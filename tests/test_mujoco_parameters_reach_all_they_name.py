"""MuJoCo models of the user's own: a parameter acts on all that its name says, judged by what MuJoCo computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from mujoco_models import ACTUATORS, CLOTH, FACTORS, PAIRS, STRAPS, arm, feet, moving, numbers, opened, scaled, straps

from offline_robust.envs.mujoco_lengths import LinkLengths
from offline_robust.envs.mujoco_physics import MuJoCoPhysics
from offline_robust.envs.perturbations import Perturbation
from offline_robust.envs.physics import perturb
from offline_robust.errors import EvaluationError


def damper(model: Any) -> np.ndarray:
    return np.array(moving(model).qfrc_damper)


def spring(model: Any) -> np.ndarray:
    return np.array(moving(model).qfrc_spring)


def dry(model: Any) -> np.ndarray:
    """Of every degree of freedom, then of every tendon, as the solver gets it; it gets no zeros."""
    data, found = moving(model), np.zeros(model.nv + model.ntendon)
    at_tendon = data.efc_type == int(mujoco.mjtConstraint.mjCNSTR_FRICTION_TENDON)
    found[data.efc_id + model.nv * at_tendon] = data.efc_frictionloss
    return found


def rotors(model: Any) -> np.ndarray:
    """What armatures add to the inertia matrix."""
    bare = opened(STRAPS.format(flag="")).model
    for path in ("dof_armature", "tendon_armature", "actuator_armature"):
        getattr(bare, path)[:] = 0.0
    full = []
    for one in (model, bare):
        matrix = np.zeros((one.nv, one.nv))
        mujoco.mj_fullM(one, moving(one), matrix)
        full.append(matrix)
    return np.asarray(full[0] - full[1])


@pytest.mark.parametrize(
    ("name", "felt"), [("damping", damper), ("stiffness", spring), ("frictionloss", dry), ("armature", rotors)]
)
def test_friction_springs_and_rotors_scale_in_joints_tendons_and_motors_alike(name: str, felt: Any) -> None:
    physics = straps()
    before, nominal = numbers(physics.model), felt(physics.model)
    assert nominal.any()
    for factor in (0.0, 0.5, 3.0):
        np.testing.assert_allclose(felt(scaled(physics, (name, factor))), factor * nominal, rtol=1e-9, atol=1e-12)
    physics.reset()
    assert numbers(physics.model) == before
    # Of single ones: the sum of what they change is what all of them change.
    alone = [felt(scaled(physics, (f"{part}_{name}", 2.0))) - nominal for part in ("hip", "knee", "ankle", "strap")]
    np.testing.assert_allclose(sum(alone), nominal, rtol=1e-9, atol=1e-12)
    assert f"bare_{name}" not in physics.parameters
    assert "and tendons" in physics.parameters[name].meaning
    perturb(physics, [Perturbation(f"ankle_{name}", 0.7, "absolute")])
    assert physics.read(f"ankle_{name}")[0] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("flag", "name", "reason"),
    [
        ("", "springref", "a ball joint's spring is an orientation"),
        ('<flag damper="disable"/>', "damping", "switches damping off"),
        ('<flag spring="disable"/>', "knee_stiffness", "switches stiffness off"),
        ('<flag frictionloss="disable"/>', "frictionloss", "switches frictionloss off"),
        ('<flag actuation="disable"/>', "gear", "switches its actuators off"),
    ],
)
def test_what_joints_do_not_have_is_not_offered_and_the_error_says_why(flag: str, name: str, reason: str) -> None:
    with pytest.raises(EvaluationError, match=f"{name} cannot be perturbed in this model: .*{reason}"):
        straps(flag).read(name)


def test_the_joints_of_a_driven_shoulder_are_limbs_and_those_of_a_floating_robot_are_not() -> None:
    shoulder = """<mujoco><worldbody><body name="arm"><joint name="pan" axis="0 0 1"/><joint name="lift" axis="0 1 0"/>
      <geom size=".1" pos=".3 0 0"/></body><body name="table"><joint name="x" type="slide"/>
      <joint name="y" type="slide" axis="0 1 0"/><geom size=".1"/></body></worldbody>
      <actuator>{}<motor joint="pan"/></actuator></mujoco>"""
    assert len(opened(shoulder.format("")).read("damping")) == 2
    assert len(opened(shoulder.format('<motor joint="x"/>')).read("damping")) == 4


@pytest.mark.parametrize("direction", ["-1 .5 -9.7", "0 -9.81 0", "0 0 9.81"])
def test_gravity_scales_in_the_direction_that_it_has(direction: str) -> None:
    physics = opened(STRAPS.format(flag="").replace("<option>", f'<option gravity="{direction}">'))

    def weight(model: Any) -> np.ndarray:
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        return np.array(data.qfrc_bias)

    before, nominal = numbers(physics.model), weight(physics.model)
    for factor in FACTORS:
        np.testing.assert_allclose(weight(scaled(physics, ("gravity", factor))), factor * nominal, rtol=1e-12)
        value = physics.read("gravity")
        physics.reset()
        np.testing.assert_allclose(value, factor * physics.read("gravity"), rtol=1e-12)
    assert numbers(physics.model) == before


def test_a_time_step_too_short_for_what_delays_remember_is_refused() -> None:
    physics = arm(ACTUATORS["motor"].replace("/>", ' delay=".02" nsample="10"/>'))
    assert physics.parameters["timestep"].low == pytest.approx(0.002)
    with pytest.raises(EvaluationError, match=r"timestep = 0\.0019 s is outside its physical range \[0\.002"):
        physics.write("timestep", np.array([0.0019]))
    physics.write("timestep", np.array([0.004]))
    data = mujoco.MjData(physics.model)
    data.ctrl[:] = 1.0
    while not data.qfrc_actuator.any():
        mujoco.mj_step(physics.model, data)
    assert 0.02 <= data.time <= 0.03
    assert arm(ACTUATORS["motor"]).parameters["timestep"].low_open


def test_a_value_beyond_all_bounds_can_be_perturbed_where_the_model_has_it() -> None:
    heavy = STRAPS.format(flag="").replace('damping=".4 .2 .1"', 'damping="1e7"')
    assert scaled(opened(heavy), ("knee_damping", 1.5)).dof_damping.max() == 1.5e7


EVERYTHING = {
    "arm": lambda: arm("".join(ACTUATORS.values()), cord='actuatorfrcrange="-1 1"'),
    "straps": straps,
    "feet": lambda: feet(pairs=PAIRS),
    "cloth": lambda: opened(CLOTH),
}


@pytest.mark.parametrize("model", EVERYTHING)
def test_every_parameter_of_such_models_is_nominal_until_changed_and_resets_to_the_last_bit(model: str) -> None:
    physics = EVERYTHING[model]()
    nominal = numbers(physics.model)
    for name in physics.parameters:
        before = physics.read(name)
        physics.write(name, before)
        physics.commit()
        assert numbers(physics.model) == nominal, name
        wanted = np.where(before == 0.0, 0.25, before * 1.25)
        physics.write(name, wanted)
        physics.commit()
        np.testing.assert_allclose(physics.read(name), wanted, rtol=1e-14, err_msg=name)
        assert numbers(physics.model) != nominal or physics.pushes.any(), name
        physics.reset()
        assert numbers(physics.model) == nominal, name
        np.testing.assert_array_equal(physics.read(name), before)


# Lengths of models that are more than a tree of shapes.
CHAIN = """<mujoco><worldbody>{ground}<body name="torso" pos="0 0 .5"><freejoint/><geom size=".05"/>
  <body name="leg"><joint axis="0 1 0"/><geom type="capsule" size=".03" fromto="0 0 0 0 0 -.4" {mass}/></body></body>
  <body name="other" pos="1 0 .5"><joint axis="0 1 0"/><geom type="cylinder" size=".03" fromto="0 0 0 0 0 -.4"/></body>
  </worldbody><equality>{equality}</equality><keyframe><key qpos="{key}"/></keyframe></mujoco>"""


def chain(path: Path, **parts: str) -> MuJoCoPhysics:
    given = {"ground": "", "mass": "", "equality": "", "key": "0 0 .5 1 0 0 0 0 0"} | parts
    return opened(CHAIN.format(**given), path)


@pytest.mark.parametrize("shell", ["", 'shellinertia="true"'])
def test_a_stated_mass_follows_a_length_like_one_from_a_density(tmp_path: Path, shell: str) -> None:
    dense = chain(tmp_path / "dense.xml", mass=shell)
    stated = chain(tmp_path / "stated.xml", mass=f'mass="{float(dense.model.body("leg").mass[0])!r}" {shell}')
    assert stated.read("leg_mass") == pytest.approx(dense.read("leg_mass"), rel=1e-12)
    for physics in (dense, stated):
        scaled(physics, ("leg_length", 1.6))
    assert dense.read("leg_mass")[0] > 1.2 * stated._nominal.base.body("leg").mass[0]
    assert stated.read("leg_mass") == pytest.approx(dense.read("leg_mass"), rel=1e-9)


@pytest.mark.parametrize("kind", ['<connect body1="leg" body2="other" anchor="0 0 -.4"/>', '<weld body1="leg"/>'])
def test_robots_that_are_held_elsewhere_are_not_stretched(tmp_path: Path, kind: str) -> None:
    physics = chain(tmp_path / "held.xml", equality=kind)
    with pytest.raises(EvaluationError, match="leg_length cannot be perturbed in this model: a connect or weld"):
        physics.read("leg_length")
    assert ("other_length" in physics.parameters) == ("weld" in kind)
    assert "leg_length" in chain(tmp_path / "free.xml").parameters


def test_keyframes_stand_as_high_on_longer_legs(tmp_path: Path) -> None:
    bent = "0 0 .7 1 0 0 0 1 0"
    physics = chain(tmp_path / "key.xml", key=bent)

    def lowest(model: Any) -> float:
        data = mujoco.MjData(model)
        mujoco.mj_resetDataKeyframe(model, data, 0)
        mujoco.mj_kinematics(model, data)
        geom = 1
        return float(data.geom_xpos[geom, 2] - abs(data.geom_xmat[geom, 8]) * model.geom_size[geom, 1])

    nominal = lowest(physics.model)
    assert lowest(scaled(physics, ("leg_length", 1.5))) == pytest.approx(nominal, abs=1e-9)
    assert physics.model.key_qpos[0, 2] > 0.7


def test_a_model_without_its_file_says_why_it_has_no_lengths(tmp_path: Path) -> None:
    links = LinkLengths("", chain(tmp_path / "chain.xml").model, np.zeros(9))
    assert not links.names
    assert set(links.withheld) == {"leg_length", "other_length"}
    assert all("its XML file is gone" in reason for reason in links.withheld.values())
