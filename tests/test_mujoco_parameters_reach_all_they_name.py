"""MuJoCo models of the user's own: a parameter acts on all that its name says, judged by what MuJoCo computes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest

from offline_robust.envs.mujoco_lengths import LinkLengths
from offline_robust.envs.mujoco_physics import MuJoCoPhysics
from offline_robust.envs.perturbations import Perturbation
from offline_robust.envs.systems import perturb
from offline_robust.errors import EvaluationError

FACTORS = [0.5, 2.0, -1.5]


def opened(xml: str, path: Path | None = None) -> MuJoCoPhysics:
    """The physics of a model given as text, as those of an environment that keeps it."""
    if path is not None:
        path.write_text(xml)
    model = mujoco.MjModel.from_xml_string(xml) if path is None else mujoco.MjModel.from_xml_path(str(path))
    env: Any = SimpleNamespace(model=model, fullpath=str(path or ""), init_qpos=model.qpos0)
    env.unwrapped = env
    return MuJoCoPhysics(env)


def scaled(physics: MuJoCoPhysics, *factors: tuple[str, float]) -> Any:
    """The model with some parameters scaled from nominal."""
    physics.reset()
    perturb(physics, [Perturbation(name, factor, "scale") for name, factor in factors])
    return physics.model


def moving(model: Any, seed: int = 0) -> Any:
    """A simulation of a model in a random state, computed."""
    data, rng = mujoco.MjData(model), np.random.default_rng(seed)
    mujoco.mj_integratePos(model, data.qpos, rng.normal(0.0, 0.4, model.nv), 1.0)
    data.qvel[:], data.ctrl[:], data.act[:] = rng.normal(size=model.nv), rng.uniform(0.1, 1, model.nu), 0.3
    mujoco.mj_forward(model, data)
    return data


def numbers(model: Any) -> dict[str, bytes]:
    parts = [("", model), ("opt.", model.opt)]
    names = [
        (f"{part}{name}", getattr(holder, name)) for part, holder in parts for name in dir(holder) if name[0] != "_"
    ]
    return {name: np.asarray(v).tobytes() for name, v in names if isinstance(v, np.ndarray | int | float)}


# A walker with one foot whose contact may be listed, one whose is not, and a box to step on.
FEET = """<mujoco><option {option}>{flag}</option>
<default><default class="rubber"><geom friction="1.2 .01 .001" condim="4"/>
  <pair friction=".65 .75 .01 .001 .001"/></default></default>
<worldbody><geom name="floor" type="plane" size="5 5 .1" {floor}/>
  <geom name="step" type="box" size=".3 .3 .1" pos="2 0 0" friction=".6 .005 .0001" {foot}/>
  <body name="torso" pos="0 0 .09"><freejoint/>
    <geom name="left" class="rubber" size=".1" {foot}/><geom name="right" class="rubber" size=".1" pos=".5 0 0" {foot}/>
    <geom name="third" size=".1" pos="2 0 .1" friction="1.5 .005 .0001" {foot}/></body></worldbody>
<contact>{pairs}</contact></mujoco>"""
PAIR = '<pair geom1="floor" geom2="left" friction=".7 .9 .005 .0001 .0001"/>'
PAIRS = PAIR + '<pair geom1="right" geom2="floor" class="rubber"/><pair geom1="third" geom2="step" friction="1.1 1.3"/>'
UNTYPED = 'contype="0" conaffinity="0"'
HARD, RICH = 'friction=".8 .005 .0001"', 'friction=".8 .01 .001" condim="4"'


def feet(pairs: str = "", floor: str = HARD, foot: str = "", option: str = "", flag: str = "") -> MuJoCoPhysics:
    return opened(FEET.format(pairs=pairs, floor=floor, foot=foot, option=option, flag=flag))


def sliding(model: Any) -> dict[str, np.ndarray]:
    """Both sliding frictions of every contact, by what touches, as MuJoCo uses them."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    names = ["-".join(sorted(model.geom(int(geom)).name for geom in pair)) for pair in data.contact.geom]
    return dict(zip(names, np.array(data.contact.friction[:, :2]), strict=True))


OVERRIDE = {"option": 'o_friction=".3 .4 .005 .0001 .0001"', "flag": '<flag override="enable"/>'}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pairs": PAIR},
        {"pairs": PAIRS},
        {"pairs": PAIRS, "floor": f"{HARD} {UNTYPED}", "foot": UNTYPED},
        {"foot": 'priority="2"', "pairs": PAIR},
        OVERRIDE,
        {"pairs": PAIR, **OVERRIDE},
    ],
    ids=["types", "a pair", "all pairs", "pairs alone", "priority", "override", "override and pairs"],
)
def test_friction_scales_every_contact_wherever_it_takes_it_from(options: dict[str, str]) -> None:
    physics = feet(**options)
    before, nominal = numbers(physics.model), sliding(physics.model)
    assert set(nominal) == {"floor-left", "floor-right", "step-third"}
    for factor in (0.5, 2.0):
        now = sliding(scaled(physics, ("friction", factor)))
        for where, value in nominal.items():
            np.testing.assert_allclose(now[where], factor * value, rtol=1e-12)
    perturb(physics, [Perturbation("friction", 0.25, "absolute")])
    assert all((value == 0.25).all() for value in sliding(physics.model).values())
    physics.reset()
    assert numbers(physics.model) == before


CLOTH = """<mujoco><worldbody><geom name="floor" type="plane" size="5 5 .1" friction=".5"/>
    <flexcomp name="cloth" type="grid" count="3 3 1" spacing=".1 .1 .1" radius=".05" dim="2" pos="0 0 .04">
    <contact friction="1.4"/></flexcomp></worldbody></mujoco>"""


def test_friction_reaches_cloth() -> None:
    physics = opened(CLOTH)
    for factor, friction in ((1.0, 1.4), (0.5, 0.7)):
        data = mujoco.MjData(scaled(physics, ("friction", factor)))
        mujoco.mj_forward(physics.model, data)
        assert data.ncon
        np.testing.assert_allclose(data.contact.friction[:, 0], friction)
    # The threads' own slides are no limbs.
    assert "damping" not in physics.parameters
    with pytest.raises(EvaluationError, match=r"^floor_friction cannot be perturbed in this model: a contact with"):
        physics.read("floor_friction")


def test_floor_friction_is_that_of_every_contact_with_the_floor_and_of_no_other() -> None:
    nominal = sliding(feet(pairs=PAIR, floor=RICH).model)
    now = sliding(scaled(feet(pairs=PAIR, floor=RICH), ("floor_friction", 0.5)))
    np.testing.assert_allclose(now["floor-left"], [0.35, 0.45])
    np.testing.assert_allclose(now["floor-right"], [0.4, 0.4])
    np.testing.assert_array_equal(now["step-third"], nominal["step-third"])
    alone = {"pairs": PAIRS, "floor": f"{HARD} {UNTYPED}", "foot": UNTYPED}
    now = sliding(scaled(feet(**alone), ("floor_friction", 2.0)))
    np.testing.assert_allclose(now["floor-left"], [1.4, 1.8])
    np.testing.assert_allclose(now["floor-right"], [1.3, 1.5])
    np.testing.assert_allclose(now["step-third"], [1.1, 1.3])


def test_a_wall_is_no_floor() -> None:
    wall = FEET.replace("<body", '<geom name="wall" type="plane" size="1 1 1" pos="-.09 0 0" zaxis="1 0 0"/><body', 1)
    physics = opened(wall.format(pairs="", floor=RICH, foot="", option="", flag=""))
    nominal, now = sliding(physics.model), sliding(scaled(physics, ("floor_friction", 0.5)))
    np.testing.assert_array_equal(now["left-wall"], nominal["left-wall"])
    np.testing.assert_allclose(now["floor-left"], [0.4, 0.4])


@pytest.mark.parametrize(
    ("options", "name", "reason"),
    [
        ({"pairs": PAIR}, "world_friction", r"do not look at the floor's own friction: perturb floor_friction"),
        ({"pairs": PAIR}, "floor_friction", r"take more than its friction from the floor alone"),
        ({"floor": RICH, "foot": 'priority="2"'}, "floor_friction", "priority, softness"),
        (OVERRIDE, "floor_friction", r"overrides the friction of all contacts \(o_friction\): perturb friction"),
        ({"flag": '<flag contact="disable"/>'}, "friction", "switches contacts off"),
        ({"flag": '<flag gravity="disable"/>'}, "gravity", "switches gravity off"),
    ],
)
def test_what_friction_cannot_reach_is_not_offered_and_the_error_says_why(
    options: dict[str, str], name: str, reason: str
) -> None:
    physics = feet(**options)
    assert name not in physics.parameters
    with pytest.raises(EvaluationError, match=f"{name} cannot be perturbed in this model: .*{reason}") as caught:
        physics.write(name, np.ones(1))
    assert "\n" not in str(caught.value)


# Actuators on an arm whose joints have springs and dampers of their own.
ARM = """<mujoco><option gravity="0 0 0"/><default><position kp="9"/><default class="weak"><position kp="4" kv=".5"
  forcerange="-.7 .6"/></default></default><worldbody><site name="base" pos="0 .1 .1"/><body name="arm">
  <joint name="shoulder" axis="0 1 0" damping=".3" stiffness=".2" {shoulder}/>
  <geom type="capsule" size=".03" fromto="0 0 0 .4 0 0"/><site name="middle" pos=".2 0 .05"/>
  <body name="hand" pos=".4 0 0"><joint name="elbow_joint" axis="0 1 0"/>
    <geom type="capsule" size=".02" fromto="0 0 0 .3 0 0"/><site name="tip" pos=".3 0 0"/></body></body>
  <body name="bob" pos="0 1 0"><joint name="wrist" type="ball"/><geom size=".1" pos="0 0 -.3"/></body>
  <body name="rod" pos="0 2 0"><joint name="slider" type="slide" axis="1 0 0"/><geom size=".1"/>
    <site name="slide"/></body>
  <body name="wheel" pos="-.3 2 0"><joint name="crank" axis="0 1 0"/><geom size=".1" pos=".1 0 .1"/>
    <site name="pin" pos=".1 0 .1"/></body></worldbody>
<tendon><fixed name="cord" {cord}><joint joint="shoulder" coef=".7"/><joint joint="elbow_joint" coef="-.4"/></fixed>
  <spatial name="string"><site site="base"/><site site="tip"/></spatial></tendon>
<actuator>{actuators}</actuator></mujoco>"""

ACTUATORS = {
    "motor": '<motor joint="shoulder" gear="3"/>',
    "limited motor": '<motor joint="shoulder" gear="3" forcerange="-.2 .2"/>',
    "motor with friction and rotor": '<motor joint="shoulder" gear="3" damping=".2" armature=".1"/>',
    "position": '<position joint="shoulder" gear="3"/>',
    "position of a class": '<position class="weak" joint="elbow_joint" gear="2"/>',
    "damped position": '<position joint="shoulder" gear="3" dampratio="1"/>',
    "velocity": '<velocity joint="shoulder" gear="3" kv="2"/>',
    "integrated velocity": '<intvelocity joint="shoulder" gear="3" kp="5" actrange="-1 1"/>',
    "damper": '<damper joint="shoulder" gear="3" kv="2" ctrlrange="0 1"/>',
    "cylinder": '<cylinder joint="slider" gear="3" area="2" bias=".1 .2 .3"/>',
    "affine": '<general joint="slider" gear="3" gaintype="affine" gainprm="1 2 3" biastype="affine" biasprm="4 5 6"/>',
    "filtered": '<general joint="shoulder" gear="3" dyntype="filterexact" dynprm=".1" gainprm="7"/>',
    "muscle": '<muscle joint="shoulder" gear="3" lengthrange="-6 6" force="20"/>',
    "muscle of derived force": '<muscle joint="shoulder" gear="3" lengthrange="-6 6"/>',
    "string muscle": '<muscle tendon="string" lengthrange=".1 .9"/>',
    "in parent": '<position jointinparent="shoulder" gear="3"/>',
    "cord": '<motor tendon="cord" gear="3"/>',
    "cord servo": '<position tendon="cord" gear="3"/>',
    "string servo": '<position tendon="string" gear="3" kv="1"/>',
    "crank": '<motor cranksite="pin" slidersite="slide" cranklength=".6" gear="3"/>',
    "crank servo": '<position cranksite="pin" slidersite="slide" cranklength=".6" gear="3"/>',
    "thruster": '<motor site="tip" gear="0 0 3 0 .5 0"/>',
    "servo towards a site": '<position site="tip" refsite="base" gear="1 0 2 0 0 0"/>',
    "ball": '<motor joint="wrist" gear="0 3 1"/>',
    "ball servo": '<position joint="wrist" gear="0 3 1" kv=".3"/>',
    "two at once": '<motor joint="shoulder" gear="3"/><position joint="elbow_joint" gear="2" kv="1"/>',
}


def arm(actuators: str, shoulder: str = "", cord: str = "", path: Path | None = None) -> MuJoCoPhysics:
    return opened(ARM.format(actuators=actuators, shoulder=shoulder, cord=cord), path)


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


# Friction and springs.
STRAPS = """<mujoco><option>{flag}</option><default><joint damping=".3"/><default class="hip"><joint damping=".5"
  stiffness="2" armature=".02" frictionloss=".1"/></default></default><worldbody><body name="torso" pos="0 0 1">
  <freejoint/><geom size=".1"/><body name="leg"><joint name="hip" class="hip" type="ball"/>
    <geom size=".05" pos="0 0 -.3"/><body name="shin" pos="0 0 -.3"><joint name="knee" axis="0 1 0" damping=".4 .2 .1"
      stiffness="3 .5 .2" armature=".01" frictionloss=".2"/><geom size=".05" pos="0 0 -.3"/>
      <body name="foot" pos="0 0 -.3"><joint name="ankle" axis="0 1 0" damping=".1" frictionloss=".3" stiffness="1"
        armature=".01"/><geom size=".05" pos=".1 0 0"/></body></body></body></body></worldbody>
<tendon><fixed name="strap" damping=".6 .1 0" stiffness="2 .3 0" springlength=".1" armature=".03" frictionloss=".4">
    <joint joint="knee" coef=".5"/><joint joint="ankle" coef="-.8"/></fixed>
  <fixed name="bare"><joint joint="knee" coef="1"/></fixed></tendon>
<actuator><motor name="drive" joint="ankle" gear="4" damping=".05 .02 0" armature=".005"/></actuator></mujoco>"""


def straps(flag: str = "") -> MuJoCoPhysics:
    return opened(STRAPS.format(flag=flag))


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
    assert not LinkLengths("", physics.model, physics.model.qpos0).names
