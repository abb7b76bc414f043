"""Strength of MuJoCo actuators, judged by the torques that MuJoCo computes: motors, servos, muscles, thrusters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mujoco_models import ACTUATORS, FACTORS, arm, moving, numbers, scaled

from offline_robust.envs.perturbations import Perturbation
from offline_robust.envs.physics import perturb
from offline_robust.errors import EvaluationError


def torques(model: Any, seed: int) -> np.ndarray:
    return np.array(moving(model, seed).qfrc_actuator)


@pytest.mark.parametrize("kind", ACTUATORS)
def test_strength_scales_what_an_actuator_gives_for_the_same_control_in_the_same_state(kind: str) -> None:
    physics = arm(ACTUATORS[kind])
    before, gears = numbers(physics.model), physics.read("gear")
    for seed in range(5):
        nominal = torques(scaled(physics), seed)
        assert nominal.any()
        for factor in FACTORS:
            if "muscle" in kind and factor < 0.0:
                with pytest.raises(EvaluationError, match="a muscle cannot push"):
                    scaled(physics, ("gear", factor))
                continue
            model = scaled(physics, ("gear", factor))
            np.testing.assert_allclose(torques(model, seed), factor * nominal, rtol=1e-10, atol=1e-13)
            np.testing.assert_allclose(physics.read("gear"), factor * gears, rtol=1e-15)
    physics.write("gear", np.zeros(len(gears)))
    assert not torques(physics.model, 0).any()
    physics.write("gear", gears)
    physics.commit()
    assert numbers(physics.model) == before
    physics.reset()
    assert numbers(physics.model) == before


def test_strength_leaves_the_friction_and_inertia_that_a_motor_adds() -> None:
    physics = arm(ACTUATORS["motor with friction and rotor"])
    for factor in (1.0, 2.0):
        data = moving(scaled(physics, ("gear", factor)))
        assert data.qfrc_damper[0] == pytest.approx(-(0.3 + 3**2 * 0.2) * data.qvel[0])
        assert physics.read("shoulder_armature")[0] == pytest.approx(3**2 * 0.1)


@pytest.mark.parametrize("kind", ["motor", "position"])
def test_limits_that_motors_share_move_with_their_strength(kind: str) -> None:
    both = ACTUATORS[kind].replace("/>", ' name="one"/>') + ACTUATORS["velocity"]
    for options in ({"shoulder": 'actuatorfrcrange="-.1 .1"'}, {"cord": 'actuatorfrcrange="-.1 .1"'}):
        actuators = both if "shoulder" in options else both.replace('joint="shoulder"', 'tendon="cord"')
        physics = arm(actuators, **options)
        nominal = torques(scaled(physics), 1)
        free = torques(scaled(arm(actuators)), 1)
        assert np.abs(nominal).max() < np.abs(free).max()
        for factor in FACTORS:
            np.testing.assert_allclose(torques(scaled(physics, ("gear", factor)), 1), factor * nominal, rtol=1e-12)
        with pytest.raises(EvaluationError, match="they must be scaled alike"):
            physics.write("gear", physics.read("gear") * np.array([1.0, 2.0]))


def test_strengths_of_one_joint_and_of_all_compose() -> None:
    physics = arm(ACTUATORS["two at once"], shoulder='actuatorfrcrange="-.5 .4"')
    nominal = torques(scaled(physics), 1)
    now = torques(scaled(physics, ("gear", 0.5), ("elbow_gear", 3.0), ("shoulder_gear", 0.5)), 1)
    np.testing.assert_allclose(now[:2], nominal[:2] * [0.25, 1.5], rtol=1e-12)


@pytest.mark.parametrize(
    ("actuators", "options", "name", "reason"),
    [
        *(
            (element.replace("/>", ' name="odd"/>'), {}, "gear", "the force of the actuator odd follows a law")
            for element in (
                '<general joint="shoulder" gaintype="user"/>',
                '<pid joint="shoulder" kp="1"/>',
                '<dcmotor joint="shoulder" motorconst=".1" resistance="1"/>',
                '<orientation joint="wrist" kp="1"/>',
            )
        ),
        (
            ACTUATORS["motor"] + ACTUATORS["cord"],
            {"shoulder": 'actuatorfrcrange="-1 1"'},
            "shoulder_gear",
            "the joint shoulder limits the sum of several forces: perturb gear, which is all of them",
        ),
        (
            ACTUATORS["motor"].replace("/>", ' ctrlrange="-1 1"/>') + ACTUATORS["velocity"],
            {},
            "ctrlrange",
            "some of every motor have no control range",
        ),
    ],
)
def test_what_strength_cannot_reach_is_not_offered_and_the_error_says_why(
    actuators: str, options: dict[str, str], name: str, reason: str
) -> None:
    physics = arm(actuators, **options)
    with pytest.raises(EvaluationError, match=f"{name} cannot be perturbed in this model: .*{reason}"):
        physics.read(name)


def test_a_muscle_can_still_rest_in_half_its_control_range() -> None:
    physics = arm(
        '<muscle joint="shoulder" lengthrange="-6 6" ctrlrange="0 1"/><motor joint="slider" ctrlrange="-2 2"/>'
    )
    model = scaled(physics, ("ctrlrange", 0.5))
    np.testing.assert_array_equal(model.actuator_ctrlrange, [[0.0, 0.5], [-1.0, 1.0]])


def test_masses_do_not_make_muscles_stronger() -> None:
    physics = arm(ACTUATORS["muscle of derived force"] + ACTUATORS["damped position"])
    nominal = torques(scaled(physics), 2)
    for factor in (0.5, 3.0):
        np.testing.assert_array_equal(torques(scaled(physics, ("mass", factor)), 2), nominal)
        for order in ((("mass", factor), ("gear", 2.0)), (("gear", 2.0), ("mass", factor))):
            np.testing.assert_allclose(torques(scaled(physics, *order), 2), 2 * nominal, rtol=1e-12)
            physics.write("gear", physics.read("gear") / 2)
            physics.commit()
            np.testing.assert_array_equal(torques(physics.model, 2), nominal)
        perturb(physics, [Perturbation("shoulder_armature", factor, "absolute")])
        np.testing.assert_array_equal(torques(physics.model, 2), nominal)
    # A servo of negative strength looks to MuJoCo like one whose damping is still to be worked out.
    physics = arm(ACTUATORS["damped position"])
    nominal = torques(scaled(physics), 2)
    np.testing.assert_allclose(torques(scaled(physics, ("gear", -1.0), ("mass", 2.0)), 2), -nominal, rtol=1e-12)


def test_lengths_do_not_make_servos_or_muscles_stronger(tmp_path: Path) -> None:
    actuators = ACTUATORS["muscle of derived force"] + ACTUATORS["damped position"]
    physics = arm(actuators, shoulder='springdamper=".1 1"', path=tmp_path / "arm.xml")
    before = moving(scaled(physics), 2)
    nominal = before.qfrc_actuator.copy(), before.qfrc_passive.copy()
    assert scaled(physics, ("arm_length", 1.5)).body_mass[1] > scaled(physics).body_mass[1]
    now = moving(scaled(physics, ("arm_length", 1.5)), 2)
    np.testing.assert_array_equal(now.qfrc_actuator, nominal[0])
    np.testing.assert_array_equal(now.qfrc_passive, nominal[1])
