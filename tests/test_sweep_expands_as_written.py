"""A sweep is data: what it expands to, in which order and under which names, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from sweep_toys import base, write_sweep

from offline_robust.errors import ConfigError
from offline_robust.experiments.config import parse_override
from offline_robust.sweeps.comparison import load_comparison
from offline_robust.sweeps.grids import MAX_CELLS, digest, expand, load_sweep
from offline_robust.sweeps.picks import select, wandb_sweep


def names(**values: Any) -> list[str]:
    return [cell.name for cell in expand(load_sweep({"base": base()} | values))]


def test_seeds_come_outermost_then_the_list_then_the_grids_last_key_fastest() -> None:
    found = names(
        list=[{"name": "small", "learner.hidden": [8, 8]}, {"learner.discount": 0.9}],
        grid={"learner.tau": [0.005, 0.01], "training.steps": [10, 20]},
        seeds=[3, 0],
    )
    points = [f"tau={tau}-training.steps={steps}" for tau in ("0.005", "0.01") for steps in (10, 20)]
    assert found == [
        f"{item}-{point}-seed{seed}" for seed in (3, 0) for item in ("small", "discount=0.9") for point in points
    ]


def test_every_run_has_the_values_its_name_says_and_one_evaluation_serves_all() -> None:
    cells = expand(load_sweep({"base": base(), "grid": {"learner.tau": [0.005, 0.01]}, "evaluation": {"episodes": 7}}))
    assert [cell.config.learner.tau for cell in cells] == [0.005, 0.01]  # type: ignore[attr-defined]
    assert {cell.config.evaluation.episodes for cell in cells} == {7}
    first = base() | {"evaluation": {"suite": "pendulum-mass", "episodes": 3}}
    second = base() | {"evaluation": {"suite": "pendulum-length"}, "learner": {"name": "sac", "hidden": [8, 8]}}
    cells = expand(load_sweep({"list": [{"name": "a", "base": first}, {"name": "b", "base": second}]}))
    assert {(c.config.evaluation.suite, c.config.evaluation.episodes) for c in cells} == {("pendulum-mass", 3)}


def test_names_do_not_depend_on_what_else_is_in_the_sweep() -> None:
    few = names(grid={"learner.tau": [0.01]})
    many = names(grid={"learner.tau": [0.005, 0.01, 0.02]}, seeds=4)
    assert set(few) <= set(many)
    assert few == ["tau=0.01-seed0"]
    assert names() == ["base-seed0"]


def test_names_are_safe_folders_however_long_or_strange_the_values() -> None:
    (long,) = names(list=[{"name": "x" * 500}])
    (strange,) = names(list=[{"name": "../a b/ü:*?"}])
    assert len(long) < 150
    assert strange == "a-b-seed0"


def test_the_resolved_file_makes_the_same_cells(tmp_path: Path) -> None:
    sweep = load_sweep(
        {"list": [{"base": "sac/pendulum"}, {"base": "dr_sac/pendulum", "learner.delta": 0.1}], "seeds": 2}
    )
    written = yaml.safe_load(yaml.safe_dump(sweep.to_dict()))
    assert written["list"][0]["base"]["learner"]["name"] == "sac"  # nothing is left to look up
    before, after = expand(sweep), expand(load_sweep(written))
    assert [cell.name for cell in before] == [cell.name for cell in after]
    assert [digest(cell.config) for cell in before] == [digest(cell.config) for cell in after]


def test_picks_choose_by_value_position_and_name() -> None:
    sweep = load_sweep(
        {
            "base": base(),
            "list": [{"name": "one", "learner.discount": 0.9}, {"name": "two", "learner.discount": 0.99}],
            "grid": {"learner.actor_learning_rate": [1e-5, 0.001]},
            "seeds": 2,
        }
    )
    cells = expand(sweep)
    # 1e-05 is how W&B spells that number.
    chosen = select(cells, [("seed", 1), ("list", "two"), parse_override("learner.actor_learning_rate=1e-05")], sweep)
    assert [cell.name for cell in chosen] == ["two-actor_learning_rate=1e-05-seed1"]
    assert len(select(cells, [("list", 0)], sweep)) == 4
    with pytest.raises(ConfigError, match="did you mean 'learner\\.actor_learning_rate'"):
        select(cells, [("learner.actor_learningrate", 1)], sweep)
    with pytest.raises(ConfigError, match="no run of the sweep has seed=9"):
        select(cells, [("seed", 9)], sweep)


def test_the_wandb_sweep_reaches_every_run_exactly_once() -> None:
    sweep = load_sweep(
        {
            "base": base(),
            "list": [{"learner.discount": 0.9}, {"name": "two", "learner.hidden": [8, 8]}],
            "grid": {"learner.tau": [0.005, 0.01]},
            "seeds": 2,
        }
    )
    cells = expand(sweep)
    content = wandb_sweep(sweep, cells, "small.yaml", "runs/small")
    assert content["method"] == "grid"
    assert content["command"][:4] == ["${env}", "${program}", "sweep", "small.yaml"]
    reached = []
    for tau in content["parameters"]["learner.tau"]["values"]:
        for item in content["parameters"]["list"]["values"]:
            for seed in content["parameters"]["seed"]["values"]:
                reached += select(cells, [("learner.tau", tau), ("list", item), ("seed", seed)], sweep)
    assert sorted(cell.name for cell in reached) == sorted(cell.name for cell in cells)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"seed": 3}, "unknown key 'seed'; did you mean 'seeds'"),
    "unknown evaluation key": ({"evaluation": {"episode": 3}}, "unknown key 'evaluation.episode'; did you mean"),
    "unknown grid section": ({"grid": {"lerner.tau": [0.1]}}, "unknown key 'lerner.tau'; did you mean 'learner'"),
    "unknown grid key": ({"grid": {"learner.tua": [0.1]}}, "unknown key 'learner.tua'; did you mean 'tau'"),
    "value out of range": ({"grid": {"learner.tau": [0.01, 7]}}, "tau=7-seed0: learner.tau: "),
    "no values": ({"grid": {"learner.tau": []}}, "'learner.tau' has no values"),
    "empty grid": ({"grid": {}}, "grid: is empty"),
    "empty list": ({"list": []}, "list: is empty"),
    "not a list": ({"grid": {"learner.tau": 0.1}}, "grid.learner.tau"),
    "the same value twice": ({"grid": {"learner.tau": [0.01, 0.01]}}, "would be called 'tau=0.01-seed0'"),
    "the same run twice": ({"list": [{"name": "a"}, {"name": "b"}]}, "'a-seed0' and 'b-seed0' are the same run"),
    "seeds twice": ({"seeds": [1, 1]}, "seeds: a list of different whole numbers"),
    "no seeds": ({"seeds": 0}, "seeds: a count from 1"),
    "too many seeds": ({"seeds": 10**9}, "seeds: a count from 1"),
    "a seed in the grid": ({"grid": {"seed": [1, 2]}}, "seeds have a key of their own"),
    "evaluation in the grid": ({"grid": {"evaluation.episodes": [1, 2]}}, "all runs are evaluated alike"),
    "grid and list set one key": (
        {"grid": {"learner.tau": [0.1, 0.2]}, "list": [{"learner.tau": 0.3}]},
        "'learner.tau' is in the grid and in the list",
    ),
    "too many runs": (
        {"grid": {"learner.tau": [0.1] * 101, "learner.discount": [0.9] * 100}},
        f"at most {MAX_CELLS:,}",
    ),
    "too many with seeds": ({"grid": {"learner.tau": [0.1] * 101}, "seeds": 100}, f"at most {MAX_CELLS:,}"),
    "unknown base": ({"base": "sac/pendulm"}, "did you mean 'sac/pendulum'"),
    "no base": ({"base": None}, "base is missing"),
    "unknown learner": ({"list": [{"learner": {"name": "sack"}}]}, "did you mean 'sac'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_run_is_refused_in_one_line(case: str) -> None:
    values, said = REFUSED[case]
    with pytest.raises(ConfigError) as refused:
        expand(load_sweep({"base": base()} | values))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_names_the_nearest_and_a_broken_one_its_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such sweep file"):
        load_sweep(tmp_path / "none.yaml")
    path = write_sweep(tmp_path)
    path.write_text("- a list")
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_sweep(path)
    path.write_text("base: &a [*a]")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_sweep(path)
    path.write_text("base: !!python/object/apply:os.system [ls]")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_sweep(path)


def test_every_bundled_sweep_expands() -> None:
    from offline_robust.files import bundled

    found = sorted(path.stem for path in (bundled("configs") / "sweeps").glob("*.yaml"))
    assert found
    for name in found:
        if "-learners" in name:
            with pytest.raises(ConfigError, match=f"compare {name}"):
                load_sweep(name)
            assert load_comparison(name).learners
        else:
            assert expand(load_sweep(name), name)
