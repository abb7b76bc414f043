"""A model's `predict` is evaluated as Stable-Baselines3 and d3rlpy have it, and asked for deterministic actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from offline_robust.errors import EvaluationError
from offline_robust.evaluation import evaluate

Arrays = tuple[np.ndarray, Any]


class Model:
    """Stable-Baselines3's signature: a pair, and draws unless it is told not to."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self) -> None:
        self.asked: list[bool] = []

    def predict(
        self,
        observation: np.ndarray,
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> Arrays:
        self.asked.append(deterministic)
        noise = 0.0 if deterministic else np.random.default_rng().normal(size=(len(observation), 1))
        return np.clip(-2 * observation[:, 1:2] - observation[:, 2:3] + noise, -2, 2).astype(np.float32), state


def by_hand(observations: np.ndarray) -> np.ndarray:
    return np.clip(-2 * observations[:, 1:2] - observations[:, 2:3], -2, 2).astype(np.float32)


def returns(policy: Any, env: str = "Pendulum-v1", **options: Any) -> list[float]:
    return evaluate(policy, env, episodes=3, max_steps=40, **options).frame["return"].tolist()


def test_a_model_and_its_predict_are_the_policy_they_hold() -> None:
    model, wanted = Model(), returns(by_hand)
    assert returns(model) == wanted
    assert returns(model.predict) == wanted
    assert returns(lambda observations: model.predict(observations, deterministic=True)) == wanted
    assert all(model.asked)


def test_whoever_wants_draws_gives_a_function() -> None:
    model = Model()
    returns(lambda observations: model.predict(observations))
    assert not any(model.asked)


def test_a_predict_without_a_pair_is_taken_and_tensors_too() -> None:
    class Alone:
        def predict(self, x: np.ndarray) -> np.ndarray:
            return by_hand(x)

    class InTensors:
        def predict(self, x: np.ndarray) -> tuple[torch.Tensor, None]:
            return torch.from_numpy(by_hand(x)), None

    assert returns(Alone()) == returns(InTensors()) == returns(by_hand)


def test_act_goes_before_predict() -> None:
    class Both(Model):
        def act(self, observations: np.ndarray) -> np.ndarray:
            return by_hand(observations)

    model = Both()
    assert returns(model) == returns(by_hand)
    assert not model.asked


def test_discrete_models_are_taken() -> None:
    class Discrete:
        action_space = gym.spaces.Discrete(2)

        def predict(self, observation: np.ndarray, deterministic: bool = False) -> Arrays:
            assert deterministic
            return (observation[:, 2] > 0).astype(np.int64), None

    assert returns(Discrete(), "CartPole-v1") == returns(lambda o: (o[:, 2] > 0).astype(np.int64), "CartPole-v1")


def test_perturbed_conditions_ask_the_model_too() -> None:
    results = evaluate(Model(), "Pendulum-v1", perturb="mass=0.5,2", episodes=2, max_steps=20).frame
    wanted = evaluate(by_hand, "Pendulum-v1", perturb="mass=0.5,2", episodes=2, max_steps=20).frame
    assert results["return"].tolist() == wanted["return"].tolist()


REFUSED: dict[str, tuple[Any, str]] = {
    "recurrent": (lambda o: (by_hand(o), np.zeros((1, 8))), "it is recurrent"),
    "three things": (lambda o: (by_hand(o), None, None), "returns 3 things at once"),
    "the class itself": (Model, "got the class Model"),
    "no policy": (object(), r"has \.act\(observations\) or \.predict\(observations\), got object"),
    "actions alone, but wide": (lambda o: (np.zeros((len(o), 2), np.float32), None), r"of shape \(3, 2\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_policy_is_one_line(name: str) -> None:
    policy, said = REFUSED[name]
    with pytest.raises(EvaluationError, match=said) as caught:
        returns(policy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", [False, True])
def test_a_model_of_another_environment_is_refused_before_it_is_asked(method: bool) -> None:
    model = Model()
    with pytest.raises(EvaluationError, match=r"the policy takes observations of Box.*, CartPole-v1 has Box"):
        returns(model.predict if method else model, "CartPole-v1")
    model.observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    with pytest.raises(EvaluationError, match=r"the policy gives actions of Box.*, CartPole-v1 has Discrete\(2\)"):
        returns(model.predict if method else model, "CartPole-v1")
    assert not model.asked
