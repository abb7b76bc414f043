"""Schedules: levels start where they should, move as their name says, and depend on nothing but seed and episode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from offline_robust.envs import Levels, Perturbation, system

ENV = "Pendulum-v1"


def _levels(*stated: Perturbation, episodes: Any = range(3), seed: int = 0) -> Levels:
    of = system(ENV)
    return Levels(of, [of.ready(p) for p in stated], seed, episodes)


def _path(p: Perturbation, steps: int, episodes: Any = range(3), seed: int = 0) -> NDArray[np.float64]:
    levels = _levels(p, episodes=episodes, seed=seed)
    return np.array([levels.at(step)[:, 0] for step in range(steps)])


def _moving(schedule: Any, level: float = 2.0, **fields: Any) -> Perturbation:
    return Perturbation("length", level, schedule=schedule, **fields)


def test_constant_levels_stay_and_say_so() -> None:
    levels = _levels(Perturbation("length", 0.5), Perturbation("gravity", 3.0, "absolute"))
    assert not levels.moving
    assert not levels.varied
    for step in (0, 7):
        np.testing.assert_array_equal(levels.at(step), [[0.5, 3.0]] * 3)
    assert _levels().at(0).shape == (3, 0)


def test_a_ramp_is_linear_from_the_start_to_the_level_and_stays_there() -> None:
    path = _path(_moving("ramp", 2.0, start=0.5, period=4), 8)
    np.testing.assert_allclose(path[:, 0], [0.5, 0.875, 1.25, 1.625, 2, 2, 2, 2])
    assert path[0, 0] == 0.5
    assert path[4, 0] == 2.0
    assert (path == path[:, :1]).all()


def test_a_cycle_is_a_cosine_there_and_back() -> None:
    path = _path(_moving("cycle", 2.0, start=1.0, period=8), 17)[:, 0]
    np.testing.assert_allclose(path, 1.5 - 0.5 * np.cos(2 * np.pi * np.arange(17) / 8))
    assert path[0] == path[8] == path[16] == 1.0
    assert path[4] == path[12] == 2.0


def test_a_walk_begins_at_the_start_takes_gaussian_steps_and_stays_between_the_ends() -> None:
    period = 100
    path = _path(_moving("walk", 3.0, start=1.0, period=period), 401, range(300))
    assert (path[0] == 1.0).all()
    assert path.min() >= 1.0
    assert path.max() <= 3.0
    step = np.diff(path[period:], axis=0)
    assert abs(step.std() - 2.0 / np.sqrt(period)) < 0.02  # the range over the root of the period, but for mirrors
    # After one period the level is anywhere in the range: the spread of a uniform law.
    assert abs(path[period].std() - 2.0 / np.sqrt(12)) < 0.05
    np.testing.assert_allclose(np.quantile(path[period], [0.25, 0.5, 0.75]), [1.5, 2.0, 2.5], atol=0.15)


def test_uniform_is_one_draw_per_episode_and_redraw_one_per_period() -> None:
    path = _path(_moving("uniform", 3.0, start=1.0), 5, range(400))
    assert (path == path[0]).all()
    np.testing.assert_allclose(np.quantile(path[0], [0, 0.5, 1]), [1.0, 2.0, 3.0], atol=0.1)
    path = _path(_moving("redraw", 3.0, start=1.0, period=5), 40, range(50))
    blocks = path.reshape(8, 5, 50)
    assert (blocks == blocks[:, :1]).all()
    assert len(np.unique(blocks[:, 0])) == 400
    assert abs(blocks[:, 0].mean() - 2.0) < 0.1
    assert len(np.unique(_path(_moving("redraw"), 20)[:, 0])) == 20  # every step where no period is stated


@pytest.mark.parametrize(
    ("p", "start"),
    [
        (Perturbation("length", 2.0, "scale", "ramp"), 1.0),
        (Perturbation("gravity", 2.0, "absolute", "ramp"), 10.0),
        (Perturbation("gravity", 2.0, "add", "ramp"), 0.0),
        (Perturbation("observation_noise", 2.0, None, "ramp"), 0.0),
        (Perturbation("action_scale", 0.5, None, "ramp"), 1.0),
        (Perturbation("action_scale", 0.5, "absolute", "ramp"), 1.0),
    ],
)
def test_schedules_begin_at_the_nominal_value_and_last_the_episode_unless_told(p: Perturbation, start: float) -> None:
    path = _path(p, 202)[:, 0]  # Pendulum ends after 200 steps
    assert path[0] == start
    assert path[199] != p.level
    assert path[200] == path[201] == p.level


@pytest.mark.parametrize("schedule", ["walk", "uniform", "redraw"])
def test_random_levels_depend_on_seed_episode_and_parameter_only(schedule: Any) -> None:
    alone = _path(_moving(schedule, period=7), 30, range(4))
    np.testing.assert_array_equal(_path(_moving(schedule, period=7), 30, [3, 1]), alone[:, [3, 1]])
    beside = _levels(
        Perturbation("mass", 2.0, schedule=schedule), Perturbation("random_action", 0.5), _moving(schedule, period=7),
        episodes=range(4),
    )  # fmt: skip
    np.testing.assert_array_equal([beside.at(step)[:, 2] for step in range(30)], alone)
    assert (_path(_moving(schedule, period=7), 30, range(4), seed=1)[1:] != alone[1:]).all()
    assert len({row.tobytes() for row in alone.T}) == 4
    other = _levels(Perturbation("mass", 2.0, schedule=schedule, period=7), episodes=range(4))
    assert (other.at(1) != alone[1:2].T).all()
    # Another end of the range stretches the same path.
    far = _path(_moving(schedule, 3.0, period=7), 30, range(4))
    np.testing.assert_allclose(far - 1.0, 2.0 * (alone - 1.0), rtol=1e-12, atol=1e-12)


def test_the_same_parameter_twice_moves_twice() -> None:
    twice = _levels(_moving("uniform"), _moving("uniform")).at(0)
    assert (twice[:, 0] != twice[:, 1]).all()


def test_the_same_step_may_be_asked_again_and_answers_are_the_callers_own() -> None:
    levels = _levels(_moving("walk"), _moving("redraw"))
    for step in (0, 0, 1, 5):
        first = levels.at(step)
        again = levels.at(step)
        np.testing.assert_array_equal(first, again)
        again[:] = 9.0
    skipped = _levels(_moving("walk"), _moving("redraw")).at(5)
    np.testing.assert_array_equal(skipped, first)


@pytest.mark.parametrize("schedule", ["ramp", "cycle", "walk", "redraw", "uniform"])
def test_moving_and_varied_tell_the_loop_what_to_do(schedule: Any) -> None:
    levels = _levels(Perturbation("mass", 2.0), _moving(schedule))
    assert levels.varied
    assert levels.moving == (schedule != "uniform")
