"""LunarLander: gravity, wind and engines act as named, each lander has its own, and no other lander notices."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from offline_robust.environment import make_env, make_spec
from offline_robust.envs import GymnasiumBatch, Perturbation, make_batch, open_physics, system
from offline_robust.envs.lunar_lander import LUNAR_LANDERS
from offline_robust.errors import EvaluationError

pytest.importorskip("Box2D")

ENV = "LunarLanderContinuous-v3"
HEIGHT, ACROSS, SINKING, TURNING = 1, 2, 3, 5
STEPS = 30


def _stated(name: str, level: float, **fields: Any) -> Perturbation:
    return system(ENV).ready(Perturbation(name, level, **fields))


def _flights(
    episodes: list[list[Perturbation]], action: tuple[float, float] = (0.0, 0.0), seed: int = 3, steps: int = STEPS
) -> NDArray[np.float64]:
    """Observations (steps + 1, N, 8) of flights from one seed, all with the same action at every step."""
    batch = make_batch(system(ENV), episodes)
    assert isinstance(batch, GymnasiumBatch)
    seen = [batch.reset([seed] * len(episodes))]
    actions = np.tile(np.array(action, np.float32), (len(episodes), 1))
    seen += [batch.step(actions)[0] for _ in range(steps)]
    batch.close()
    return np.array(seen)


def _plain(seed: int = 3, steps: int = STEPS, action: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.float64]:
    env = gym.make(ENV)
    seen = [env.reset(seed=seed)[0]]
    seen += [env.step(np.array(action, np.float32))[0] for _ in range(steps)]
    return np.array(seen)


@pytest.mark.parametrize("env_id", LUNAR_LANDERS)
def test_both_landers_offer_the_same_parameters(env_id: str) -> None:
    of = system(env_id)
    assert {name: values.tolist() for name, values in of.nominal.items()} == {
        "gravity": [-10.0], "wind_power": [0.0], "turbulence_power": [1.5], "main_engine_power": [13.0],
        "side_engine_power": [0.6], "engine_power": [13.0, 0.6], "initial_random": [1000.0],
    }  # fmt: skip


def test_gravity_pulls_as_hard_as_stated_also_beyond_the_constructors_check() -> None:
    weak, plain, strong, fixed = _flights(
        [[_stated("gravity", 0.5)], [], [_stated("gravity", 2.0)], [_stated("gravity", -10.0, mode="absolute")]]
    )[-1][:, SINKING][[0, 1, 2, 3]]
    assert strong < plain < weak
    assert fixed == plain
    # Twice the distance from none: the fall is linear in gravity.
    assert strong - plain == pytest.approx(2.0 * (plain - weak), rel=0.01)


def test_weaker_engines_sink_faster_and_turn_slower() -> None:
    for name in ("main_engine_power", "engine_power"):
        seen = _flights([[_stated(name, level)] for level in (0.0, 0.7, 1.0, 1.3)], (1.0, 0.0))[-1]
        assert (np.diff(seen[:, SINKING]) > 0).all(), name
    for name in ("side_engine_power", "engine_power"):
        seen = _flights([[_stated(name, level)] for level in (0.0, 0.7, 1.0, 1.3)], (0.0, 1.0), steps=10)[-1]
        assert (np.diff(np.abs(seen[:, TURNING] - seen[0, TURNING])) > 0).all(), name
    # The side engines do not hold it up, the main engine does not turn it.
    side = _flights([[_stated("side_engine_power", 0.5)], []], (1.0, 0.0))
    np.testing.assert_array_equal(side[:, 0], side[:, 1])


def test_wind_is_off_at_zero_and_pushes_and_turns_with_its_powers() -> None:
    wind = _stated("wind_power", 15.0)
    off, plain, on, hard, turbulent = _flights(
        [
            [_stated("wind_power", 0.0)], [], [wind], [_stated("wind_power", 30.0)],
            [wind, _stated("turbulence_power", 3.0)],
        ]
    ).transpose(1, 0, 2)  # fmt: skip
    np.testing.assert_array_equal(off, plain)
    kwargs = {"enable_wind": True, "wind_power": 15.0}
    env = gym.make(ENV, **kwargs)  # type: ignore[arg-type]
    np.testing.assert_array_equal(on[0], env.reset(seed=3)[0])
    np.testing.assert_array_equal(on[1], env.step(np.zeros(2, np.float32))[0])
    assert system(make_spec(ENV, kwargs)).nominal["wind_power"] == [15.0]
    drift = [abs(path[-1, ACROSS] - plain[-1, ACROSS]) for path in (on, hard)]
    assert drift[1] == pytest.approx(2 * drift[0], rel=0.2)
    assert abs(turbulent[-1, TURNING] - plain[-1, TURNING]) > 1.5 * abs(on[-1, TURNING] - plain[-1, TURNING]) > 0


def test_the_initial_push_scales_with_its_size() -> None:
    none, plain, hard = _flights([[_stated("initial_random", p)] for p in (0.0, 1000.0, 1500.0)])[0]
    assert none[ACROSS] == pytest.approx(0.0, abs=0.02)
    assert hard[ACROSS] - none[ACROSS] == pytest.approx(1.5 * (plain[ACROSS] - none[ACROSS]), rel=0.02)
    np.testing.assert_array_equal(plain, _plain(steps=0)[0])


def test_landers_with_different_engines_fly_side_by_side_and_nobody_else_notices() -> None:
    stated = [[_stated("engine_power", 0.5)], [], [_stated("main_engine_power", 2.0)]]
    together = _flights(stated, (1.0, 1.0))
    for row, own in enumerate(stated):
        np.testing.assert_array_equal(together[:, row], _flights([own], (1.0, 1.0))[:, 0])
    np.testing.assert_array_equal(together[:, 1], _plain(action=(1.0, 1.0)))
    # A plain lander that is stepped in between, too.
    batch, other = make_batch(system(ENV), stated[:1]), gym.make(ENV)
    batch.reset([3])
    seen = [other.reset(seed=3)[0]]
    for _ in range(STEPS):
        batch.step(np.ones((1, 2), np.float32))
        seen.append(other.step(np.ones(2, np.float32))[0])
    np.testing.assert_array_equal(seen, together[:, 1])


def test_the_engines_are_put_back_when_a_step_fails() -> None:
    module = sys.modules["gymnasium.envs.box2d.lunar_lander"]
    batch = make_batch(system(ENV), [[_stated("engine_power", 0.5)]])
    batch.reset([3])
    with pytest.raises(IndexError):
        batch.step(np.zeros((1, 0), np.float32))
    assert (module.MAIN_ENGINE_POWER, module.SIDE_ENGINE_POWER, module.INITIAL_RANDOM) == (13.0, 0.6, 1000.0)


def test_physics_that_change_in_flight_act_from_then_on() -> None:
    batch = make_batch(system(ENV), [[_stated("gravity", 1.0)], [_stated("main_engine_power", 1.0)]])
    seen = [batch.reset([3, 3])]
    for step in range(STEPS):
        batch.perturb([0, 1], [[1.0 if step < 10 else 0.0], [1.0 if step < 10 else 0.0]])
        seen.append(batch.step(np.array([[0.0, 0.0], [1.0, 0.0]], np.float32))[0])
    falls, burns = np.array(seen)[:, 0], np.array(seen)[:, 1]
    np.testing.assert_array_equal(falls[:11], _plain()[:11])
    np.testing.assert_allclose(np.diff(falls[12:, SINKING]), 0.0, atol=2e-3)  # without gravity it only drifts
    np.testing.assert_array_equal(burns[:11], _plain(action=(1.0, 0.0))[:11])
    assert (np.diff(burns[12:, SINKING]) < -0.01).all()  # without an engine it falls


def test_a_wind_that_rises_in_flight_is_the_same_every_time() -> None:
    def flight() -> NDArray[np.float64]:
        batch = make_batch(system(ENV), [[_stated("wind_power", 20.0)]])
        batch.perturb([0], [[0.0]])
        seen = [batch.reset([3])[0]]
        for step in range(STEPS):
            batch.perturb([0], [[2.0 * max(step - 10, 0)]])
            seen.append(batch.step(np.zeros((1, 2), np.float32))[0][0])
        return np.array(seen)

    first, second = flight(), flight()
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first[:11], _plain()[:11])
    assert first[-1, ACROSS] != _plain()[-1, ACROSS]


def test_reset_of_the_physics_restores_them_bit_for_bit() -> None:
    env = make_env(ENV)
    physics, inner = open_physics(env, ENV), env.unwrapped
    for name in physics.parameters:
        physics.write(name, 2.0 * physics.read(name) - 1.0 if name == "gravity" else physics.read(name) + 1.0)
    physics.commit()
    assert inner.enable_wind  # type: ignore[attr-defined]
    physics.reset()
    for name, values in system(ENV).nominal.items():
        np.testing.assert_array_equal(physics.read(name), values)
    plain: Any = gym.make(ENV).unwrapped
    for name in ("gravity", "enable_wind", "wind_power", "turbulence_power"):
        assert getattr(inner, name) == getattr(plain, name), name


def test_a_missing_box2d_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith(("gymnasium.envs.box2d", "Box2D"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "Box2D", None)
    with pytest.raises(
        EvaluationError, match=r"needs a package that is not installed: pip install .offline-robust.box2d"
    ) as caught:
        make_env(ENV)
    assert "\n" not in str(caught.value)
