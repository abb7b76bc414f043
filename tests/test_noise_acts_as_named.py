"""Noise: every kind of sensor and actuator fault does what its name says, and refuses what it does not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from offline_robust.environment import EnvironmentSpec
from offline_robust.envs import Perturbation, Stages, System, system
from offline_robust.errors import EvaluationError

N, STEPS = 40, 200
BOX = gym.spaces.Box(-2.0, 1.0, (2,))


def _system(actions: gym.Space[Any] = BOX, observations: gym.Space[Any] | None = None, env_id: str = "") -> System:
    of = system("Pendulum-v1")
    space = observations or gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    return replace(of, environment=EnvironmentSpec(env_id or of.env_id), observation_space=space, action_space=actions)


def _layer(of: System, *stated: tuple[str, float], count: int = N) -> Stages:
    return Stages(of, [of.ready(Perturbation(*s)) for s in stated], 0, range(count))


def _seen(of: System, name: str, level: float, seen: NDArray[Any]) -> NDArray[Any]:
    """What the policy sees of observations (steps, N, O)."""
    layer = _layer(of, (name, level), count=seen.shape[1])
    return np.array([layer.observe(step) for step in seen])


def _done(of: System, name: str, level: float, asked: NDArray[Any]) -> NDArray[Any]:
    layer = _layer(of, (name, level), count=asked.shape[1])
    return np.array([layer.act(step) for step in asked])


def _walk(width: int = 3, count: int = N) -> NDArray[np.float64]:
    return np.random.default_rng(5).uniform(-1.0, 1.0, (STEPS, count, width))


def test_additive_noise_has_the_law_its_level_states() -> None:
    of, zeros = _system(), np.zeros((STEPS, N, 3))
    gauss = _seen(of, "observation_noise", 0.5, zeros)
    assert abs(gauss.mean()) < 0.02
    assert abs(gauss.std() - 0.5) < 0.02
    flat = _seen(of, "observation_uniform", 0.5, zeros)
    assert 0.49 < np.abs(flat).max() <= 0.5
    assert abs(flat.std() - 0.5 / np.sqrt(3)) < 0.01
    heavy = _seen(of, "observation_cauchy", 0.5, zeros)
    np.testing.assert_allclose(np.quantile(heavy, [0.25, 0.5, 0.75]), [-0.5, 0.0, 0.5], atol=0.03)
    assert np.abs(heavy).max() > 100.0
    for bias in (0.25, -0.25):
        assert (_seen(of, "observation_bias", bias, zeros) == bias).all()


def test_a_gain_multiplies_and_a_dropout_reads_zero() -> None:
    of, seen = _system(), _walk()
    np.testing.assert_array_equal(_seen(of, "observation_scale", 1.5, seen), 1.5 * seen)
    dropped = _seen(of, "observation_dropout", 0.3, seen)
    assert abs((dropped == 0).mean() - 0.3) < 0.02
    np.testing.assert_array_equal(dropped[dropped != 0], seen[dropped != 0])
    # Each number on its own: rows with some but not all of them lost.
    assert ((dropped == 0).any(2) & (dropped != 0).any(2)).any()


def test_salt_and_pepper_read_the_bounds_or_the_extremes_so_far() -> None:
    low, high = np.array([-5.0, -np.inf, -np.inf]), np.array([7.0, np.inf, 9.0])
    of, seen = _system(observations=gym.spaces.Box(low, high, dtype=np.float64)), _walk()
    shown = _seen(of, "observation_saltpepper", 0.4, seen)
    least, most = np.minimum.accumulate(seen), np.maximum.accumulate(seen)
    least[..., 0], most[..., 0], most[..., 2] = -5.0, 7.0, 9.0
    hit = shown != seen
    assert ((shown == least) | (shown == most))[hit].all()
    assert abs((shown == -5.0)[..., 0].mean() - 0.2) < 0.02
    assert abs((shown == 7.0)[..., 0].mean() - 0.2) < 0.02
    assert abs(hit[50:, :, 1].mean() - 0.4) < 0.03  # once there are extremes to show, they are shown


def test_a_delay_of_k_shows_the_observation_of_k_steps_ago() -> None:
    of, seen = _system(), _walk()
    late = _seen(of, "observation_delay", 4, seen)
    np.testing.assert_array_equal(late[4:], seen[:-4])
    np.testing.assert_array_equal(late[:4], np.broadcast_to(seen[0], late[:4].shape))


@pytest.mark.parametrize(("ms", "steps"), [(50, 1), (51, 2), (150, 3), (1, 1), (149.9, 3)])
def test_a_latency_is_rounded_up_to_whole_steps(ms: float, steps: int) -> None:
    of, seen = _system(), _walk()
    assert of.step_seconds == 0.05
    np.testing.assert_array_equal(
        _seen(of, "observation_latency", ms, seen), _seen(of, "observation_delay", steps, seen)
    )
    np.testing.assert_array_equal(
        _done(of, "action_latency", ms, seen[..., :2]), _done(of, "action_delay", steps, seen[..., :2])
    )


def test_a_latency_of_whole_steps_is_not_rounded_up_by_the_floats() -> None:
    of, seen = replace(_system(), step_seconds=0.02), _walk()
    assert 140 / 1000 / 0.02 > 7
    np.testing.assert_array_equal(_seen(of, "observation_latency", 140.0, seen)[7:], seen[:-7])


def test_a_late_actuator_rests_until_the_first_action_arrives() -> None:
    asked = _walk(2)
    late = _done(_system(), "action_delay", 3, asked)
    np.testing.assert_array_equal(late[3:], asked[:-3])
    assert (late[:3] == -0.5).all()  # the middle of [-2, 1]
    open_ended = gym.spaces.Box(np.array([-2.0, -2.0]), np.array([1.0, np.inf]), dtype=np.float64)
    np.testing.assert_array_equal(_done(_system(open_ended), "action_delay", 3, asked)[0], [[-0.5, 0.0]] * N)
    whole = np.random.default_rng(1).integers(0, 3, (STEPS, N))
    late = _done(_system(gym.spaces.Discrete(3)), "action_delay", 3, whole)
    np.testing.assert_array_equal(late[3:], whole[:-3])
    np.testing.assert_array_equal(late[:3], [whole[0]] * 3)


def test_a_delay_may_change_and_lie_between_whole_steps_on_the_way() -> None:
    of, seen = _system(), _walk()
    delay = Perturbation("observation_delay", 4.0, "absolute", "ramp", period=8)
    layer = Stages(of, [delay], 0, range(N))
    shown = np.array([layer.observe(step) for step in seen])
    for t, ago in ((0, 0), (2, 1), (4, 2), (8, 4), (50, 4)):
        np.testing.assert_array_equal(shown[t], seen[t - ago])


def test_a_dropped_action_repeats_the_one_before() -> None:
    asked = _walk(2)
    done = _done(_system(), "action_drop", 0.3, asked)
    again = (done[1:] == done[:-1]).all(2)
    assert abs(again.mean() - 0.3) < 0.02
    np.testing.assert_array_equal(done[0], asked[0])
    np.testing.assert_array_equal(done[1:][~again], asked[1:][~again])
    assert (_done(_system(), "action_drop", 1.0, asked) == asked[0]).all()


def test_a_stuck_actuator_holds_for_an_exponential_time() -> None:
    asked, mean = _walk(2), 5.0
    done = _done(_system(), "action_stuck", mean, asked)
    taken = (done == asked).all(2)
    assert taken[0].all()
    # What is not taken is what was there before.
    np.testing.assert_array_equal(done[1:][~taken[1:]], done[:-1][~taken[1:]])
    # Whole steps cover an exponential time: the mean is 1 / (1 - exp(-1 / mean)).
    assert abs(STEPS / taken.sum(0).mean() - 1.0 / (1.0 - np.exp(-1.0 / mean))) < 0.4
    assert _done(_system(), "action_stuck", 20.0, asked)[1:].std(0).mean() < done[1:].std(0).mean()


def test_random_actions_replace_the_stated_share_and_fill_the_space() -> None:
    asked = np.full((STEPS, N, 2), 0.25, np.float32)
    done = _done(_system(), "random_action", 0.25, asked)
    replaced = done[(done != 0.25).all(2)]
    assert abs(len(replaced) / (STEPS * N) - 0.25) < 0.02
    assert -2.0 <= replaced.min() < -1.9
    assert 0.9 < replaced.max() <= 1.0
    assert abs(replaced.mean() + 0.5) < 0.05
    whole = gym.spaces.Discrete(3, start=1)
    chosen = _done(_system(whole), "random_action", 1.0, np.ones((STEPS, N), np.int64))
    np.testing.assert_allclose(np.bincount(chosen.ravel(), minlength=4)[1:] / chosen.size, 1 / 3, atol=0.02)


def test_a_blend_is_the_weighted_mean_with_a_random_action() -> None:
    asked = np.full((STEPS, N, 2), 1.0)
    whole, part = (_done(_system(), "action_blend", weight, asked) for weight in (1.0, 0.25))
    np.testing.assert_allclose(part, 0.75 * asked + 0.25 * whole, rtol=1e-6)
    assert abs(whole.mean() + 0.5) < 0.05


def test_perturbations_act_in_the_stated_order() -> None:
    of, ones = _system(), np.ones((N, 3))
    bias, gain = ("observation_bias", 2.0), ("observation_scale", 3.0)
    assert (_layer(of, bias, gain).observe(ones) == 9.0).all()
    assert (_layer(of, gain, bias).observe(ones) == 5.0).all()
    bias, gain = ("action_bias", 0.25), ("action_scale", 2.0)
    asked = np.full((N, 2), 0.125)
    assert (_layer(of, bias, gain).act(asked) == 0.75).all()
    assert (_layer(of, gain, bias).act(asked) == 0.5).all()


@pytest.mark.parametrize(
    "fault", [("action_noise", 9.0), ("action_uniform", 9.0), ("action_cauchy", 9.0), ("action_bias", 9.0),
              ("action_bias", -9.0), ("action_scale", 9.0), ("random_action", 0.1)]
)  # fmt: skip
def test_executed_actions_stay_in_the_action_space_and_in_its_dtype(fault: tuple[str, float]) -> None:
    asked = np.tile(np.array([0.9, -1.9], np.float32), (STEPS, N, 1))
    done = _done(_system(), *fault, asked)
    assert done.dtype == np.float32
    assert done.min() >= -2.0
    assert done.max() <= 1.0
    assert (done != asked).any()


def test_numbers_that_nobody_measures_stay_exact_but_may_come_late() -> None:
    rng = np.random.default_rng(0)
    for env_id, exact, width in (("Reacher-v5", [0, 1, 2, 3], 10), ("LunarLanderContinuous-v3", [6, 7], 8)):
        of = _system(observations=gym.spaces.Box(-9.0, 9.0, (width,), np.float64), env_id=env_id)
        measured = [k for k in range(width) if k not in exact]
        seen = rng.uniform(0.1, 1.0, (STEPS, N, width))
        for name in ("noise", "uniform", "cauchy", "bias", "saltpepper", "dropout", "scale"):
            shown = _seen(of, f"observation_{name}", 0.5, seen)
            np.testing.assert_array_equal(shown[..., exact], seen[..., exact])
            assert (shown != seen)[..., measured].any((0, 1)).all()
        np.testing.assert_array_equal(_seen(of, "observation_delay", 1, seen)[1:], seen[:-1])


@pytest.mark.parametrize(
    ("space", "stated", "message"),
    [
        (BOX, ("observation_delay", 1.5), "observation_delay = 1.5: a delay is a whole number of steps"),
        (BOX, ("action_delay", 0.5), "action_delay = 0.5: a delay is a whole number"),
        (gym.spaces.Discrete(2), ("action_noise", 1.0), "action_noise needs continuous actions.*random_action"),
        (gym.spaces.Discrete(2), ("action_blend", 0.5), "action_blend needs continuous actions"),
        (gym.spaces.Discrete(2), ("action_bias", 0.5), "action_bias needs continuous actions"),
        (gym.spaces.Box(-np.inf, 1.0, (2,)), ("random_action", 0.5), "random_action needs a bounded action space"),
        (gym.spaces.Box(-np.inf, 1.0, (2,)), ("action_blend", 0.5), "action_blend needs a bounded action space"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(space: Any, stated: tuple[str, float], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        _layer(_system(space), stated, count=0)


@pytest.mark.parametrize("name", ["observation", "action"])
def test_a_latency_needs_to_know_how_long_a_step_takes(name: str) -> None:
    of = replace(_system(), step_seconds=None)
    with pytest.raises(EvaluationError, match=f"use {name}_delay instead of {name}_latency"):
        _layer(of, (f"{name}_latency", 20.0), count=0)


@pytest.mark.parametrize("name", ["action_drop", "action_delay", "action_latency", "action_stuck", "random_action"])
def test_discrete_actions_stay_discrete(name: str) -> None:
    whole = np.random.default_rng(1).integers(0, 3, (STEPS, N))
    level = {"action_delay": 2.0, "action_latency": 70.0, "action_stuck": 3.0}.get(name, 0.5)
    done = _done(_system(gym.spaces.Discrete(3)), name, level, whole)
    assert done.dtype == np.int64
    assert set(np.unique(done)) == {0, 1, 2}
    assert (done != whole).any()
