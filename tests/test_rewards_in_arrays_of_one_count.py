"""Environments that wrap a number in an array of one are evaluated and collected as if they did not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from offline_robust.collection import collect
from offline_robust.datasets.transitions import TENSORS
from offline_robust.errors import EvaluationError
from offline_robust.evaluation import evaluate

Wrap = Callable[[Any], Any]


class Line(gym.Env):
    """A point on a line that earns where it is, and ends beyond 3; the answer is wrapped as asked."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    reward: Wrap = staticmethod(lambda value: value)
    flag: Wrap = staticmethod(lambda value: value)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.place = self.np_random.normal()
        return np.array([self.place], np.float32), {}

    def step(self, action: np.ndarray) -> tuple:
        self.place += float(action[0]) + 0.3
        ended = type(self).flag(self.place > 3)
        return np.array([self.place], np.float32), type(self).reward(self.place), ended, type(self).flag(False), {}


WRAPS: dict[str, Wrap] = {
    "plain": lambda value: value,
    "float32": lambda value: np.float64(value) if not isinstance(value, bool) else np.bool_(value),
    "array of one": lambda value: np.array([value]),
    "column": lambda value: np.array([[value]]),
    "array of none": lambda value: np.array(value),
    "tensor": lambda value: torch.tensor([value], dtype=torch.float64),
    "list": lambda value: [value],
}


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> type[Line]:
    kind = type("Wrapped", (Line,), {})
    spec = gym.envs.registration.EnvSpec("Line-v0", entry_point=kind, max_episode_steps=12)
    monkeypatch.setitem(gym.registry, "Line-v0", spec)
    return kind


def push(observations: np.ndarray) -> np.ndarray:
    return np.full((len(observations), 1), 0.25, np.float32)


def outcome() -> tuple[list, list, Any]:
    frame = evaluate(push, "Line-v0", episodes=5, seed=3).frame
    return frame["return"].tolist(), frame["terminated"].tolist(), collect(None, "Line-v0", transitions=40)


@pytest.mark.parametrize("what", ["reward", "flag"])
@pytest.mark.parametrize("name", WRAPS)
def test_what_is_wrapped_counts_as_the_number(name: str, what: str, line: type[Line]) -> None:
    wanted = outcome()
    assert len(set(wanted[0])) == 5
    setattr(line, what, staticmethod(WRAPS[name]))
    found = outcome()
    assert found[:2] == wanted[:2]
    assert all(torch.equal(getattr(found[2], tensor), getattr(wanted[2], tensor)) for tensor in TENSORS)


OTHERS: dict[str, tuple[Wrap, str]] = {
    "a vector": (lambda value: np.array([value, 1.0]), r"step returns float64 of shape \(2,\) as reward, where one"),
    "an empty array": (lambda value: np.zeros(0), r"float64 of shape \(0,\) as reward"),
    "text": (lambda value: "much", "step returns 'much' as reward"),
    "nothing": (lambda value: None, "step returns None as reward"),
    "a dictionary": (lambda value: {"a": value}, "as reward, where one number is needed"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_rewards_that_are_no_number_are_named(name: str, line: type[Line]) -> None:
    line.reward, said = staticmethod(OTHERS[name][0]), OTHERS[name][1]
    for use in (lambda: evaluate(push, "Line-v0", episodes=2), lambda: collect(None, "Line-v0", transitions=5)):
        with pytest.raises(EvaluationError, match=f"Line-v0: .*{said}") as caught:
            use()
        assert "\n" not in str(caught.value)
