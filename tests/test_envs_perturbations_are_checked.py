"""Perturbations and suites: what is written is what is applied, and what makes no sense is refused in one line."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_robust.environment import make_env, make_spec
from offline_robust.envs import (
    Axis,
    Condition,
    ParameterSpec,
    Perturbation,
    Suite,
    load_suite,
    open_physics,
    parse_perturb,
    perturb,
    perturbations,
    register_parameter,
    suite_from_perturb,
    system,
    systems,
    without_effect,
)
from offline_robust.errors import EvaluationError

ENV = "Pendulum-v1"


def value_of(env_kwargs: dict[str, float], *perturbations: Perturbation) -> float:
    env = make_env(make_spec(ENV, env_kwargs))
    physics = open_physics(env, ENV)
    perturb(physics, perturbations)
    assert env.unwrapped.g == physics.read("gravity")[0]  # type: ignore[attr-defined]
    changed = env.unwrapped.g  # type: ignore[attr-defined]
    physics.reset()
    assert env.unwrapped.g == env_kwargs.get("g", 10.0)  # type: ignore[attr-defined]
    return float(changed)


def test_modes_scale_set_and_add_in_order() -> None:
    in_order = [Perturbation("gravity", 0.5, "scale"), Perturbation("gravity", 2.0, "add")]
    assert value_of({}, *in_order) == 7.0
    assert value_of({}, *in_order[::-1]) == 6.0
    assert value_of({}, Perturbation("gravity", 3.0, "absolute")) == 3.0
    assert value_of({"g": 4.0}, Perturbation("gravity", 0.5, "scale")) == 2.0


@pytest.mark.parametrize(
    ("perturbation", "message"),
    [
        (Perturbation("lenght", 1.0), "did you mean 'length'"),
        (Perturbation("mass", -1.0), "outside its physical range"),
        (Perturbation("length", 0.0), "outside its physical range"),
        (Perturbation("random_action", 1.1), "outside its physical range"),
        (Perturbation("observation_noise", 2.0, "scale"), "nominally 0"),
        (Perturbation("gravity", 2.0, schedule="ramp", start=-200.0), "outside its physical range"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(perturbation: Perturbation, message: str) -> None:
    with pytest.raises(EvaluationError, match=message) as caught:
        Suite.of("x", [Condition((perturbation,))]).for_system(system(ENV))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("level", [float("nan"), float("inf"), "1", None, True])
def test_a_level_is_a_finite_number(level: object) -> None:
    with pytest.raises(EvaluationError, match="level"):
        Perturbation("length", level)  # type: ignore[arg-type]


def test_the_nominal_conditions_are_flagged_and_one_is_added_where_none_is() -> None:
    ready = load_suite("pendulum-length").for_system(system(ENV))
    assert [c.label for c in ready if c.nominal] == ["length x1"]
    ready = suite_from_perturb("length=0.5,1.5").for_system(system(ENV))
    assert [c.nominal for c in ready] == [True, False, False]
    assert ready[0].perturbations == ()
    # With gravity 9.8 in the keyword arguments, gravity = 10 is a perturbation and 9.8 is not.
    ready = suite_from_perturb("gravity=absolute@9.8,10").for_system(system(make_spec(ENV, {"g": 9.8})))
    assert [c.nominal for c in ready] == [True, False]
    # Two perturbations that undo each other leave the system nominal; one that moves never does.
    undone = Condition((Perturbation("gravity", 2.0), Perturbation("gravity", 0.5)))
    moving = Condition((Perturbation("gravity", 1.0, schedule="ramp"),))
    assert [c.nominal for c in Suite.of("x", [undone, moving]).for_system(system(ENV))] == [True, False]


def test_a_suite_for_another_environment_and_an_unknown_suite_are_refused() -> None:
    with pytest.raises(EvaluationError, match="made for Pendulum-v1, not for CartPole-v1"):
        load_suite("pendulum-length").for_system(system("CartPole-v1"))
    with pytest.raises(EvaluationError, match=r"did you mean .*'pendulum-length'"):
        load_suite("pendulum-lenght")


def test_perturb_texts_read_as_documented() -> None:
    assert parse_perturb("length=0.5:1.5:3") == Axis("length", (0.5, 1.0, 1.5))
    assert parse_perturb("length=0.5,1, 1.5") == Axis("length", (0.5, 1.0, 1.5))
    assert parse_perturb("gravity=add@-1,2") == Axis("gravity", (-1.0, 2.0), "add")
    grid = suite_from_perturb(["length=0.5,1", "mass=1,2,3"])
    (part,) = grid.parts
    assert len(part.conditions) == 6
    assert part.conditions[1].perturbation == "length+mass"
    assert part.conditions[1].level == "0.5;2"


@pytest.mark.parametrize(
    "text", ["length", "=1", "length=", "length=a", "length=1:2", "length=1:2:0", "length=nan", "length=1:2:1e9",
             "length=1:2:99999999", "length=sclae@1", "length=1,,2"],
)  # fmt: skip
def test_a_malformed_perturb_text_is_one_clear_line(text: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        parse_perturb(text)
    assert "\n" not in str(caught.value)


@settings(derandomize=True, deadline=None)
@given(st.text(max_size=60))
def test_any_perturb_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(EvaluationError):
        assert parse_perturb(text).levels


def test_naming_a_parameter_twice_or_a_huge_grid_is_refused() -> None:
    with pytest.raises(EvaluationError, match="twice"):
        suite_from_perturb(["length=1", "length=2"])
    with pytest.raises(EvaluationError, match="at most"):
        suite_from_perturb(["length=0.5:1:5000", "mass=0.5:1:5000"])
    with pytest.raises(EvaluationError, match="'length x1' twice"):
        suite_from_perturb("length=1,1").for_system(system(ENV))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: a\nsweep: []", "unknown key 'sweep'; did you mean 'sweeps'"),
        ("name: a", "at least one of"),
        ("name: a\nsweeps: []", "1 to"),
        ("name: a\ninert: maybe\nsweeps: [{parameter: length, levels: [1]}]", "refused or allowed"),
        ("name: a\nenvironments: [{sweeps: [{parameter: length, levels: [1]}]}]", "needs its env_ids"),
        ("name: a\nenvironments: [{env_ids: [A], sweeps: []}]\ngrid: []", "not both"),
        ("name: a\nsweeps: [{parameter: length, levels: [1], schedule: ram}]", "did you mean 'ramp'"),
        ("name: a\nsweeps: [{parameter: length, levels: [1], period: 3}]", "need a schedule"),
        ("name: a\nsweeps: [{parameter: length, levels: [1], schedule: ramp, period: 0}]", "whole number of steps"),
        ("name: a\nsweeps: &x [{parameter: length, levels: [1]}]\ngrid: *x", "aliases"),
        ("sweeps: []", "lacks the key 'name'"),
        ("name: a\nsweeps: 3", "must be a list"),
        ("name: a\nsweeps: [{parameter: length}]", "lacks the key 'levels'"),
        ("name: a\nsweeps: [{parameter: length, levels: [a]}]", "not a number"),
        ("name: a\nsweeps: [{parameter: length, levels: [1], mode: scael}]", "did you mean 'scale'"),
        ("name: a\nsweeps: [{parameter: length, levels: 0.5:1.5}]", "start:stop:count"),
        ("name: a\nconditions: [[{parameter: length, level: .nan}]]", "not finite"),
        ("name: a\nconditions: [{parameter: length, level: 1}]", "list of perturbations"),
        ("name: [a]\nsweeps: [{parameter: length, levels: [1]}]", "short text"),
        ("name: a\nenv_ids: Pendulum-v1\nsweeps: [{parameter: length, levels: [1]}]", "env_ids must be a list"),
        ("[", "not valid YAML"),
        ("", "must be a mapping"),
        ("!!python/object/apply:os.system [echo]", "not valid YAML"),
    ],
)
def test_a_malformed_suite_file_is_one_clear_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(content)
    with pytest.raises(EvaluationError, match=message) as caught:
        load_suite(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_conditions_and_grids_of_a_file_are_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nconditions:\n- []\n- [{parameter: length, level: 1.2}, {parameter: action_noise, level: 0.1}]\n"
    )
    assert [c.label for c in load_suite(path).for_system(system(ENV))] == ["nominal", "length x1.2, action_noise = 0.1"]
    path.write_text("name: g\ngrid: [{parameter: length, levels: '1:2:2'}, {parameter: mass, levels: [1, 2]}]")
    assert [c.level for c in load_suite(path).parts[0].conditions] == ["1;1", "1;2", "2;1", "2;2"]
    path.write_text(
        "name: b\nenvironments:\n- {env_ids: [Pendulum-v1], sweeps: [{parameter: length, levels: [0.5, 2], with: "
        "[{parameter: mass, level: 2}]}]}\n- {env_ids: [CartPole-v1], conditions: [[]]}\n"
    )
    blocks = load_suite(path)
    assert blocks.env_ids == ("Pendulum-v1", "CartPole-v1")
    labels = [c.label for c in blocks.for_system(system(ENV))]
    assert labels == ["nominal", "mass x2, length x0.5", "mass x2, length x2"]


def test_a_condition_that_changes_nothing_is_found() -> None:
    # The size of the window: an attribute like the others, and nothing moves differently with it.
    register_parameter(ParameterSpec("radius", "m", 0.0, 9.0, "absolute", "idle", env=ENV, attributes=("screen_dim",)))
    try:
        of = system(ENV)
        chosen = [Condition((Perturbation("radius", 3.0),)), Condition((Perturbation("mass", 1.1),))]
        ready = Suite.of("x", chosen).for_system(of)
        assert [c.label for c, _ in without_effect(of, ready)] == ["radius = 3"]
        # Hidden behind one that acts; and at both ends of a range, of which one is nominal.
        both = Condition((Perturbation("mass", 1.1), Perturbation("radius", 3.0)))
        moving = [Perturbation(name, end, "scale", "ramp", start=0.5) for name, end in (("length", 1.0), ("mass", 1.1))]
        idle = Perturbation("radius", 3.0, "absolute", "ramp", start=4.0)
        chosen = [both, *(Condition((p,)) for p in moving), Condition((idle,)), Condition((*moving, idle))]
        ready = [c for c in Suite.of("x", chosen).for_system(of) if not c.nominal]
        found = without_effect(of, ready)
        assert [p.parameter for _, p in found] == ["radius"] * 3
        assert [c for c, _ in found] == [ready[0], ready[3], ready[4]]
    finally:
        del perturbations._REGISTRY[ENV, "radius"]
        systems.forget()


def test_a_registered_parameter_is_offered_once() -> None:
    assert list(system(ENV).parameters)[:5] == ["length", "mass", "gravity", "max_torque", "dt"]
    for env_id, name in ((ENV, "length"), (ENV, "action_noise")):
        with pytest.raises(EvaluationError, match="already has"):
            register_parameter(ParameterSpec(name, "m", 0.0, 1.0, "scale", "again", env=env_id, attributes=("l",)))
    with pytest.raises(EvaluationError, match="needs the attributes"):
        register_parameter(ParameterSpec("width", "m", 0.0, 1.0, "scale", "none", env=ENV))


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("x=1e-7:5e-6:3", (1e-7, 2.55e-6, 5e-6)),
        ("x=1.85e-5:1.95e-5:2", (1.85e-5, 1.95e-5)),
        ("x=0.6:1.4:5", (0.6, 0.8, 1.0, 1.2, 1.4)),
        ("x=-1:1:3", (-1.0, 0.0, 1.0)),
        ("x=1e9:3e9:3", (1e9, 2e9, 3e9)),
        ("x=0:0:1", (0.0,)),
    ],
)
def test_levels_of_any_size_are_read_as_written(text: str, levels: tuple[float, ...]) -> None:
    assert parse_perturb(text).levels == levels


def test_levels_beyond_floating_point_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="not finite"):
        parse_perturb("length=-1.7e308:1.7e308:3")
    path = tmp_path / "huge.yaml"
    path.write_text(f"name: huge\nsweeps:\n  - {{parameter: length, levels: [{'9' * 400}]}}\n")
    with pytest.raises(EvaluationError, match="more than 64 bits"):
        load_suite(path)


def test_a_key_that_is_there_twice_and_what_is_no_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("name: twice\nsweeps:\n  - parameter: length\n    levels: [0.5]\n    levels: [0.9]\n")
    with pytest.raises(EvaluationError, match=r"line 5: the key 'levels' is there twice"):
        load_suite(path)
    for place in ("/dev/zero", str(tmp_path)):
        with pytest.raises(EvaluationError, match="not a file"):
            load_suite(Path(place))
