"""Noise: the draws belong to the seed, the episode and the kind, and to nothing else."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from offline_robust.envs import Perturbation, Stages, System, system

ENV = "Pendulum-v1"

LEVELS = {
    "observation_noise": (0.1, 0.2), "observation_uniform": (0.1, 0.2), "observation_cauchy": (0.1, 0.2),
    "observation_dropout": (0.2, 0.4), "observation_saltpepper": (0.2, 0.4), "action_noise": (0.1, 0.2),
    "action_uniform": (0.1, 0.2), "action_cauchy": (1e-3, 2e-3), "action_drop": (0.2, 0.4),
    "action_stuck": (2.0, 4.0), "random_action": (0.2, 0.4), "action_blend": (0.2, 0.4),
}  # fmt: skip
STEPS = 150  # the draws come in blocks of 64 steps, and the seams must not show


def _ready(of: System, *stated: tuple[str, float]) -> list[Perturbation]:
    return [of.ready(Perturbation(name, level)) for name, level in stated]


def _path(
    stated: list[Perturbation], episodes: Any, seed: int = 0, actions: float = 0.3, swing: float = 0
) -> NDArray[np.float64]:
    """What comes out over an episode of one observation and swinging actions: (steps, N, O + A)."""
    layer, count = Stages(system(ENV), stated, seed, episodes), len(episodes)
    seen, done = np.full((count, 3), 0.5), np.full((count, 1), actions)
    waves = swing * np.sin(np.arange(STEPS))
    return np.array([np.hstack([layer.observe(seen), layer.act(done + wave)]) for wave in waves])


@pytest.mark.parametrize("name", LEVELS)
def test_other_episodes_kinds_and_blocks_change_no_draw(name: str) -> None:
    of = system(ENV)
    alone = _path(_ready(of, (name, LEVELS[name][0])), range(4), swing=0.2)
    np.testing.assert_array_equal(_path(_ready(of, (name, LEVELS[name][0])), [2, 0], swing=0.2), alone[:, [2, 0]])
    # Beside noise on the other side of the policy, its own draws stay.
    other, own = ("action_noise", slice(0, 3)) if name.startswith("observation") else ("observation_noise", slice(3, 4))
    beside = _path(_ready(of, (other, 0.1), (name, LEVELS[name][0])), range(4), swing=0.2)
    np.testing.assert_array_equal(beside[..., own], alone[..., own])
    assert (beside != alone).any()
    assert (_path(_ready(of, (name, LEVELS[name][0])), range(4), seed=1, swing=0.2) != alone).any()
    assert len({episode.tobytes() for episode in alone.transpose(1, 0, 2)}) == 4


@pytest.mark.parametrize("name", ["observation_noise", "observation_uniform", "observation_cauchy",
                                  "action_noise", "action_uniform", "action_cauchy"])  # fmt: skip
def test_a_level_scales_the_same_draws(name: str) -> None:
    of, (low, high) = system(ENV), LEVELS[name]
    one, two = (_path(_ready(of, (name, level)), range(3), actions=0.0) for level in (low, high))
    one, two = ((x[..., 3:] if "action" in name else x[..., :3] - 0.5) for x in (one, two))
    inside = (np.abs(two) < 1.9) | (name[0] == "o")  # the action space ends at 2
    assert inside.mean() > 0.95
    np.testing.assert_allclose(two[inside], 2.0 * one[inside], rtol=1e-9, atol=1e-14)
    assert (one != 0).all()


@pytest.mark.parametrize("name", ["observation_dropout", "observation_saltpepper", "random_action"])
def test_a_level_is_a_threshold_of_the_same_draws(name: str) -> None:
    """What is hit at a low probability is hit at a higher one too, and turns into the same."""
    of = system(ENV)
    low, high = (_path(_ready(of, (name, level)), range(5)) for level in LEVELS[name])
    still = _path([], range(5))
    np.testing.assert_array_equal(high[low != still], low[low != still])
    hit = slice(3, 4) if name == "random_action" else slice(0, 3)
    for path, level in ((low, LEVELS[name][0]), (high, LEVELS[name][1])):
        assert abs((path != still)[..., hit].mean() - level) < 0.05


def test_draws_are_those_of_the_published_tables() -> None:
    of = system(ENV)

    def generator(name: str, episode: int) -> np.random.Generator:
        return np.random.default_rng([7, episode, zlib.crc32(name.encode()), 1])

    seen = _path(_ready(of, ("observation_noise", 0.1)), [3], seed=7)
    drawn = generator("observation_noise", 3).standard_normal((64, 3))
    np.testing.assert_array_equal(seen[:64, 0, :3], 0.5 + 0.1 * drawn)
    done = _path(_ready(of, ("action_noise", 0.1)), [3], seed=7)
    drawn = generator("action_noise", 3).standard_normal((64, 1))
    np.testing.assert_array_equal(done[:64, 0, 3:], 0.3 + 0.1 * drawn)
    done = _path(_ready(of, ("random_action", 0.5)), [3], seed=7)
    coin, place = generator("random_action", 3).random((64, 2)).T
    expected = np.where(coin < 0.5, (-2.0 + place * 4.0).astype(np.float32).astype(np.float64), 0.3)
    np.testing.assert_array_equal(done[:64, 0, 3], expected)


def test_levels_given_step_by_step_do_what_constant_ones_do() -> None:
    of = system(ENV)
    stated = _ready(of, *((name, levels[0]) for name, levels in LEVELS.items()), ("action_delay", 3.0))
    moving = [replace(p, schedule="ramp", start=p.level, period=1) for p in stated]
    assert all(p.moves for p in moving)
    np.testing.assert_array_equal(_path(moving, range(3), swing=0.2), _path(stated, range(3), swing=0.2))


def test_a_kind_stated_twice_draws_twice() -> None:
    of = system(ENV)
    one = _path(_ready(of, ("observation_noise", 0.1)), range(2))[..., :3] - 0.5
    two = _path(_ready(of, ("observation_noise", 0.1), ("observation_noise", 0.1)), range(2))[..., :3] - 0.5
    assert abs(np.corrcoef((two - one).ravel(), one.ravel())[0, 1]) < 0.1


def test_what_happens_in_one_row_disturbs_no_other() -> None:
    """Rows of ended episodes may hold anything."""
    of = system(ENV)
    stated = _ready(of, *((name, levels[0]) for name, levels in LEVELS.items() if name != "action_cauchy"))
    plain, wild = (Stages(of, stated, 0, range(3)) for _ in range(2))
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        seen, done = rng.normal(size=(3, 3)), rng.uniform(-1, 1, (3, 1))
        odd, strange = seen.copy(), done.copy()
        odd[1], strange[1] = 1e6 * rng.normal(), -2.0
        np.testing.assert_array_equal(plain.observe(seen)[[0, 2]], wild.observe(odd)[[0, 2]])
        np.testing.assert_array_equal(plain.act(done)[[0, 2]], wild.act(strange)[[0, 2]])


def test_without_perturbations_everything_passes_untouched() -> None:
    of = system(ENV)
    layer = Stages(of, _ready(of, ("observation_noise", 0.0), ("action_scale", 1.0)), 0, range(2))
    seen, done = np.ones((2, 3)), np.full((2, 1), 9.0)
    assert layer.observe(seen) is seen
    assert layer.act(done) is done
    assert isinstance(of.action_space, gym.spaces.Box)
