"""Robots and environments of the user's own: a perturbed evaluation gives what the same change in the XML gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco import MujocoEnv
from numpy.typing import NDArray

from offline_robust.environment import make_spec
from offline_robust.envs import Perturbation, perturb, system
from offline_robust.envs.batched import make_batch
from offline_robust.envs.mujoco_bound import BoundMuJoCoPhysics
from offline_robust.errors import EvaluationError
from offline_robust.evaluation import evaluate

OWN = "Own/Walker-v0"

SCENE = """<mujoco><compiler angle="radian"/><option timestep=".004"/><include file="parts/defaults.xml"/>
<worldbody><geom name="floor" type="plane" size="40 40 .1" condim="3" friction=".9 .005 .0001" conaffinity="1"/>
<include file="parts/legs.xml"/></worldbody><include file="parts/motors.xml"/></mujoco>"""
DEFAULTS = """<mujocoinclude><default><joint damping="{damping}" armature=".1"/><geom contype="1" conaffinity="0"
  friction="{friction} .005 .0001"/><pair friction="{friction} {friction} .005 .0001 .0001"/>
  <position kp="{kp}" kv="{kv}" forcerange="-{force} {force}" ctrlrange="-1 1"/></default></mujocoinclude>"""
LEGS = """<mujocoinclude><body name="torso" pos="0 0 1.25">
  <joint name="rootx" type="slide" axis="1 0 0" damping="0" armature="0"/>
  <joint name="rootz" type="slide" axis="0 0 1" ref="1.25" damping="0" armature="0"/>
  <joint name="rooty" axis="0 1 0" damping="0" armature="0"/><geom type="capsule" size=".05 .2"/>
  <body name="thigh" pos="0 0 -.2"><joint name="thigh_joint" axis="0 -1 0"/>
    <geom type="capsule" size=".05" fromto="0 0 0 0 0 -.45"/><body name="leg" pos="0 0 -.45">
      <joint name="leg_joint" axis="0 -1 0"/><geom type="capsule" size=".04" fromto="0 0 0 0 0 -.5"/>
      <body name="foot" pos="0 0 -.5"><joint name="foot_joint" axis="0 -1 0"/>
        <geom name="heel" type="capsule" size=".06" fromto="-.1 0 -.05 0 0 -.05"/>
        <geom name="toe" type="capsule" size=".06" fromto="0 0 -.05 .2 0 -.05"/>
</body></body></body></body></mujocoinclude>"""
MOTORS = """<mujocoinclude><contact><pair geom1="toe" geom2="floor"/></contact>
  <tendon><fixed name="calf" damping="{calf}"><joint joint="leg_joint" coef=".5"/>
  <joint joint="foot_joint" coef="1"/></fixed></tendon>
  <actuator><position joint="thigh_joint" gear="1.5"/><position joint="leg_joint" gear="-2"/>
  <motor joint="foot_joint" gear="{motor}" ctrlrange="-1 1"/></actuator></mujocoinclude>"""
NOMINAL = {
    "damping": 1.5, "calf": 0.75, "friction": 0.5, "kp": 300.0, "kv": 5.0, "force": 220.0, "motor": 50.0
}  # fmt: skip
BY_HAND = {"friction": ["friction"], "gear": ["kp", "kv", "force", "motor"], "damping": ["damping", "calf"]}


def write_robot(folder: Path, **changed: float) -> str:
    numbers = NOMINAL | changed
    (folder / "parts").mkdir(parents=True)
    (folder / "scene.xml").write_text(SCENE)
    for name, text in (("defaults", DEFAULTS), ("legs", LEGS), ("motors", MOTORS)):
        (folder / "parts" / f"{name}.xml").write_text(text.format(**numbers))
    return str(folder / "scene.xml")


class Robot:
    """The part of the environment that steps the simulation, with a reference of its own to the model."""

    def __init__(self, model: Any, data: Any) -> None:
        self.model, self.data = model, data

    def advance(self, control: NDArray[Any], steps: int) -> None:
        self.data.ctrl[:] = control
        for _ in range(steps):
            mujoco.mj_step(self.model, self.data)


class Walker(MujocoEnv):
    """A user's environment; with ``breeze`` it blows on the torso itself."""

    metadata = {"render_modes": ["human", "rgb_array", "depth_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(self, xml_file: str, breeze: float = 0.0, gusts: bool = False) -> None:
        space = gym.spaces.Box(-np.inf, np.inf, (12,), np.float64)
        super().__init__(xml_file, 5, observation_space=space)
        self.breeze, self.gusts = breeze, gusts
        self.parts = {"robots": [Robot(self.model, self.data)]}

    def step(self, action: NDArray[Any]) -> Any:
        before = float(self.data.qpos[0])
        if self.gusts:
            self.data.xfrc_applied[1, 0] = self.breeze
        self.parts["robots"][0].advance(action, self.frame_skip)
        return self.see(), (float(self.data.qpos[0]) - before) / self.dt, bool(self.data.qpos[1] < 0.5), False, {}

    def reset_model(self) -> NDArray[np.float64]:
        noise = self.np_random.uniform(-0.01, 0.01, self.model.nq + self.model.nv)
        self.set_state(self.init_qpos + noise[: self.model.nq], self.init_qvel + noise[self.model.nq :])
        self.data.xfrc_applied[1, 0] = self.breeze
        return self.see()

    def see(self) -> NDArray[np.float64]:
        return np.concatenate([self.data.qpos, self.data.qvel])


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gym.register(OWN, entry_point=Walker, max_episode_steps=100)
    yield
    del gym.registry[OWN]


def act(observations: NDArray[Any]) -> NDArray[np.float32]:
    """Some policy; the same function of the state for everybody."""
    weights = np.random.default_rng(1).normal(size=(observations.shape[1], 3))
    return np.tanh(observations @ weights).astype(np.float32)


def returns(env_id: str, xml: str, level: str | None = None, **kwargs: Any) -> NDArray[np.float64]:
    frame = evaluate(act, env_id, perturb=level, episodes=4, max_steps=60, env_kwargs={"xml_file": xml, **kwargs}).frame
    return np.array(frame["return"] if level is None else frame[~frame["nominal"]]["return"], np.float64)


@pytest.mark.parametrize("env_id", ["Hopper-v5", OWN])
@pytest.mark.parametrize("name", BY_HAND)
def test_half_of_it_is_what_half_of_it_in_the_xml_is(tmp_path: Path, env_id: str, name: str) -> None:
    xml = write_robot(tmp_path / "nominal")
    by_hand = write_robot(tmp_path / "changed", **{key: NOMINAL[key] / 2 for key in BY_HAND[name]})
    # What decides a contact of the heel by its type is the floor's friction, the larger one.
    for path in [tmp_path / "changed" / "scene.xml"] if name == "friction" else []:
        path.write_text(path.read_text().replace('friction=".9 ', 'friction=".45 '))
    perturbed, expected = returns(env_id, xml, f"{name}=0.5"), returns(env_id, by_hand)
    np.testing.assert_array_equal(perturbed, expected)
    assert np.abs(perturbed - returns(env_id, xml)).max() > 1.0


def test_a_stretched_robot_in_several_files_keeps_its_includes(tmp_path: Path) -> None:
    xml = write_robot(tmp_path / "nominal")
    stretched = returns(OWN, xml, "leg_length=1.2")
    path = tmp_path / "nominal" / "parts" / "legs.xml"
    longer = path.read_text().replace('fromto="0 0 0 0 0 -.5"', 'fromto="0 0 0 0 0 -.6"')
    longer = longer.replace('name="foot" pos="0 0 -.5"', 'name="foot" pos="0 0 -.6"')
    path.write_text(longer.replace('pos="0 0 1.25"', 'pos="0 0 1.35"').replace('ref="1.25"', 'ref="1.35"'))
    np.testing.assert_allclose(stretched, returns(OWN, xml), rtol=1e-6)


def by_loop(xml: str, force: float, breeze: float) -> list[float]:
    """Gymnasium's own loop, with a force added by hand once after the reset."""
    totals = []
    for seed in range(4):
        env = gym.make(OWN, disable_env_checker=True, xml_file=xml, breeze=breeze)
        observation, total = env.reset(seed=seed)[0], 0.0
        env.unwrapped.data.xfrc_applied[1, 0] += force  # type: ignore[attr-defined]
        for _ in range(60):
            observation, reward, terminated, _, _ = env.step(act(observation[None])[0])
            total += float(reward)
            if terminated:
                break
        totals.append(total)
    return totals


def by_batch(xml: str, acting: tuple[Perturbation, ...], **kwargs: Any) -> list[float]:
    batch = make_batch(system(make_spec(OWN, {"xml_file": xml, **kwargs})), [acting] * 4)
    observations, totals = batch.reset(range(4)), np.zeros(4)
    for _ in range(60):
        observations, rewards, *_ = batch.step(act(observations))
        totals += rewards
    batch.close()
    return [float(total) for total in totals]


def test_pushes_add_to_the_forces_that_an_environment_applies_itself(tmp_path: Path) -> None:
    xml, push = write_robot(tmp_path), (Perturbation("torso_push_x", 25.0, "absolute"),)
    for breeze in (0.0, 40.0):
        np.testing.assert_array_equal(by_batch(xml, (), breeze=breeze), by_loop(xml, 0.0, breeze))
        np.testing.assert_array_equal(by_batch(xml, push, breeze=breeze), by_loop(xml, 25.0, breeze))
    assert by_loop(xml, 25.0, 0.0) != by_loop(xml, 0.0, 0.0)


def test_a_push_that_the_environment_would_take_away_is_refused(tmp_path: Path) -> None:
    xml = write_robot(tmp_path)
    gusts: dict[str, Any] = {"breeze": 40.0, "gusts": True}
    assert len(by_batch(xml, (), **gusts)) == 4
    with pytest.raises(EvaluationError, match="Walker sets xfrc_applied during its steps, which takes a push away"):
        by_batch(xml, (Perturbation("torso_push_x", 25.0, "absolute"),), **gusts)


class Hidden(Walker):
    """Its model is where nobody can exchange it."""

    def __init__(self, xml_file: str) -> None:
        super().__init__(xml_file)
        kept = vars(self).pop("model")
        self.look = lambda: kept
        hiding = property(lambda robot: kept, lambda robot, new: None)
        self.parts = {"robots": [type("Hider", (Robot,), {"model": hiding})(None, self.data)]}

    @property
    def model(self) -> Any:
        return self.look() if "look" in vars(self) else vars(self)["model"]

    @model.setter
    def model(self, value: Any) -> None:
        vars(self)["model"] = value


def test_an_environment_whose_model_cannot_be_exchanged_is_refused(tmp_path: Path) -> None:
    xml = write_robot(tmp_path)
    gym.register("Own/Hidden-v0", entry_point=Hidden)
    try:
        with pytest.raises(EvaluationError, match="Hidden keeps its MjModel where it cannot be exchanged"):
            returns("Own/Hidden-v0", xml, "mass=0.5")
    finally:
        del gym.registry["Own/Hidden-v0"]


@pytest.mark.parametrize("name", [None, "gear", "friction", "damping", "leg_length"])
def test_the_batched_engine_equals_gymnasium_on_a_robot_of_the_user(tmp_path: Path, name: str | None) -> None:
    xml = write_robot(tmp_path)
    path = tmp_path / "parts" / "motors.xml"
    stateful = '<intvelocity joint="foot_joint" kp="50" kv="3" actrange="-1 1" ctrlrange="-1 1" gear="2"/>'
    motors = path.read_text().replace('<motor joint="foot_joint" gear="50.0" ctrlrange="-1 1"/>', stateful)
    path.write_text(motors.replace('gear="-2"/>', 'gear="-2" timeconst=".05" delay=".02" nsample="10"/>'))
    kwargs: dict[str, Any] = {"xml_file": xml, "terminate_when_unhealthy": False}
    acting = (Perturbation(name, 0.5, "scale"),) if name else ()
    assert system(make_spec("Hopper-v5", kwargs)).simulator == "mujoco"
    batch = make_batch(system(make_spec("Hopper-v5", kwargs)), [acting] * 2)
    observations, totals, expected = batch.reset([0, 1]), np.zeros(2), np.zeros(2)
    for _ in range(40):
        observations, rewards, *_ = batch.step(act(observations))
        totals += rewards
    for seed in range(2):
        env = gym.make("Hopper-v5", disable_env_checker=True, **kwargs)
        perturb(BoundMuJoCoPhysics(env), acting)
        observation = env.reset(seed=seed)[0]
        for _ in range(40):
            observation, reward, *_ = env.step(act(observation[None])[0])
            expected[seed] += float(reward)
    np.testing.assert_array_equal(totals, expected)


class Watched(gym.Wrapper):  # type: ignore[type-arg]
    """A wrapper that pays for the height of the torso, computed with the model that it kept."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.kept = env.unwrapped.model  # type: ignore[attr-defined]

    def step(self, action: Any) -> Any:
        observation, _, *rest = self.env.step(action)
        return observation, float(self.kept.body_mass.sum()), *rest


def test_a_wrapper_that_kept_the_model_sees_the_perturbed_one(tmp_path: Path) -> None:
    xml = write_robot(tmp_path)
    gym.register("Own/Watched-v0", entry_point=lambda xml_file: Watched(Walker(xml_file)), max_episode_steps=5)
    try:
        nominal = returns("Own/Watched-v0", xml)
        np.testing.assert_allclose(returns("Own/Watched-v0", xml, "mass=2"), 2 * nominal)
    finally:
        del gym.registry["Own/Watched-v0"]


def test_a_model_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    xml = write_robot(tmp_path)
    (tmp_path / "parts" / "legs.xml").unlink()
    for path in (xml, str(tmp_path / "nowhere.xml")):
        for env_id in ("Hopper-v5", OWN):
            with pytest.raises(EvaluationError, match=f"cannot make '{env_id}' with") as caught:
                returns(env_id, path)
            assert "\n" not in str(caught.value)


def test_what_a_model_does_not_get_is_refused_with_the_reason(tmp_path: Path) -> None:
    xml = write_robot(tmp_path)
    with pytest.raises(EvaluationError, match=f"world_friction cannot be perturbed in {OWN}: contacts with the floor"):
        returns(OWN, xml, "world_friction=0.5")
    with pytest.raises(EvaluationError, match="world_friction cannot be perturbed in Hopper-v5"):
        returns("Hopper-v5", xml, "world_friction=0.5")
