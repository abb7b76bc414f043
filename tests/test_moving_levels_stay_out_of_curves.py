"""What a figure or a table may take for a sweep: never a level that moves, and others only where they hold still."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_report_stands_alone import Page, two_learners
from test_statistics_match_their_definitions import table

from offline_robust.envs import Axis, Condition, Perturbation, grid, suites
from offline_robust.evaluation import Results, by_severity, per_condition, per_parameter
from offline_robust.evaluation.levels import far, grids, moving, severities, sides, sweeps
from offline_robust.evaluation.results import results_frame
from offline_robust.evaluation.statistics import area
from offline_robust.reports import heat_figure, level_figure, write_report

ENV = "Pendulum-v1"
LEVELS = (0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.3, 1.4)
RAMP = Condition((Perturbation("length", 0.5, "scale", "ramp", period=50),))
CYCLE = Condition((Perturbation("mass", 1.4, "scale"), Perturbation("length", 1.4, "scale", "cycle", start=0.6)))


def rows(conditions: list[Condition]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "condition": [c.label for c in conditions],
            "nominal": [c.nominal for c in conditions],
            "perturbation": [c.perturbation for c in conditions],
            "level": [c.level for c in conditions],
            "mode": [c.mode for c in conditions],
        }
    )


def results(conditions: list[Condition], trainings: int = 2, episodes: int = 4) -> Results:
    """Returns that fall with the distance from nominal, faster above than below."""
    rng, frames = np.random.default_rng(0), []
    for training in range(trainings):
        for condition, row in zip(conditions, rows(conditions).to_dict("records"), strict=True):
            shift = sum(p.level - 1.0 for p in condition.perturbations)
            mean = -100.0 - (400.0 if shift > 0 else 200.0) * abs(shift)
            fixed = {"run": f"r{training}", "learner": "x", "training_seed": training, "env_id": ENV}
            frames.append(
                results_frame(
                    fixed
                    | {str(key): value for key, value in row.items()}
                    | {
                        "episode": np.arange(episodes),
                        "episode_seed": np.arange(episodes),
                        "return": mean + rng.normal(size=episodes),
                        "length": 200,
                        "terminated": False,
                    }
                )
            )
    return Results(pd.concat(frames, ignore_index=True))


def test_a_moving_level_is_in_no_curve_and_never_far(tmp_path: Path) -> None:
    conditions = [Condition(nominal=True), *suites.sweeps([Axis("length", LEVELS, "scale")]), RAMP, CYCLE]
    frame = rows(conditions)
    assert list(frame["mode"].iloc[-2:]) == ["scale ramp", "scale;scale cycle"]
    assert moving(frame).tolist() == [False] * 9 + [True] * 2
    (sweep,) = sweeps(frame, ENV)
    np.testing.assert_array_equal(sweep.levels, sorted([*LEVELS, 1.0]))
    assert set(sweep.index) == set(range(9))
    assert not far(frame, ENV)[-2:].any()
    assert sides(frame, ENV)[-2:].tolist() == [0, 0]
    made = results(conditions)
    figure = level_figure(made)
    assert figure is not None
    thick = [line for line in figure.axes[0].get_lines() if line.get_linewidth() > 2]
    np.testing.assert_allclose(np.asarray(thick[0].get_xdata(), float), sorted([*LEVELS, 1.0]))
    write_report(tmp_path / "r.html", made)
    text = Page((tmp_path / "r.html").read_text()).text
    assert f"{RAMP.label}moves" in text
    assert list(per_condition(made)["condition"])[-2:] == [RAMP.label, CYCLE.label]


def test_only_moving_levels_make_a_table_and_no_figure(tmp_path: Path) -> None:
    made = results([Condition(nominal=True), RAMP, CYCLE])
    assert level_figure(made) is None
    assert heat_figure(made) is None
    write_report(tmp_path / "r.html", made)
    assert RAMP.label in Page((tmp_path / "r.html").read_text()).text


def test_what_holds_still_beside_a_sweep_is_named_and_makes_no_level_far() -> None:
    held = (Perturbation("mass", 1.5, "scale"),)
    conditions = [Condition(nominal=True), *suites.sweeps([Axis("length", (1.0, 1.2, 2.0), "scale", held)])]
    (sweep,) = sweeps(rows(conditions), ENV)
    assert sweep.label == "length, with mass x1.5"
    np.testing.assert_array_equal(sweep.index, [1, 2, 3])  # the nominal system has another mass: it does not join
    assert np.isnan(sweep.nominal)
    assert far(rows(conditions), ENV).tolist() == [False, False, False, True]
    assert grids(rows(conditions)) == []


def test_a_diagonal_is_no_grid_and_several_grids_are_several() -> None:
    diagonal = [Condition((Perturbation("length", v, "scale"), Perturbation("mass", v, "scale"))) for v in LEVELS]
    assert grids(rows(diagonal)) == []
    assert sweeps(rows(diagonal), ENV) == []
    both = [
        *grid([Axis("length", (0.9, 1.1), "scale"), Axis("mass", (1.0, 2.0), "scale")]),
        *grid([Axis("gravity", (0.9, 1.1), "scale"), Axis("mass", (1.0, 2.0, 3.0), "scale")]),
    ]
    assert [found.index.shape for found in grids(rows(both))] == [(2, 2), (2, 3)]


def test_quartiles_pair_distances_and_keep_the_sides_apart() -> None:
    conditions = [
        Condition(nominal=True),
        *suites.sweeps([Axis("length", LEVELS, "scale"), Axis("mass", LEVELS, "scale")]),
    ]
    known = severities(rows(conditions), ENV)
    assert [own.parameter for own in known] == ["length", "mass"]
    assert known[0].quartile.tolist() == [4, 3, 2, 1, 1, 2, 3, 4]
    assert known[0].side.tolist() == [-1] * 4 + [1] * 4
    five = Axis("length", tuple(round(1.0 + d / 10, 1) for d in range(-5, 6)), "scale")
    (own,) = severities(rows([*suites.sweeps([five])]), ENV)
    assert own.quartile.tolist() == [4, 4, 3, 2, 1, 1, 2, 3, 4, 4]
    made = results(conditions)
    found = by_severity(made).set_index(["parameter", "side", "quartile"])
    means = per_condition(made).set_index("condition")["value"]
    for parameter in ("length", "mass"):
        at = found.loc[parameter]
        np.testing.assert_allclose(at.loc[("below", 4), "value"], means[f"{parameter} x0.6"])
        np.testing.assert_allclose(at.loc[("above", 1), "value"], means[f"{parameter} x1.1"])
        expected = means[[f"{parameter} x0.7", f"{parameter} x1.3"]].mean()
        np.testing.assert_allclose(at.loc[("both", 3), "value"], expected)
    all_four = means[[label for label in means.index if label != "nominal"]].mean()
    np.testing.assert_allclose(found.loc[("", "both", 0), "value"], all_four)
    assert found.loc[("", "above", 4), "conditions"] == 2
    assert found.loc[("", "above", 4), "value"] < found.loc[("", "below", 4), "value"] - 50
    assert (found["low"] <= found["value"]).all()


@pytest.mark.parametrize(
    "levels",
    [(0.6, 0.7, 0.8, 0.9, 1.0), (0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.3, 1.5), (0.7, 0.8, 0.9, 1.1, 1.2, 1.3)],
    ids=["one side", "not paired", "too few"],
)
def test_sweeps_that_do_not_pair_have_no_quartiles(levels: tuple[float, ...]) -> None:
    conditions = [Condition(nominal=True), *suites.sweeps([Axis("length", levels, "scale")])]
    assert severities(rows(conditions), ENV) == []
    made = results(conditions)
    assert by_severity(made).empty


def test_the_area_and_the_worst_level_of_each_parameter_are_its_own() -> None:
    conditions = [
        Condition(nominal=True),
        *suites.sweeps([Axis("length", LEVELS, "scale"), Axis("mass", (1.1, 3.0), "scale")]),
    ]
    made = results([*conditions, RAMP])
    found = per_parameter(made).set_index(["parameter", "statistic"])
    means = per_condition(made).set_index("condition")["value"]
    for parameter, levels in (("length", sorted([*LEVELS, 1.0])), ("mass", [1.0, 1.1, 3.0])):
        curve = np.array([means["nominal" if v == 1.0 else f"{parameter} x{v:g}"] for v in levels])
        np.testing.assert_allclose(found.loc[(parameter, "area"), "value"], area(curve, np.array(levels)))
        np.testing.assert_allclose(found.loc[(parameter, "worst_level"), "value"], curve.min())
    assert found.loc[("mass", "worst_level"), "condition"] == "mass x3"
    assert (found["trainings"] == 2).all()
    assert per_parameter(results([Condition(nominal=True), RAMP])).empty


def test_the_worst_condition_the_protocol_and_the_versions_are_on_the_page(tmp_path: Path) -> None:
    made = Results(
        two_learners().frame,
        {"suite": "s", "env_id": ENV, "episodes": 10, "seed": 0, "checkpoint": "last", "policy": "deterministic",
         "versions": {"mujoco": "3.17.0", "torch": "2.13"}, "page": {"runs": ["/somewhere/else"]}},
    )  # fmt: skip
    write_report(tmp_path / "r.html", made)
    text = Page((tmp_path / "r.html").read_text()).text
    assert "last, fixed before evaluation; deterministic policy" in text
    assert "mujoco 3.17.0, torch 2.13" in text
    assert "/somewhere/else" not in text
    lowest = table(np.tile(np.linspace(-900.0, -100.0, 11)[None, :, None], (2, 1, 3)))
    write_report(tmp_path / "r.html", lowest)
    assert "−900−900 to −900length x0.5" in Page((tmp_path / "r.html").read_text()).text


def test_parts_evaluated_with_other_versions_are_said_out_loud(tmp_path: Path) -> None:
    one, two = two_learners().frame, two_learners(a="c", b="d").frame
    both = Results.concat(
        [Results(one, {"versions": {"mujoco": "3.1"}}), Results(two, {"versions": {"mujoco": "3.2"}})]
    )
    write_report(tmp_path / "r.html", both)
    text = Page((tmp_path / "r.html").read_text()).text
    assert "mujoco 3.1" in text
    assert "mujoco 3.2" in text
    assert "Not everything was evaluated with the same versions" in text
