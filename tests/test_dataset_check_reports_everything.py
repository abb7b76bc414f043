"""`check` lists every finding with its rows, errors first; and loads exactly what has no error."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from dataset_files import columns, d4rl_file, episode, minari_folder

from offline_robust.datasets import Finding, check, load_dataset
from offline_robust.errors import DatasetError


def find(problems: list[Finding], words: str) -> Finding:
    (found,) = [problem for problem in problems if words in problem.what]
    return found


def test_good_data_have_no_findings(tmp_path: Path) -> None:
    spaces = {"env": "Pendulum-v1"}
    found = check(d4rl_file(tmp_path / "x.hdf5", columns(12, ends={3: "terminal", 11: "timeout"})), **spaces)
    assert [problem for problem in found if "from the states" not in problem.what] == []  # random numbers, no pendulum
    assert check(minari_folder(tmp_path / "m", [episode(3), episode(2, seed=1)])) == []


def test_every_problem_of_a_flat_file_is_listed_with_its_rows(tmp_path: Path) -> None:
    content = columns(20, ends={3: "both", 7: "unmarked", 11: "timeout"})
    content["rewards"][[2, 5]] = np.nan
    content["observations"][9, 1] = np.inf
    content["next_observations"][8, 1] = np.inf
    content["actions"][13] = 2.5
    content["timeouts"][15] = True
    content["terminals"][17] = True
    problems = check(d4rl_file(tmp_path / "x.hdf5", content), env="Pendulum-v1")
    rows = {
        ("rewards", "NaN"): ("error", (2, 5)),
        (": observations", "NaN"): ("error", (9,)),
        ("next_observations", "NaN"): ("error", (8,)),
        ("actions", "outside the action space"): ("warning", (13,)),
        ("terminals", "both end flags"): ("warning", (3,)),
        ("next_observations", "no end flag"): ("warning", (7,)),
        ("timeouts", "mid-episode"): ("warning", (15,)),
        ("next_observations", "terminal row with the next episode's first"): ("warning", (17,)),
        ("terminals", "after the last end flag"): ("warning", (18, 19)),
    }
    for (key, words), (severity, where) in rows.items():
        (found,) = [p for p in problems if p.where.endswith(key) and words in p.what]
        assert (found.severity, found.rows, found.count) == (severity, where, len(where))
        assert found.mend
    assert len(problems) == len(rows)
    assert [p.severity for p in problems] == sorted(p.severity for p in problems)


def test_every_bad_episode_of_a_minari_folder_is_listed(tmp_path: Path) -> None:
    episodes = [
        episode(3),
        episode(3, seed=1, observations=np.zeros((3, 3))),
        episode(3, seed=2, observations=np.zeros((4, 5))),
        episode(0, seed=3),
        episode(3, seed=4, terminated=False),
        episode(3, seed=5, terminated=True, truncated=True),
        episode(3, seed=6, rewards=np.array([0.0, np.nan, 0.0])),
        episode(3, seed=7, terminations=np.array([True, False, True])),
    ]
    problems = check(minari_folder(tmp_path / "x", episodes, numbers=[0, 1, 2, 3, 4, 5, 6, 8]))
    by_place = {
        "episode_1: observations": ("error", "has 3 rows for 3 transitions"),
        "episode_2: observations": ("error", "width"),
        "episode_3": ("warning", "no transitions"),
    }
    for place, (severity, words) in by_place.items():
        (found,) = [problem for problem in problems if problem.where.endswith(place)]
        assert found.severity == severity
        assert words in found.what
    for words, place in {
        "end without a flag": "episode_4, row 2",
        "both end flags": "episode_5, row 2",
        "NaN": "episode_6, row 1",
        "flag inside an episode": "episode_8, row 0",
    }.items():
        assert place in find(problems, words).what
    assert "episode_7 is missing" in find(problems, "is missing").what
    assert len(problems) == 8


def test_constant_dimensions_are_listed() -> None:
    content = columns(8)
    for key in ("observations", "next_observations"):
        content[key][:, 1] = 4.5
    assert "dimension 1 is 4.5 in every row" in find(check(content), "dimension").what


@pytest.mark.parametrize("form", ["arrays", "npz", "d4rl"])
def test_an_action_space_that_is_no_more_than_the_data_is_told(form: str, tmp_path: Path) -> None:
    """A discrete action that was never logged disappears otherwise, and bounds end where the data do."""

    def source(**changes: object) -> object:
        content = columns(12, ends={11: "timeout"}, **changes)
        if form == "npz":
            np.savez(tmp_path / "x.npz", **content)
            return tmp_path / "x.npz"
        return content if form == "arrays" else d4rl_file(tmp_path / "x.hdf5", content)

    found = find(check(source(actions=np.arange(12) % 2)), "no action space is stated")
    assert (found.severity, found.where.rsplit(": ")[-1]) == ("warning", "actions")
    assert "2 by the largest action, and one that was never logged is missing" in found.what
    assert "env" in found.mend
    actions = np.linspace(-0.75, 0.5, 12)[:, None]
    found = find(check(source(actions=actions)), "no action space is stated")
    assert "the range of the data is taken (-0.75 to 0.5), and the true one may be wider" in found.what
    assert not [p for p in check(source(actions=actions), env="Pendulum-v1") if "no action space" in p.what]


def test_stated_action_spaces_are_no_finding(tmp_path: Path) -> None:
    assert check(minari_folder(tmp_path / "m", [episode(3)])) == []
    content = columns(12, ends={11: "timeout"}) | {"action_space": gym.spaces.Box(-2, 2, (1,))}
    assert check(content) == []


def test_rewards_that_are_all_zero_are_told_and_other_constants_are_not() -> None:
    content = columns(8, ends={7: "timeout"}, rewards=np.zeros(8)) | {"action_space": gym.spaces.Box(-2, 2, (1,))}
    assert find(check(content), "is 0 in every row").where == "arrays: rewards"
    assert check(content | {"rewards": np.ones(8)}) == []


def test_the_refusal_counts_the_other_errors() -> None:
    content = columns(8)
    content.pop("next_observations")
    content["rewards"][2] = content["observations"][3, 0] = np.nan
    with pytest.raises(DatasetError, match="1 more: `offline-robust data check` lists them"):
        load_dataset(content)
    assert sum(problem.severity == "error" for problem in check(content)) == 2


def test_findings_are_plain_data() -> None:
    import json

    content = columns(8)
    content["rewards"][2] = np.nan
    (found,) = json.loads(json.dumps([problem.as_dict() for problem in check(content) if problem.severity == "error"]))
    assert found["rows"] == [2]
    assert found["where"] == "arrays: rewards"
