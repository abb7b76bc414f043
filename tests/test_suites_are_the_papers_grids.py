"""The bundled suites hold the published levels, fit every environment they name, and change what they say.

Expected levels are computed here from the papers' formulae and tables, never read from the suites.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from offline_robust.envs import (
    Condition,
    Perturbation,
    Suite,
    System,
    list_suites,
    load_suite,
    system,
    without_effect,
)
from offline_robust.errors import EvaluationError
from offline_robust.evaluation import evaluate

ANYWHERE = ("Pendulum-v1", "CartPole-v1", "Hopper-v5", "Reacher-v5")
"""Where suites without environments of their own are tried: no bounds, discrete, MuJoCo, exact dimensions."""

PAIRS = [(name, env) for name in list_suites() for env in load_suite(name).env_ids or ANYWHERE]

Sweeps = dict[tuple[str, ...], list[float]]
"""Levels by parameters; where several act together, the last is swept."""

Floats = NDArray[np.floating[Any]]


@lru_cache
def known(env_id: str) -> System:
    try:
        return system(env_id)
    except EvaluationError as error:
        if "not installed" in str(error):
            pytest.skip(str(error))
        raise


def conditions(name: str, env_id: str) -> tuple[Condition, ...]:
    return load_suite(name).for_system(known(env_id))


def sweeps(found: tuple[Condition, ...]) -> Sweeps:
    """The levels of the last parameter, by the names of all."""
    by_name: Sweeps = {}
    for condition in found:
        if condition.perturbations:
            names = tuple(p.parameter for p in condition.perturbations)
            by_name.setdefault(names, []).append(condition.perturbations[-1].level)
    return by_name


def modes(found: tuple[Condition, ...]) -> dict[str, str | None]:
    return {p.parameter: p.mode for condition in found for p in condition.perturbations}


def assert_sweeps(found: tuple[Condition, ...], expected: dict[tuple[str, ...], Floats | list[float]]) -> None:
    actual = sweeps(found)
    assert set(actual) == set(expected)
    for names, levels in expected.items():
        np.testing.assert_allclose(actual[names], levels, rtol=0, atol=1e-6, err_msg=str(names))


def steps(low: float, count: int, step: float) -> Floats:
    return low + step * np.arange(count)


@pytest.mark.parametrize(("name", "env_id"), PAIRS)
def test_every_bundled_suite_fits_every_environment_it_names(name: str, env_id: str) -> None:
    found = conditions(name, env_id)
    assert any(condition.nominal for condition in found)
    assert not all(condition.nominal for condition in found)


@pytest.mark.parametrize("name", list_suites())
def test_every_bundled_suite_is_called_as_its_file_and_says_where_its_levels_come_from(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert len(suite.source) > 20
    assert len(set(suite.env_ids)) == len(suite.env_ids)


@pytest.mark.parametrize(("name", "env_id"), PAIRS)
def test_a_bundled_suite_perturbs_in_more_than_name(name: str, env_id: str) -> None:
    found = without_effect(known(env_id), conditions(name, env_id))
    # In a grid the friction is without effect whatever the other parameter does.
    inert = {condition.label if name == "rfqi" else perturbation.label for condition, perturbation in found}
    expected = set()
    if (name, env_id) == ("rfqi", "Hopper-v5"):
        expected = {f"{joint}_springref = 2, {joint}_stiffness = 0" for joint in ("thigh", "leg", "foot")}
    if name == "rrls" and env_id in ("Hopper-v5", "Walker2d-v5"):
        # A contact takes the larger friction of its two sides: 2.0 under Hopper's foot, 1.9 under Walker2d's.
        foot, step = (2.0, 0.29) if env_id == "Hopper-v5" else (1.9, 0.39)
        levels = [0.1 + k * step for k in range(10)]
        expected = {f"world_friction = {level:.12g}" for level in np.round(levels, 6) if level < foot}
    assert inert == expected
    assert not inert or load_suite(name).inert


@pytest.mark.parametrize(
    ("name", "env_id", "count"),
    [
        ("dr_sac", "Pendulum-v1", 11),
        ("dr_sac", "Reacher-v5", 28),
        ("rfqi", "CartPole-v1", 48 + 60 + 48 + 11),
        ("rfqi", "Hopper-v5", 10 + 13 + 12 + 10 + 7 + 11 + 5 + 9),
        ("rfqi", "HalfCheetah-v5", 10 + 16 + 16 + 8 + 8 + 21 + 5 + 11),
        ("rfqi", "LunarLander-v3", 20 + 10 + 13 + 11 + 11),
        ("rfqi", "LunarLanderContinuous-v3", 20 + 10 + 13 + 11 + 11 + 1),
        ("rrls", "Hopper-v5", 3 * 10 + 100 + 1),
        ("rrls", "InvertedPendulum-v5", 2 * 10 + 100 + 1),
        ("rrls_fixed", "Hopper-v5", 3 * 11 + 2 * 6 + 1),
        ("rrls_fixed", "HalfCheetah-v5", 3 * 11 + 6 * 6 + 1),
        ("robustrllib", "Hopper-v5", 25),
        ("robustrllib", "HalfCheetah-v5", 25),
        ("robustrllib", "Walker2d-v5", 25),
        ("robustrllib", "Ant-v5", 25),
        ("robustrllib", "LunarLanderContinuous-v3", 22 + 1),
        ("sunblaze", "CartPole-v1", 1 + 2**3 + 3 * 11 + 1),
        ("sunblaze", "Pendulum-v1", 1 + 2**2 + 2 * 12 + 1),
    ],
)
def test_suites_have_as_many_conditions_as_their_sources_imply(name: str, env_id: str, count: int) -> None:
    assert len(conditions(name, env_id)) == count


def test_rfqi_on_cartpole_is_the_released_grid() -> None:
    found = conditions("rfqi", "CartPole-v1")
    assert_sweeps(
        found,
        {
            ("start_angle", "force_mag"): 1 + steps(-0.8, 48, 0.1),
            ("start_angle", "gravity"): 1 + steps(-3.0, 60, 0.1),
            ("start_angle", "length"): 1 + steps(-0.8, 48, 0.1),
            ("random_action",): steps(0.0, 11, 0.1),
        },
    )
    assert {p.level for c in found for p in c.perturbations if p.parameter == "start_angle"} == {0.2}
    assert modes(found) == {
        "start_angle": "absolute",
        "force_mag": "scale",
        "gravity": "scale",
        "length": "scale",
        "random_action": "absolute",
    }


def test_rfqi_on_hopper_is_the_released_grid() -> None:
    found = conditions("rfqi", "Hopper-v5")
    assert_sweeps(
        found,
        {
            ("gravity",): 1 + steps(-0.5, 10, 0.05),
            ("thigh_springref", "thigh_stiffness"): steps(0.0, 13, 2.5),
            ("leg_springref", "leg_stiffness"): steps(0.0, 12, 5.0),
            ("foot_springref", "foot_stiffness"): steps(0.0, 10, 2.5),
            ("ctrlrange",): steps(0.85, 7, 0.025),
            ("damping",): 1 + steps(0.0, 11, 0.1),
            ("frictionloss",): steps(0.0, 5, 1.0),
            ("random_action",): steps(0.0, 9, 0.05),
        },
    )
    assert {p.level for c in found for p in c.perturbations if p.parameter.endswith("_springref")} == {2.0}
    scaled = {name for name, mode in modes(found).items() if mode == "scale"}
    assert scaled == {"gravity", "damping"}


def test_rfqi_on_halfcheetah_is_the_released_grid_with_the_back_mended() -> None:
    found = conditions("rfqi", "HalfCheetah-v5")
    assert_sweeps(
        found,
        {
            ("gravity",): 1 + steps(-0.99, 10, 0.1),
            ("back_stiffness",): 1 + steps(0.0, 16, 0.05),
            ("front_stiffness",): 1 + steps(0.0, 16, 0.05),
            ("front_ctrlrange",): steps(0.3, 8, 0.1),
            ("back_ctrlrange",): steps(0.3, 8, 0.1),
            ("damping",): 1 + steps(-0.5, 21, 0.05),
            ("frictionloss",): steps(0.0, 5, 1.0),
            ("random_action",): steps(0.0, 11, 0.1),
        },
    )
    scaled = {name for name, mode in modes(found).items() if mode == "scale"}
    assert scaled == {"gravity", "back_stiffness", "front_stiffness", "damping"}


@pytest.mark.parametrize("continuous", [False, True])
def test_rfqi_on_lunar_lander_is_the_released_grid(continuous: bool) -> None:
    # The continuous scripts add wind (Gymnasium's 15) and an initial push of 1500 to everything they sweep.
    wind, push = (("wind_power",), ("initial_random",)) if continuous else ((), ())
    found = conditions("rfqi", "LunarLanderContinuous-v3" if continuous else "LunarLander-v3")
    assert_sweeps(
        found,
        {
            (*wind, *push, "engine_power"): 1 + steps(-0.9, 20, 0.1),
            (*wind, *push, "gravity"): 1 + steps(-0.99, 10, 0.1),
            (*push, "wind_power"): 15 * (1 + steps(-0.99, 13, 0.1)),
            (*wind, "initial_random"): 1 + steps(0.0, 11, 0.05),
            (*wind, *push, "random_action"): steps(0.0, 11, 0.1),
        },
    )
    held = {(p.parameter, p.level) for c in found for p in c.perturbations[:-1]}
    assert held == ({("wind_power", 15.0), ("initial_random", 1500.0)} if continuous else set())


RRLS = {
    "Ant-v5": {"torso_mass": (0.1, 3.0), "front_left_leg_mass": (0.01, 3.0), "front_right_leg_mass": (0.01, 3.0)},
    "HalfCheetah-v5": {"friction": (0.1, 3.0), "torso_mass": (0.1, 7.0), "bthigh_mass": (0.1, 3.0)},
    "Hopper-v5": {"world_friction": (0.1, 3.0), "torso_mass": (0.1, 3.0), "thigh_mass": (0.1, 4.0)},
    "HumanoidStandup-v5": {"torso_mass": (0.1, 16.0), "right_foot_mass": (0.1, 8.0), "left_thigh_mass": (0.1, 5.0)},
    "InvertedPendulum-v5": {"pole_mass": (1.0, 31.0), "cart_mass": (1.0, 11.0)},
    "Walker2d-v5": {"world_friction": (0.1, 4.0), "torso_mass": (0.1, 5.0), "thigh_mass": (0.1, 6.0)},
}
"""RRLS' bounds: first, second and third axis."""


@pytest.mark.parametrize("env_id", RRLS)
def test_rrls_sweeps_ten_points_that_miss_the_upper_bound(env_id: str) -> None:
    found = [c for c in conditions("rrls", env_id) if len(c.perturbations) == 1]
    expected = {(name,): np.arange(low, high, (high - low) / 10)[:10] for name, (low, high) in RRLS[env_id].items()}
    assert_sweeps(tuple(found), expected)  # type: ignore[arg-type]
    assert set(modes(tuple(found)).values()) == {"absolute"}


@pytest.mark.parametrize("env_id", RRLS)
def test_rrls_crosses_its_first_two_axes(env_id: str) -> None:
    (first, (low, high)), (second, bounds) = list(RRLS[env_id].items())[:2]
    if env_id == "HalfCheetah-v5":
        high = 4.0  # in the plane friction goes further than alone
    rows, columns = (steps(a, 10, (b - a) / 10) for a, b in ((low, high), bounds))
    pairs = [c.perturbations for c in conditions("rrls", env_id) if len(c.perturbations) == 2]
    assert {tuple(p.parameter for p in pair) for pair in pairs} == {(first, second)}
    actual = np.array([[p.level for p in pair] for pair in pairs])
    np.testing.assert_allclose(actual, [(a, b) for a in rows for b in columns], rtol=0, atol=1e-6)


@pytest.mark.parametrize("env_id", RRLS)
def test_rrls_fixed_reaches_both_bounds_and_pushes_along_axes_of_motion(env_id: str) -> None:
    found = sweeps(conditions("rrls_fixed", env_id))
    for name, (low, high) in RRLS[env_id].items():
        acting = "floor_friction" if "friction" in name else name
        top = 4.0 if env_id == "HalfCheetah-v5" and "friction" in name else high
        np.testing.assert_allclose(found.pop((acting,)), np.linspace(low, top, 11), rtol=0, atol=1e-6)
    assert found
    axes = "xy" if env_id in ("Ant-v5", "HumanoidStandup-v5") else "xz"
    for (name,), levels in found.items():
        assert name.rpartition("_push_")[2] in axes
        assert levels == [-3, -2, -1, 1, 2, 3]


@pytest.mark.parametrize("env_id", ["Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "Ant-v5"])
def test_the_grid_of_severities_has_25_conditions_of_three_factors(env_id: str) -> None:
    scales = [1 + side * 0.1 * k for side, ks in ((-1, (4, 3, 2, 1)), (1, (1, 2, 3, 4))) for k in ks]
    found = conditions("robustrllib", env_id)
    assert_sweeps(found, {("gravity",): scales, ("limb_length",): scales, ("gear",): scales})
    assert set(modes(found).values()) == {"scale"}


def test_the_grid_of_severities_on_the_lander_is_the_full_published_one() -> None:
    found = conditions("robustrllib", "LunarLanderContinuous-v3")
    assert_sweeps(
        found,
        {
            ("engine_power",): [0.5, 0.6, 0.75, 0.9, 1.1, 1.25, 1.4, 1.5],
            ("gravity",): [0.7, 0.75, 0.85, 0.9, 1.1, 1.15, 1.25, 1.3],
            ("wind_power",): steps(5.0, 6, 5.0),
        },
    )
    assert modes(found) == {"engine_power": "scale", "gravity": "scale", "wind_power": "absolute"}


@pytest.mark.parametrize(
    ("env_id", "parameter", "default", "lengths"),
    [
        ("Acrobot-v1", "length_1", 1.0, [1.0, 1.025, 1.05, 1.15, 1.2, 1.25]),
        ("CartPole-v1", "length", 1.0, [0.5, 1.9, 2.1, 2.0, 2.2, 2.3, *(0.5 + 0.2 * k for k in range(8))]),
        ("InvertedPendulum-v5", "pole_length", 1.0, [1.0, 1.4, 1.7, 1.2, 1.5, 1.8]),
        ("HalfCheetah-v5", "torso_length", 0.5, [0.4, 0.45, 0.5, 0.3, 0.325, 0.35]),
        ("Hopper-v5", "leg_length", 0.32, [0.32, 0.33, 0.34, 0.4, 0.45, 0.475, 0.5]),
        ("Pendulum-v1", "mass", 1.0, [1.0, 1.1, 1.4, 1.2, 1.5, 1.6, 1.7, *(1 + 0.1 * k for k in range(6))]),
        ("Walker2d-v5", "thigh_length", 0.225, [0.225, 0.2375, 0.25, 0.35, 0.375, 0.4]),
    ],
)
def test_r_mpo_has_table_3_as_factors(env_id: str, parameter: str, default: float, lengths: list[float]) -> None:
    found = conditions("r_mpo", env_id)
    assert_sweeps(found, {(parameter,): np.unique(np.round(lengths, 6)) / default})
    assert modes(found) == {parameter: "scale"}


SUNBLAZE = {
    "CartPole-v1": {
        "force_mag": ((1.0, 5.0), (15.0, 20.0)),
        "length": ((0.05, 0.25), (0.75, 1.0)),
        "pole_mass": ((0.01, 0.05), (0.5, 1.0)),
    },
    "Pendulum-v1": {"length": ((0.5, 0.75), (1.25, 1.5)), "mass": ((0.5, 0.75), (1.25, 1.5))},
}
"""Packer et al.'s extreme ranges, below and above; the random one is what lies between them."""


@pytest.mark.parametrize("env_id", SUNBLAZE)
def test_sunblaze_draws_within_its_ranges_and_sweeps_the_extremes(env_id: str) -> None:
    ranges, found = SUNBLAZE[env_id], conditions("sunblaze", env_id)
    moving = [c.perturbations for c in found if any(p.moves for p in c.perturbations)]
    assert all(p.schedule == "uniform" and p.mode == "absolute" for drawn in moving for p in drawn)
    assert all(tuple(p.parameter for p in drawn) == tuple(ranges) for drawn in moving)
    spans = {tuple(tuple(sorted((p.start or 0.0, p.level))) for p in drawn) for drawn in moving}
    sides = np.array(np.meshgrid(*[[0, 1]] * len(ranges), indexing="ij")).reshape(len(ranges), -1).T
    extreme = {tuple(pair[s] for pair, s in zip(ranges.values(), choice, strict=True)) for choice in sides}
    assert spans == extreme | {tuple((below[1], above[0]) for below, above in ranges.values())}
    for (name,), levels in sweeps(tuple(c for c in found if len(c.perturbations) == 1)).items():
        below, above = ranges[name]
        middle = (below[1] + above[0]) / 2
        low, high = ([level for level in levels if (level < middle) == side] for side in (True, False))
        assert ((min(low), max(low)), (min(high), max(high))) == (below, above)


def test_dr_sac_spans_the_reported_ranges() -> None:
    ends = {
        "Pendulum-v1": {"length": (0.5, 1.5)},
        "ContinuousCartPole-v0": {"random_action": (0.0, 0.5)},
        "LunarLanderContinuous-v3": {"engine_power": (0.5, 1.0)},
        "HalfCheetah-v5": {"back_damping": (0.5, 1.5)},
    }
    for env_id, expected in ends.items():
        found = sweeps(conditions("dr_sac", env_id))
        assert {names[0]: (min(levels), max(levels)) for names, levels in found.items()} == expected
    assert {0.7, 0.8} <= set(sweeps(conditions("dr_sac", "LunarLanderContinuous-v3"))[("engine_power",)])


def test_what_changes_nothing_is_refused_unless_the_suite_allows_it_and_then_told() -> None:
    def still(observations: Floats) -> Floats:
        return np.zeros((len(observations), 3))

    condition = Condition((Perturbation("world_friction", 0.5, "absolute"),))
    with pytest.raises(EvaluationError, match=r"world_friction = 0.5 changes nothing in this model"):
        evaluate(still, "Hopper-v5", suite=Suite.of("mine", [condition]), episodes=1, max_steps=1)
    with pytest.warns(UserWarning, match=r"world_friction = 0.5 changes nothing in this model"):
        evaluate(still, "Hopper-v5", suite=Suite.of("mine", [condition], inert=True), episodes=1, max_steps=1)
