"""Small MuJoCo models of every kind, and ways to perturb them and look at what MuJoCo makes of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np

from offline_robust.envs.mujoco_physics import MuJoCoPhysics
from offline_robust.envs.perturbations import Perturbation
from offline_robust.envs.physics import perturb

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


CLOTH = """<mujoco><worldbody><geom name="floor" type="plane" size="5 5 .1" friction=".5"/>
    <flexcomp name="cloth" type="grid" count="3 3 1" spacing=".1 .1 .1" radius=".05" dim="2" pos="0 0 .04">
    <contact friction="1.4"/></flexcomp></worldbody></mujoco>"""


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
