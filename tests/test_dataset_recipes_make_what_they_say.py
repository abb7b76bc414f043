"""A recipe is the whole truth about a dataset: it makes it, again and elsewhere, and the card tells what came out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from offline_robust.cli import data as data_cli
from offline_robust.collection import collect, collect_recipe, load_recipe, make_dataset
from offline_robust.datasets import bundled_names, load_dataset
from offline_robust.datasets.sources import made_folder
from offline_robust.environment import EnvironmentSpec
from offline_robust.envs import system
from offline_robust.errors import ConfigError, DatasetError, DatasetNotFound, UserError
from offline_robust.experiments import train
from offline_robust.files import bundled
from offline_robust.networks import Policy, build_actor, load_policy, policy_spec

RECIPE = {"name": "tiny", "env_id": "Pendulum-v1", "epsilon": 1.0, "transitions": 30, "seed": 0, "description": "x"}
PARTS = [
    {"policy": "own.safetensors", "stochastic": True, "epsilon": 0.0, "transitions": 250},
    {"epsilon": 0.5, "transitions": 150, "perturb": [{"parameter": "mass", "level": 2.0}]},
]


def recipe_file(path: Path, **changes: object) -> Path:
    content = {key: value for key, value in (RECIPE | changes).items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def mixture_file(path: Path) -> Path:
    own_policy().save(path.parent / "own.safetensors")
    return recipe_file(path, epsilon=None, transitions=None, parts=PARTS, notes="Mind the gap.")


def own_policy() -> Policy:
    spec = policy_spec("tanh_gaussian", 3, system("Pendulum-v1").action_space, (16,), EnvironmentSpec("Pendulum-v1"))
    return Policy(spec, build_actor(spec, torch.Generator().manual_seed(1)))


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bundled folders of the test's own, with one recipe without data and one policy."""
    monkeypatch.setattr("offline_robust.datasets.sources.bundled", lambda kind: tmp_path / kind)
    recipe_file(tmp_path / "datasets" / "tiny" / "recipe.yaml", policy="own", larger={"1k": 1_000})
    (tmp_path / "models" / "own").mkdir(parents=True)
    own_policy().save(tmp_path / "models" / "own" / "policy.safetensors")
    return tmp_path


def run(*words: str | Path) -> str:
    result = CliRunner().invoke(data_cli.app, [str(word) for word in words])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_a_recipe_writes_a_dataset_that_loads(tmp_path: Path) -> None:
    made = collect_recipe(recipe_file(tmp_path / "r.yaml"), tmp_path / "out")
    loaded = load_dataset(tmp_path / "out", cache=False)
    assert loaded.fingerprint == made.fingerprint
    assert loaded.provenance["dataset_id"] == "offline-robust/tiny-v0"
    with pytest.raises(DatasetError, match="exists already"):
        collect_recipe(tmp_path / "r.yaml", tmp_path / "out")


def test_existing_data_are_refused_before_anything_is_collected(tmp_path: Path) -> None:
    told: list[int] = []
    (tmp_path / "out" / "data").mkdir(parents=True)
    with pytest.raises(DatasetError, match="exists already"):
        collect_recipe(recipe_file(tmp_path / "r.yaml", transitions=5_000), tmp_path / "out", progress=told.append)
    assert told == []


def test_a_mixture_is_its_parts_one_after_the_other(tmp_path: Path) -> None:
    told: list[int] = []
    made = collect_recipe(mixture_file(tmp_path / "r.yaml"), progress=told.append)
    first = collect(own_policy(), "Pendulum-v1", transitions=250, stochastic=True, part=0)
    second = collect(None, "Pendulum-v1", transitions=150, epsilon=0.5, perturb="mass=2", part=1)
    for name in ("observations", "actions", "rewards", "next_observations", "truncated"):
        assert torch.equal(getattr(made, name), torch.cat([getattr(first, name), getattr(second, name)]))
    assert torch.bincount(made.episode).tolist() == [200, 50, 150]
    assert told == sorted(told)


def test_the_provenance_on_disk_says_how_each_part_was_made(tmp_path: Path) -> None:
    collect_recipe(mixture_file(tmp_path / "r.yaml"), tmp_path / "out")
    about = load_dataset(tmp_path / "out", cache=False).provenance["collection"]
    assert about["seed"] == 0
    assert [part["stochastic"] for part in about["parts"]] == [True, False]
    assert about["parts"][1]["perturb"] == [{"parameter": "mass", "level": 2.0, "mode": "scale"}]
    assert len(about["parts"][0]["policy_sha256"]) == 64
    assert about["parts"][1]["policy_sha256"] is None
    assert about["versions"]["numpy"] == np.__version__


def test_a_written_dataset_can_be_made_again_from_its_own_folder(tmp_path: Path) -> None:
    made = collect_recipe(mixture_file(tmp_path / "a" / "r.yaml"), tmp_path / "out")
    (tmp_path / "a" / "own.safetensors").unlink()
    (tmp_path / "out").rename(tmp_path / "moved")
    again = collect_recipe(tmp_path / "moved" / "recipe.yaml", tmp_path / "again")
    assert again.fingerprint == made.fingerprint


def test_the_card_s_figures_are_those_of_the_data(tmp_path: Path) -> None:
    made = collect_recipe(mixture_file(tmp_path / "r.yaml"), tmp_path / "out")
    card = (tmp_path / "out" / "card.md").read_text()
    assert made.fingerprint in card
    assert "400 transitions in 3 episodes" in card
    assert "| uniformly random | uniform | probability 0.5 | mass x2 | 150 | 1 |" in card
    assert "Mind the gap." in card
    returns = made.episode_returns().numpy()
    assert f"| returns | {returns.mean():,.2f} | {returns.std():,.2f} | {returns.min():,.2f} |" in card
    first, second = returns[:2], returns[2:]
    assert f"| 250 | 2 | {first.mean():,.1f} | {first.std():,.1f} |" in card
    assert f"| 150 | 1 | {second.mean():,.1f} | 0.0 |" in card


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epsilonn": 1.0}, "unknown key 'epsilonn'; did you mean 'epsilon'"),
        ({"epsilon": 2.0}, "epsilon: Input should be less than or equal to 1"),
        ({"epsilon": None}, "epsilon: missing (or parts)"),
        ({"transitions": "many"}, "transitions"),
        ({"seed": None}, "seed: missing"),
        ({"name": "../x"}, "name"),
        ({"env_id": "os:Pendulum-v1"}, "env_id"),
        ({"parts": [{"epsilon": 0.0, "transitions": 9}]}, "epsilon, transitions: belongs into the parts"),
        ({"perturb": [{"parameter": "mass", "levle": 2.0}]}, "'perturb.0.levle'; did you mean 'level'"),
        ({"perturb": [{"parameter": "mass", "level": 2.0, "mode": "twice"}]}, "perturb.0.mode: "),
        ({"larger": {"huge": 60}}, "larger.huge: sizes are called like 500k or 1m"),
        ({"larger": {"1k": 0}}, "larger.1k: 0 rows"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line(tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe_file(tmp_path / "r.yaml", **changes))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("- 1\n", "holds no keys"),
        ("1: 2\n", "holds no keys"),
        ("x" * 70_000, "larger than"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load_recipe(tmp_path / "r.yaml")
    assert "\n" not in str(caught.value)


def test_parts_must_share_a_larger_size_out_evenly(tmp_path: Path) -> None:
    changes = {"epsilon": None, "transitions": None, "parts": PARTS}
    recipe = load_recipe(recipe_file(tmp_path / "r.yaml", **changes, larger={"1k": 1_000}))
    assert [part.transitions for part in recipe.sized("1k").mixture] == [625, 375]
    with pytest.raises(ConfigError, match="1k: 1,001 rows cannot be shared out"):
        load_recipe(recipe_file(tmp_path / "r.yaml", **changes, larger={"1k": 1_001}))


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(DatasetNotFound, match="did you mean 'pendulum-td3'"):
        load_recipe("pendulum-td4")


def test_missing_data_are_one_line_with_the_command_that_makes_them(shelf: Path) -> None:
    for load in (load_dataset, lambda name: train({"dataset": name, "learner": {"name": "sac"}})):
        with pytest.raises(DatasetNotFound) as caught:
            load("tiny")
        assert "offline-robust data collect tiny`" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_known_dataset_is_made_once_and_then_loads_by_name(shelf: Path) -> None:
    told: list[int] = []
    made = make_dataset("tiny-1k", progress=told.append)
    assert (len(made), told[-1]) == (1_000, 1_000)
    assert load_dataset("tiny-1k").fingerprint == made.fingerprint
    assert make_dataset("tiny-1k", progress=lambda rows: pytest.fail("made again")).fingerprint == made.fingerprint
    assert make_dataset("tiny-1k", overwrite=True).fingerprint == made.fingerprint
    with pytest.raises(DatasetNotFound):
        load_dataset("tiny")


def test_a_larger_size_begins_with_the_smaller_one(shelf: Path) -> None:
    small, large = collect_recipe("tiny"), collect_recipe("tiny-1k")
    assert torch.equal(large.observations[:30], small.observations)
    assert torch.equal(large.actions[:30], small.actions)


@pytest.mark.parametrize("what", ["recipe", "policy"])
def test_data_of_an_older_recipe_or_policy_are_not_taken_for_the_new_one_s(shelf: Path, what: str) -> None:
    make_dataset("tiny")
    recipe_file(shelf / "datasets" / "tiny" / "recipe.yaml", policy="own", larger={"2k": 2_000}, description="y")
    assert len(load_dataset("tiny")) == 30
    if what == "recipe":
        recipe_file(shelf / "datasets" / "tiny" / "recipe.yaml", policy="own", seed=1)
    else:
        other = own_policy()
        torch.nn.init.ones_(other.actor.mean.bias)
        other.save(shelf / "models" / "own" / "policy.safetensors")
    with pytest.raises(DatasetNotFound, match="made on demand"):
        load_dataset("tiny")


def test_the_list_tells_what_is_shipped_made_and_to_be_made(shelf: Path) -> None:
    assert {row["name"]: row["data"] for row in json.loads(run("list", "--json"))} == {
        "tiny": "on demand",
        "tiny-1k": "on demand",
    }
    told = json.loads(run("collect", "tiny", "--json"))
    assert (told["transitions"], Path(told["path"])) == (30, made_folder("tiny") / "data")
    collect_recipe("tiny-1k", shelf / "elsewhere")
    (shelf / "elsewhere").rename(shelf / "datasets" / "shipped")
    rows = {row["name"]: row for row in json.loads(run("list", "--json"))}
    assert [rows[name]["data"] for name in ("tiny", "tiny-1k", "shipped")] == ["made", "on demand", "shipped"]
    assert rows["tiny-1k"]["transitions"] == 1_000
    assert json.loads(run("collect", "tiny", "--json")) == told
    with pytest.raises(DatasetError, match="are shipped"):
        run("collect", "shipped", "--overwrite")


def test_a_policy_of_one_s_own_collects_from_the_command_line(tmp_path: Path) -> None:
    own_policy().save(tmp_path / "run" / "policy.safetensors")
    words = ("--transitions", 300, "--epsilon", 0.2, "--seed", 5, "--stochastic", "--perturb", "mass=2")
    expected = collect(
        own_policy(), "Pendulum-v1", transitions=300, epsilon=0.2, seed=5, stochastic=True, perturb="mass=2"
    )
    for number, policy in enumerate((tmp_path / "run", tmp_path / "run" / "policy.safetensors")):
        out = tmp_path / f"My Data {number}"
        told = json.loads(run("collect", "--policy", policy, "--out", out, *words, "--json"))
        assert told["fingerprint"] == expected.fingerprint
        written = "".join((out / name).read_text() for name in ("recipe.yaml", "card.md", "data/metadata.json"))
        assert str(tmp_path) not in written
        assert load_dataset(out).env_id == "Pendulum-v1"
        assert collect_recipe(out / "recipe.yaml").fingerprint == expected.fingerprint
    words = ("--policy", "random", "--env", "CartPole-v1", "--transitions", 40)
    random = json.loads(run("collect", *words, "--out", tmp_path / "r", "--json"))
    assert random["fingerprint"] == collect(None, "CartPole-v1", transitions=40).fingerprint


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "either NAME"),
        (("pendulum-td3", "--policy", "random"), "either NAME"),
        (("--policy", "random", "--env", "Pendulum-v1"), "--out FOLDER"),
        (("--policy", "random", "--out", "x"), "give --env"),
        (("--policy", "nothing.safetensors", "--out", "x"), "no such policy file"),
        (("--policy", "pendulum-td3", "--epsilon", "2", "--out", "x"), "epsilon: Input should be less"),
        (("--policy", "pendulum-td3", "--env", "os:X-v0", "--out", "x"), "no environment 'X-v0'"),
        (("--policy", "pendulum-td3", "--perturb", "mass=1:2:3", "--out", "x"), "one level"),
        (("--policy", "pendulum-td3", "--stochastic", "--out", "x"), "no distribution"),
        (("--policy", "pendulum-td3", "--env", "CartPole-v1", "--out", "x"), "the policy takes 3 observations"),
    ],
)
def test_wrong_words_are_one_clear_line_and_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said) as caught:
        run("collect", *words)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", bundled_names())
def test_bundled_recipes_fit_their_environments_and_policies(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert re.match(r"[A-Z]", recipe.description)
    of = system(recipe.environment)
    for part in recipe.mixture:
        of.check([of.ready(change.perturbation()) for change in part.perturb])
        policy = load_policy(bundled("models") / str(part.policy) / "policy.safetensors")
        collect(policy, recipe.env_id, transitions=2, epsilon=part.epsilon, stochastic=part.stochastic)
