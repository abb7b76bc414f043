"""Observations with parts: the same numbers in the same order in the data, in evaluation and in Gymnasium."""

from __future__ import annotations

import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import SMALL

from offline_robust.datasets import check, describe, load_dataset, write_minari
from offline_robust.environment import (
    EnvironmentSpec,
    decode_space,
    dimension_names,
    encode_space,
    flat_actions,
    flat_observations,
    flatten,
    make_flat,
)
from offline_robust.errors import DatasetError, EvaluationError
from offline_robust.evaluation import evaluate
from offline_robust.experiments import train

BOX = spaces.Box(-1.0, 4.0, (3,), np.float32)
PUSH = spaces.Box(-1.0, 1.0, (2,), np.float32)
CUBE = spaces.Box(-1.0, 4.0, (2, 3, 2), np.float32)
GOAL = spaces.Dict({"place": BOX, "goal": spaces.Box(-5.0, 5.0, (2,), np.float64), "door": spaces.Discrete(3)})
UNSORTED = spaces.Dict([("z", spaces.Box(0.0, 1.0, (2,))), ("a", spaces.Box(0.0, 1.0, (1,)))])
DEEP = spaces.Tuple([BOX, spaces.Dict({"b": spaces.Tuple([spaces.Discrete(10, start=-3), PUSH]), "a": CUBE})])
NUMBERS: dict[str, gym.Space[Any]] = {
    "box": BOX,
    "float64": spaces.Box(-np.inf, np.inf, (4,), np.float64),
    "whole": spaces.Box(0, 200, (4,), np.uint8),
    "cube": CUBE,
    "single": spaces.Box(-1.0, 1.0, (), np.float32),
    "discrete": spaces.Discrete(5),
    "discrete-from-two": spaces.Discrete(10, start=2),
    "multi-discrete": spaces.MultiDiscrete([5, 2, 3]),
    "multi-binary": spaces.MultiBinary(10),
    "multi-binary-table": spaces.MultiBinary([2, 3]),
    "tuple-of-discrete": spaces.Tuple([spaces.Discrete(1), spaces.Discrete(5)]),
    "tuple": spaces.Tuple([BOX, spaces.Discrete(5)]),
    "dict": GOAL,
    "dict-unsorted": UNSORTED,
    "deep": DEEP,
}
ACTIONS: dict[str, gym.Space[Any]] = {
    "box": PUSH,
    "float64": spaces.Box(-2.0, 2.0, (2,), np.float64),
    "cube": CUBE,
    "whole": spaces.Box(0, 5, (2,), np.int64),
    "discrete": spaces.Discrete(4),
    "discrete-from-two": spaces.Discrete(4, start=2),
}
REFUSED: dict[str, tuple[gym.Space[Any], str]] = {
    "text": (spaces.Text(10), "texts are not numbers"),
    "text inside": (spaces.Dict({"a": BOX, "b": spaces.Tuple([spaces.Text(5)])}), r"\(b\.0\) are a Text space"),
    "image": (spaces.Box(0, 255, (8, 8, 3), np.uint8), "images"),
    "graph": (spaces.Graph(BOX, None), "graphs have no fixed number"),
    "sequence": (spaces.Sequence(BOX), "sequences have no fixed length"),
}
COMPOSITE: dict[str, gym.Space[Any]] = {
    "dict": spaces.Dict({"a": PUSH, "b": PUSH}),
    "tuple": spaces.Tuple([PUSH, spaces.Discrete(2)]),
    "multi-discrete": spaces.MultiDiscrete([3, 2]),
    "multi-binary": spaces.MultiBinary(4),
}


class Sampled(gym.Env[Any, Any]):
    """Observations drawn from its space; every action must lie in its own, and earns a number of its content."""

    observation: ClassVar[gym.Space[Any]] = BOX
    action: ClassVar[gym.Space[Any]] = PUSH

    def __init__(self) -> None:
        self.observation_space, self.action_space = deepcopy(self.observation), deepcopy(self.action)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._left = 5
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), (action, self.action_space)
        self._left -= 1
        plain = isinstance(self.action_space, spaces.Box | spaces.Discrete)
        reward = float(np.asarray(action, np.float64).sum()) if plain else 0.0
        return self.observation_space.sample(), reward, self._left == 0, False, {}


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers `Sampled-v0` with two spaces, for one test."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))

    def register(observation: gym.Space[Any], action: gym.Space[Any]) -> None:
        monkeypatch.setattr(Sampled, "observation", observation)
        monkeypatch.setattr(Sampled, "action", action)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gym.register("Sampled-v0", f"{__name__}:Sampled", max_episode_steps=100)
        from offline_robust.envs.systems import forget

        forget()

    yield register
    gym.registry.pop("Sampled-v0", None)


def _collected(form: str) -> Path:
    """Five episodes by Minari's collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = minari.DataCollector(gym.make("Sampled-v0"), data_format=form)
        env.action_space.seed(1)
        for seed in range(5):
            env.reset(seed=seed)
            done = False
            while not done:
                _, _, terminated, truncated, _ = env.step(env.action_space.sample())
                done = terminated or truncated
        made = env.create_dataset("sampled-v0", algorithm_name="x")
        env.close()
    return Path(made.storage.data_path)


def _expected(folder: Path) -> np.ndarray[Any, Any]:
    """What FlattenObservation shows of the same episodes."""
    data = minari.MinariDataset(folder)
    space, rows = data.observation_space, []
    for episode in data.iterate_episodes():
        for step in range(len(episode.rewards)):
            rows.append(spaces.flatten(space, _at(episode.observations, step)))
    return np.array(rows, np.float32)


def _at(values: Any, step: int) -> Any:
    if isinstance(values, dict):
        return {key: _at(below, step) for key, below in values.items()}
    return tuple(_at(below, step) for below in values) if isinstance(values, tuple) else values[step]


@pytest.mark.parametrize("form", ["hdf5", "arrow"])
@pytest.mark.parametrize("name", NUMBERS)
def test_observations_of_numbers_load_train_and_evaluate(
    name: str, form: str, registered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(NUMBERS[name], PUSH)
    folder = _collected(form)
    data = load_dataset(folder)
    if name != "dict-unsorted":  # Minari's own reader sorts the parts; the environment does not
        np.testing.assert_array_equal(data.observations.numpy(), _expected(folder))
    assert data.environment is not None
    seen = make_flat(data.environment)
    np.testing.assert_array_equal(
        np.asarray(seen.reset(seed=0)[0], np.float32), data.observations[0].numpy()
    )  # as Gymnasium's own flattening of the environment has it
    _trains_and_evaluates(folder, tmp_path)


@pytest.mark.parametrize("form", ["hdf5", "arrow"])
@pytest.mark.parametrize("name", ACTIONS)
def test_actions_of_numbers_load_train_and_evaluate(name: str, form: str, registered: Any, tmp_path: Path) -> None:
    registered(BOX, ACTIONS[name])
    folder = _collected(form)
    data = load_dataset(folder)
    logged = np.concatenate([episode.actions for episode in minari.MinariDataset(folder).iterate_episodes()])
    if data.discrete:
        assert int(data.actions.min()) >= 0
        np.testing.assert_array_equal(data.actions.numpy() + int(ACTIONS[name].start), logged)
    else:
        np.testing.assert_array_equal(data.actions.numpy(), logged.reshape(len(logged), -1).astype(np.float32))
    again = load_dataset(write_minari(data, tmp_path / "again"))
    assert again.fingerprint == data.fingerprint
    assert again.environment == data.environment
    _trains_and_evaluates(folder, tmp_path, learner="fqi" if data.discrete else "sac")


def _trains_and_evaluates(folder: Path, tmp_path: Path, learner: str = "sac") -> None:
    own: dict[str, Any] = dict(SMALL)
    if learner == "fqi":
        own |= {"density_filter": False}
    values = {
        "dataset": str(folder),
        "learner": {"name": learner, **own},
        "training": {"steps": 3, "log_every": 1, "batch_size": 8},
    }
    run = train(values, out=tmp_path / "run")
    results = evaluate(run.policy, run.environment, episodes=2, perturb="observation_noise=0,0.1")
    assert results.frame["length"].tolist() == [5] * 4
    assert np.isfinite(results.frame["return"]).all()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_numbers_ends_in_the_line_for_that_space(name: str, registered: Any) -> None:
    space, said = REFUSED[name]
    with pytest.raises(EvaluationError, match=said) as refused:
        flat_observations(space)
    assert "\n" not in str(refused.value)
    assert "FlattenObservation" not in str(refused.value)
    registered(space, PUSH)
    with pytest.raises(EvaluationError, match=said):
        make_flat(EnvironmentSpec("Sampled-v0"))
    if name in ("text", "text inside", "image"):  # Minari keeps no others
        folder = _collected("hdf5") if name != "image" else _image(registered)
        with pytest.raises(DatasetError, match=said) as refused_data:
            load_dataset(folder)
        assert "\n" not in str(refused_data.value)
        assert [problem.severity for problem in check(folder)] == ["error"]


def _image(registered: Any) -> Path:
    registered(spaces.Box(0, 255, (8, 8, 3), np.uint8), PUSH)
    return _collected("hdf5")


@pytest.mark.parametrize("name", COMPOSITE)
def test_composite_actions_end_in_one_line(name: str, registered: Any) -> None:
    with pytest.raises(EvaluationError, match="several parts at once"):
        flat_actions(COMPOSITE[name])
    registered(BOX, COMPOSITE[name])
    folder = _collected("hdf5")
    with pytest.raises(DatasetError, match="several parts at once") as refused:
        load_dataset(folder)
    assert "\n" not in str(refused.value)


SPACES = st.recursive(
    st.sampled_from([BOX, CUBE, PUSH, NUMBERS["discrete"], NUMBERS["discrete-from-two"], NUMBERS["multi-discrete"],
                     NUMBERS["multi-binary"], NUMBERS["whole"]]),
    lambda below: st.one_of(
        st.lists(below, min_size=1, max_size=3).map(spaces.Tuple),
        st.dictionaries(st.sampled_from(["b", "a", "goal", "z.z"]), below, min_size=1, max_size=3).map(
            lambda parts: spaces.Dict(list(parts.items()))
        ),
    ),
    max_leaves=6,
)  # fmt: skip


@given(SPACES, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_any_space_flattens_row_by_row_as_gymnasium_s(space: gym.Space[Any], seed: int) -> None:
    space.seed(seed)
    samples = [space.sample() for _ in range(4)]

    def read(path: tuple[str, ...]) -> np.ndarray[Any, Any]:
        rows = []
        for sample in samples:
            for key in path:
                sample = sample[key] if isinstance(sample, dict) else sample[int(key)]
            rows.append(sample)
        return np.array(rows)

    ours = flatten("here", space, read)
    theirs = np.array([spaces.flatten(space, sample) for sample in samples])
    np.testing.assert_array_equal(ours.astype(np.float64), theirs.astype(np.float64))
    names = dimension_names(space)
    assert names is None or len(names) == ours.shape[1]
    # By its JSON too, the order of parts included.
    again = decode_space("here", encode_space(space))
    assert encode_space(again) == encode_space(space)
    np.testing.assert_array_equal(flatten("here", again, read), ours)


def test_parts_are_named_in_the_description_and_perturbed_by_name(registered: Any) -> None:
    registered(GOAL, PUSH)
    data = load_dataset(_collected("hdf5"))
    names = describe(data)["observation_names"]
    assert names == [f"door[{k}]" for k in range(3)] + ["goal[0]", "goal[1]"] + [f"place[{k}]" for k in range(3)]
    assert data.environment is not None
    shown: list[np.ndarray[Any, Any]] = []

    def watch(seen: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        shown.append(seen.copy())
        return np.zeros((len(seen), 2), np.float32)

    evaluate(watch, data.environment, episodes=2, perturb="observation_bias.goal=0,0.5")
    difference = np.array(shown[1::2], np.float64) - np.array(shown[0::2], np.float64)  # the conditions take turns
    np.testing.assert_allclose(difference[..., 3:5], 0.5, atol=1e-6)  # of float32 sums
    assert not difference[..., [0, 1, 2, 5, 6, 7]].any()


def test_a_whole_number_outside_its_space_is_named() -> None:
    with pytest.raises(EvaluationError, match=r"here\.a: holds 7, outside Discrete\(3\)"):
        flatten("here", spaces.Dict({"a": spaces.Discrete(3)}), lambda path: np.array([0, 7]))


def test_the_order_of_the_data_s_parts_is_kept_where_an_environment_has_another(registered: Any) -> None:
    registered(UNSORTED, PUSH)
    spec = EnvironmentSpec("Sampled-v0", observation_space=spaces.Dict({"a": UNSORTED["a"], "z": UNSORTED["z"]}))
    first, own = make_flat(spec).reset(seed=0)[0], make_flat("Sampled-v0").reset(seed=0)[0]
    np.testing.assert_array_equal(first, own[[2, 0, 1]])


def test_flattening_when_collecting_evaluates_as_it_was_collected(registered: Any, tmp_path: Path) -> None:
    registered(GOAL, PUSH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = minari.DataCollector(gym.wrappers.FlattenObservation(gym.make("Sampled-v0")))
        for seed in range(3):
            env.reset(seed=seed)
            done = False
            while not done:
                *_, terminated, truncated, _ = env.step(env.action_space.sample())
                done = terminated or truncated
        folder = Path(env.create_dataset("flat-v0", algorithm_name="x").storage.data_path)
    data = load_dataset(folder)
    assert data.observations.dtype == torch.float32
    _trains_and_evaluates(folder, tmp_path)
