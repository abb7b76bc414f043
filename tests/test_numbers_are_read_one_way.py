"""A number is the same number wherever it is written: decimal, exponents with or without a dot; the rest is refused."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_robust import numerals
from offline_robust.cli import main
from offline_robust.collection import load_recipe
from offline_robust.envs import load_suite, suite_from_perturb
from offline_robust.errors import ConfigError, UserError
from offline_robust.evaluation.scores import read_scores
from offline_robust.experiments.config import load_config, parse_override
from offline_robust.plain_yaml import PlainLoader, dump_yaml
from offline_robust.sweeps.grids import load_sweep

TAKEN = {
    "0": 0, "8": 8, "-8": -8, "+8": 8, "10": 10, "1.5": 1.5, "1.": 1.0, ".5": 0.5, "-0.5": -0.5, "1e-4": 1e-4,
    "8e-1": 0.8, "1e5": 1e5, "1E5": 1e5, "1e+5": 1e5, "1.0e-05": 1e-5, "+1.5e3": 1500.0,
    "18446744073709551615": 2**64 - 1,
}  # fmt: skip
REFUSED = [
    "010", "008", "-010", "00", "00.5", "01e5", "0x10", "0X1F", "0b11", "0o17", "1_000", "1_0.5", "1__0", "1e999",
    "1e-999", "9" * 30, "9" * 5_000, "1" + "0" * 1_000_000, "0." + "1" * 1_000_000,
]  # fmt: skip
TEXT = ["1:1:1", "0.5:1.5:11", "190:20:30", "1.2.3", "1e", "e5", "1-2", "2024-01-01", "1m", "0.1-v2", "inf", "١", "1,5"]


def short(text: str) -> str:
    return text[:20]


def suite_at(folder: Path, level: str | None, levels: str = "") -> float:
    path = folder / "suite.yaml"
    path.write_text(f"name: a\nsweeps: [{{parameter: length, levels: {levels or f'[{level}]'}}}]\n")
    return load_suite(path).parts[0].conditions[0].perturbations[0].level


def recipe_at(folder: Path, epsilon: str) -> float | None:
    path = folder / "recipe.yaml"
    path.write_text(f"{{name: a, env_id: E-v0, seed: 0, description: '', transitions: 9, epsilon: {epsilon}}}")
    return load_recipe(path).epsilon


def sweep_at(folder: Path, value: str) -> float:
    path = folder / "sweep.yaml"
    path.write_text(f"base: sac/pendulum\ngrid: {{learner.alpha: [{value}]}}\n")
    return load_sweep(path).grid["learner.alpha"][0]


def config_at(folder: Path, value: str) -> float:
    path = folder / "config.yaml"
    path.write_text(f"dataset: pendulum-td3\nlearner: {{name: sac}}\nenv_kwargs: {{g: {value}}}\n")
    return load_config(path).env.kwargs["g"]


def scores_at(folder: Path, value: str) -> float:
    path = folder / "scores.yaml"
    part = f"{{mean: {value}, std: 1.0, episodes: 1, seed: 0}}"
    path.write_text(f"environments: {{E-v0: {{random: {part}, policies: {{a: {part}}}, versions: {{}}, command: ''}}}}")
    return read_scores(path)["E-v0"]["random"]["mean"]


READERS = {
    "--set": lambda folder, text: parse_override(f"a={text}")[1],
    "--perturb": lambda folder, text: (
        suite_from_perturb(f"length={text}").parts[0].conditions[0].perturbations[0].level
    ),
    "a suite": suite_at,
    "levels of a suite as text": lambda folder, text: suite_at(folder, None, f'"{text}"'),
    "a configuration": config_at,
    "a sweep": sweep_at,
    "score references": scores_at,
}


@pytest.mark.parametrize("text", TAKEN)
@pytest.mark.parametrize("reader", READERS)
def test_taken(reader: str, text: str, tmp_path: Path) -> None:
    if reader == "score references" and TAKEN[text] > 1e15:  # more than a score may be
        with pytest.raises(UserError, match=text):
            READERS[reader](tmp_path, text)
        return
    value = READERS[reader](tmp_path, text)
    if "--perturb" in reader or "as text" in reader:  # rounded to 12 digits
        assert value == pytest.approx(TAKEN[text], rel=1e-11)
        return
    assert value == TAKEN[text]
    if reader in ("--set", "a configuration", "a sweep"):
        assert type(value) is type(TAKEN[text])


@pytest.mark.parametrize("text", REFUSED, ids=short)
@pytest.mark.parametrize("reader", [*READERS, "a recipe"])
def test_refused_at_once_in_one_line(reader: str, text: str, tmp_path: Path) -> None:
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        (READERS | {"a recipe": recipe_at})[reader](tmp_path, text)
    said = str(caught.value)
    assert time.process_time() - start < 5
    assert "\n" not in said
    assert len(said) < 800
    assert short(text) in said or "larger than" in said or "expected KEY" in said, said


@pytest.mark.parametrize("text", TEXT)
def test_what_is_no_number_is_text(text: str) -> None:
    assert parse_override(f"a={text}")[1] == text
    with pytest.raises(ValueError, match="not a number"):
        numerals.decimal(text)


def test_a_range_of_whole_numbers_is_a_range(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text("name: a\nsweeps: [{parameter: length, levels: 1:2:3}]\n")  # 3,723 in base 60
    assert [c.perturbations[0].level for c in load_suite(path).parts[0].conditions] == [1.0, 1.5, 2.0]


@pytest.mark.parametrize("text", ['"010"', "'0x10'", '"1_000"', '"1e5"', '"1:1:1"'])
def test_text_in_quotes_is_text(text: str) -> None:
    assert parse_override(f"a={text}")[1] == text[1:-1]


@pytest.mark.parametrize("text", [".inf", "-.inf", "+.inf", ".INF", ".nan", ".NaN"])
def test_yaml_has_names_for_what_is_no_finite_number(text: str) -> None:
    value = parse_override(f"a={text}")[1]
    assert math.isnan(value) if "n" in text.lower().replace("inf", "") else value == float(text.replace(".", ""))


def test_tags_change_nothing() -> None:
    assert yaml.load("[!!float 3, !!int 3, !!str 010]", PlainLoader) == [3.0, 3, "010"]
    for text in ("!!int 010", "!!int 1.5", "!!float 1:30", "!!float 0x10", "!!int ''"):
        with pytest.raises(ConfigError):
            parse_override(f"a={text}")


@settings(derandomize=True, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63)
        | st.floats()
        | st.text()
        | st.sampled_from([*TAKEN, *TEXT, "010", "0x1", "1_0", "1e5", ".inf", "null", "yes", "~", "008"])
        | st.from_regex(r"[-+]?[0-9._:exob]{1,8}", fullmatch=True),
        lambda below: st.lists(below) | st.dictionaries(st.text(), below),
        max_leaves=10,
    )
)
def test_what_is_written_is_read_as_it_was(content: object) -> None:
    again = yaml.load(dump_yaml(content), PlainLoader)
    assert repr(again) == repr(content)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "sac/pendulum", "--seed"],
        ["evaluate", "pendulum-td3", "--episodes"],
        ["evaluate", "pendulum-td3", "--seed"],
        ["compare", "--dataset", "pendulum-td3", "--learners", "sac", "--dry-run", "--seeds"],
        ["compare", "--dataset", "pendulum-td3", "--learners", "sac", "--dry-run", "--steps"],
        ["sweep", "x.yaml", "--jobs"],
        ["bench", "--threads"],
        ["bench", "--rounds"],
        ["data", "collect", "--policy", "random", "--out", "x", "--env", "Pendulum-v1", "--transitions"],
        ["data", "collect", "--policy", "random", "--out", "x", "--env", "Pendulum-v1", "--epsilon"],
        ["data", "collect", "--policy", "random", "--out", "x", "--env", "Pendulum-v1", "--seed"],
    ],
    ids=lambda arguments: f"{arguments[0]} {arguments[-1]}",
)
@pytest.mark.parametrize("text", ["010", "1_0", "0x1", "٣", "9" * 5_000], ids=short)
def test_options(arguments: list[str], text: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["offline-robust", *arguments, text])
    with pytest.raises(SystemExit) as leaving:
        main()
    said = capsys.readouterr().err
    assert leaving.value.code == 2, said
    assert said.count("\n") == 1, said
    assert arguments[-1] in said
    assert not list(tmp_path.iterdir())


def test_a_set_of_a_million_digits_ends_at_once(tmp_path: Path) -> None:
    """In a process of its own, where nothing has lifted Python's own limit."""
    text = "from offline_robust.experiments.config import parse_override as p\ntry: p('a=' + '9' * 10**6)\n"
    text += "except Exception as e: print(type(e).__name__, len(str(e)) < 300)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["ConfigError", "True"]
