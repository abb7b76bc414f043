"""The batched MuJoCo engine is a loop over Gymnasium's own environments, bit for bit, on any physics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv

from offline_robust.envs.mujoco_engine import MuJoCoSimulation, supports
from offline_robust.errors import EvaluationError

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date")

FAMILIES = ["Hopper", "Walker2d", "HalfCheetah", "Swimmer", "InvertedPendulum", "InvertedDoublePendulum", "Reacher"]
FAMILIES += ["Ant", "Humanoid", "HumanoidStandup"]
# Pusher-v4 refuses every MuJoCo this library supports.
IDS = [f"{family}-{version}" for family in FAMILIES for version in ("v4", "v5")] + ["Pusher-v5"]
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("Hopper-v4", {"terminate_when_unhealthy": False, "healthy_reward": 0.3}),
    (
        "Hopper-v5",
        {
            "exclude_current_positions_from_observation": False,
            "healthy_reward": 2,
            "reset_noise_scale": 0.05,
            "healthy_state_range": (-2.0, 2.0),
            "frame_skip": 3,
        },
    ),
    ("Walker2d-v5", {"healthy_z_range": (1.0, 1.3), "forward_reward_weight": 0.7, "ctrl_cost_weight": 0.2}),
    ("HalfCheetah-v5", {"forward_reward_weight": -1.0, "ctrl_cost_weight": np.float64(0.3)}),
    ("Swimmer-v4", {"exclude_current_positions_from_observation": False}),
    ("InvertedDoublePendulum-v5", {"healthy_reward": 3.5, "reset_noise_scale": 0.2}),
    ("Reacher-v5", {"reward_dist_weight": 2, "reward_control_weight": 0.1}),
    ("Ant-v4", {"use_contact_forces": True, "contact_cost_weight": 0.1}),
    (
        "Ant-v5",
        {"include_cfrc_ext_in_observation": False, "terminate_when_unhealthy": False, "main_body": "front_left_leg"},
    ),
    ("Humanoid-v5", {"include_cvel_in_observation": False, "contact_cost_weight": 0.01, "healthy_z_range": (0.5, 2.0)}),
    # Not True itself: Gymnasium leaves it out, whatever its observation space says.
    ("HumanoidStandup-v5", {"include_cinert_in_observation": 1, "uph_cost_weight": 3.0}),
]


def _make(env_id: str, **kwargs: Any) -> Any:
    return gym.make(env_id, disable_env_checker=True, **kwargs)


def _variants(nominal: Any) -> list[Any]:
    """The nominal model, twice, and copies with other physics."""

    def edited(change: Callable[[Any], None]) -> Any:
        model = copy.copy(nominal)
        change(model)
        mujoco.mj_setConst(model, mujoco.MjData(model))
        return model

    def weight(model: Any) -> None:
        model.body_mass[:] *= 1.4
        model.body_inertia[:] *= 1.4

    def motor(model: Any) -> None:
        model.actuator_gear[:, 0] *= 0.6
        model.opt.gravity[2] *= 0.8

    def damping(model: Any) -> None:
        model.dof_damping[:] *= 2.5

    def timestep(model: Any) -> None:
        model.opt.timestep *= 0.7

    return [nominal, nominal, *(edited(change) for change in (weight, motor, damping, timestep))]


class _Loop:
    """The reference: one Gymnasium environment per episode, each with its model put in, stepped until it ends."""

    def __init__(self, env_id: str, models: Sequence[Any], pushes: Any = None, **kwargs: Any) -> None:
        self.envs = [_make(env_id, **kwargs) for _ in models]
        self.pushes = pushes
        self.last: list[Any] = [None] * len(models)
        for env, model in zip(self.envs, models, strict=True):
            base = env.unwrapped
            base.model, base.data = model, mujoco.MjData(model)
            base.init_qpos, base.init_qvel = base.data.qpos.copy(), base.data.qvel.copy()

    def reset(self, seeds: Sequence[int]) -> Any:
        self.live = np.ones(len(self.envs), bool)
        for row, (env, seed) in enumerate(zip(self.envs, seeds, strict=True)):
            self.last[row] = env.reset(seed=seed)[0]
            if self.pushes is not None:
                env.unwrapped.data.xfrc_applied[:, :3] = self.pushes[row]
        return np.array(self.last)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any]:
        count = len(self.envs)
        rewards, flags = np.zeros(count), np.zeros((2, count), bool)
        for row in np.flatnonzero(self.live):
            self.last[row], rewards[row], *ends = self.envs[row].step(actions[row])[:4]
            flags[:, row] = ends
        self.live = self.live & ~flags.any(0)
        return np.array(self.last), rewards, flags[0], flags[1]


def _actions(env: Any, count: int, steps: int, seed: int = 0) -> Any:
    """Random, a third of them beyond the limits; the rows calm down one after the other so that ends spread out."""
    high = env.action_space.high
    scale = np.linspace(0.1, 1.5, count)[:, None]
    rng = np.random.default_rng(seed)
    return (rng.uniform(-1, 1, (steps, count, len(high))) * high * scale).astype(np.float32)


def _assert_equal(ours: Sequence[Any], theirs: Sequence[Any], step: int) -> None:
    for name, mine, other in zip(("observations", "rewards", "terminated", "truncated"), ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other, err_msg=f"{name} at step {step}", strict=True)


def _assert_replay(engine: MuJoCoSimulation, loop: _Loop, actions: Any, seeds: Sequence[int]) -> None:
    np.testing.assert_array_equal(engine.reset(seeds), loop.reset(seeds), strict=True)
    for step, action in enumerate(actions):
        _assert_equal(engine.step(action), loop.step(action), step)
        np.testing.assert_array_equal(engine.live, loop.live)
        if not loop.live.any():
            break


def _pair(env_id: str, threads: int = 1, pushes: Any = None, **kwargs: Any) -> tuple[MuJoCoSimulation, _Loop, Any]:
    env = _make(env_id, **kwargs)
    models = _variants(env.unwrapped.model)
    actions = _actions(env, len(models), 200)
    return MuJoCoSimulation(env, models, pushes, threads), _Loop(env_id, models, pushes, **kwargs), actions


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("env_id", IDS)
def test_everything_equals_gymnasium_bit_for_bit(env_id: str, threads: int) -> None:
    engine, loop, actions = _pair(env_id, threads)
    heavy = env_id.startswith(("Ant", "Humanoid"))
    _assert_replay(engine, loop, actions[: 60 if heavy and threads == 2 else 200], range(20, 26))
    # A second start in the same simulation leaves nothing of the first behind.
    _assert_replay(engine, loop, actions[100:120], range(40, 46))


@pytest.mark.parametrize(("env_id", "kwargs"), OPTIONS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(OPTIONS)])
def test_keyword_arguments_count(env_id: str, kwargs: dict[str, Any]) -> None:
    engine, loop, actions = _pair(env_id, **kwargs)
    _assert_replay(engine, loop, actions[:100], range(6))


def test_float64_actions_are_paid_in_float64() -> None:
    engine, loop, actions = _pair("HalfCheetah-v5")
    _assert_replay(engine, loop, actions[:20].astype(np.float64) / 3.0, range(6))


@pytest.mark.parametrize("layout", ["C", "F"])
def test_the_layout_of_the_actions_does_not_matter(layout: Any) -> None:
    engine, loop, actions = _pair("Ant-v4")
    _assert_replay(engine, loop, [np.array(action, order=layout) for action in actions[:20]], range(6))


def test_the_time_limit_truncates_and_a_fall_at_the_limit_is_both() -> None:
    engine, loop, actions = _pair("Hopper-v5", max_episode_steps=17)
    _assert_replay(engine, loop, actions, range(6))
    assert not engine.live.any()
    assert engine._steps == 17


def test_an_ended_episode_keeps_its_last_observation_and_earns_nothing() -> None:
    engine, _, actions = _pair("Walker2d-v5")
    observations, ended = engine.reset(range(6)), np.zeros(6, bool)
    for action in actions:
        before = observations
        action[ended] = np.nan
        observations, rewards, terminated, truncated = engine.step(action)
        np.testing.assert_array_equal(observations[ended], before[ended])
        assert not rewards[ended].any()
        assert not (terminated | truncated)[ended].any()
        ended |= terminated | truncated
        np.testing.assert_array_equal(engine.live, ~ended)
    assert ended.any()
    assert not engine.unstable.any()


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Humanoid-v5", "Reacher-v4"])
def test_a_change_of_physics_inside_an_episode_equals_editing_the_running_model(env_id: str) -> None:
    kwargs = {"healthy_z_range": (-5.0, 5.0)} if env_id != "Reacher-v4" else {}
    engine, _, actions = _pair(env_id, **kwargs)
    models = [copy.copy(model) for model in _variants(engine._env.unwrapped.model)]
    loop = _Loop(env_id, models, **kwargs)
    engine.set_models(models)
    np.testing.assert_array_equal(engine.reset(range(6)), loop.reset(range(6)))
    pushes = np.random.default_rng(0).normal(0, 5, (6, models[0].nbody, 3))
    for step, action in enumerate(actions[:45]):
        if step % 15 == 14:
            for row, model in enumerate(models):
                model.body_mass[1:] *= 1 + 0.1 * row
                model.opt.gravity[2] *= 0.9
                loop.envs[row].unwrapped.data.xfrc_applied[:, :3] = pushes[row]
            engine.set_models(models, pushes)
        _assert_equal(engine.step(action), loop.step(action), step)


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Ant-v5"])
def test_pushes_last_through_the_episode(env_id: str) -> None:
    nbody = _make(env_id).unwrapped.model.nbody
    pushes = np.random.default_rng(1).normal(0, 3, (6, nbody, 3))
    engine, loop, actions = _pair(env_id, pushes=pushes)
    _assert_replay(engine, loop, actions[:60], range(6))
    _assert_replay(engine, loop, actions[:20], range(6, 12))


def test_the_force_of_a_cart_at_its_stop_is_observed() -> None:
    env = _make("InvertedDoublePendulum-v4")
    pushes = np.zeros((6, env.unwrapped.model.nbody, 3))
    # As sideways gravity: the poles stay upright relative to the cart until it hits the end of its rail.
    pushes[:, :, 0] = 100.0 * env.unwrapped.model.body_mass
    for version in ("v4", "v5"):
        engine, loop, actions = _pair(f"InvertedDoublePendulum-{version}", pushes=pushes)
        _assert_replay(engine, loop, actions * 0.0, range(6))
        assert (np.abs(engine._state["qfrc_constraint"][:, 0]) > 10).any()


def test_models_of_other_lengths_are_simulated_from_their_own_initial_position() -> None:
    from gymnasium.envs.mujoco.mujoco_env import expand_model_path

    models = []
    for scale in (1.0, 1.3):
        spec = mujoco.MjSpec.from_file(expand_model_path("inverted_pendulum.xml"))
        for geom in spec.geoms:
            geom.fromto[3:] *= scale if geom.name == "cpole" else 1.0
        spec.joints[1].ref = 3.0 * (scale - 1.0)
        models.append(spec.compile())
    assert models[1].qpos0[1] != models[0].qpos0[1]
    env = _make("InvertedPendulum-v5")
    engine, loop = MuJoCoSimulation(env, models), _Loop("InvertedPendulum-v5", models)
    _assert_replay(engine, loop, _actions(env, 2, 100), [0, 1])


def test_an_unstable_simulation_goes_on_as_in_gymnasium(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for env_id in ("Hopper-v5", "HalfCheetah-v5", "Humanoid-v4"):
        env = _make(env_id)
        wild = copy.copy(env.unwrapped.model)
        wild.dof_damping[:] = -1e5
        models, pushes = [wild, env.unwrapped.model], np.full((2, wild.nbody, 3), 0.1)
        loop = _Loop(env_id, models, pushes)
        ours = _make(env_id)
        (tmp_path / "MUJOCO_LOG.TXT").unlink(missing_ok=True)  # HalfCheetah's XML warns when it is read
        engine = MuJoCoSimulation(ours, models, pushes, 2)
        actions, seen = _actions(ours, 2, 10), []
        seen.append(engine.reset([0, 1]))
        results = [engine.step(action) for action in actions]
        assert not (tmp_path / "MUJOCO_LOG.TXT").exists()
        np.testing.assert_array_equal(engine.unstable, [True, False])
        assert not engine.failed.any()
        loop.reset([0, 1])
        with np.errstate(all="ignore"):
            for step, action in enumerate(actions):
                _assert_equal(results[step], loop.step(action), step)
        engine.set_models([models[1]] * 2)
        engine.reset([0, 1])
        assert not engine.unstable.any()


def test_an_error_in_one_simulation_cuts_that_episode_and_no_other() -> None:
    env = _make("Hopper-v5")
    nominal = env.unwrapped.model
    broken = copy.copy(nominal)
    broken.opt.integrator = 99
    engine, loop = MuJoCoSimulation(env, [nominal, broken, nominal]), _Loop("Hopper-v5", [nominal, nominal])
    start, _ = engine.reset([0, 1, 2]), loop.reset([0, 2])
    for step, action in enumerate(_actions(env, 3, 10)):
        observations, rewards, terminated, truncated = engine.step(action)
        expected = loop.step(action[[0, 2]])
        _assert_equal([x[[0, 2]] for x in (observations, rewards, terminated, truncated)], expected, step)
        np.testing.assert_array_equal(observations[1], start[1])
        assert (rewards[1], terminated[1], truncated[1]) == (0.0, False, step == 0)
    np.testing.assert_array_equal(engine.failed, [False, True, False])
    engine.set_models([nominal] * 3)
    engine.reset([0, 1, 2])
    assert not engine.failed.any()


def test_the_number_of_episodes_does_not_matter() -> None:
    env = _make("Humanoid-v5")
    nominal = env.unwrapped.model
    many, one = MuJoCoSimulation(env, [nominal] * 5), MuJoCoSimulation(_make("Humanoid-v5"), [nominal])
    np.testing.assert_array_equal(many.reset(range(5))[3], one.reset([3])[0])
    for action in _actions(env, 5, 20):
        for ours, theirs in zip(many.step(action), one.step(action[3:4]), strict=True):
            np.testing.assert_array_equal(ours[3], theirs[0])


class _Lazy(HopperEnv):
    """Somebody's own environment."""


def test_only_gymnasiums_own_classes_and_wrappers_are_supported() -> None:
    assert all(supports(_make(env_id)) for env_id in IDS)
    assert supports(gym.make("Hopper-v5"))
    assert not supports(gym.make("Pendulum-v1"))
    assert not supports(_Lazy())
    assert not supports(gym.wrappers.RescaleAction(_make("Hopper-v5"), -0.5, 0.5))
    with pytest.raises(EvaluationError, match="not one of Gymnasium's own"):
        MuJoCoSimulation(_Lazy(), [_Lazy().model])


def test_wrong_models_and_actions_are_named() -> None:
    env = _make("Hopper-v5")
    engine = MuJoCoSimulation(env, [env.unwrapped.model] * 2)
    engine.reset([0, 1])
    with pytest.raises(EvaluationError, match="2 episodes need 2 models"):
        engine.set_models([env.unwrapped.model])
    with pytest.raises(EvaluationError, match="does not fit"):
        engine.set_models([_make("Walker2d-v5").unwrapped.model] * 2)
    with pytest.raises(EvaluationError, match=r"shape \(2,\), not \(2, 3\)"):
        engine.step(np.zeros(2, np.float32))
    with pytest.raises(EvaluationError, match="at least one"):
        MuJoCoSimulation(env, [])
