"""What may be evaluated: policies of ours, functions, and the models of other libraries."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol

import gymnasium as gym
from numpy.typing import NDArray

from offline_robust.errors import EvaluationError

Act = Callable[[NDArray[Any]], Any]
"""Actions (N, A), or (N,) of whole numbers, for observations (N, O)."""


class Acting(Protocol):
    """What evaluation needs of a policy."""

    def act(self, observations: NDArray[Any]) -> Any:
        """Actions (N, A), or (N,) of integers, for observations (N, O)."""


class Predicting(Protocol):
    """A model of Stable-Baselines3 (whose answer is a pair), d3rlpy and others."""

    def predict(self, observations: NDArray[Any]) -> Any:
        """Actions as of `Acting`, alone or as ``(actions, None)``."""


def acting(policy: Acting | Predicting | Act) -> Act:
    """The function that is called once a step.

    Of an object ``act`` is taken, else ``predict``. A ``predict`` that can be asked for deterministic actions is:
    Stable-Baselines3's draws from the process's own random stream otherwise, and the same evaluation would not give
    the same returns. Whoever wants draws gives a function, ``lambda observations: model.predict(observations)``.

    Raises:
        EvaluationError: it is no policy.
    """
    call: Any = getattr(policy, "act", None) or getattr(policy, "predict", None) or policy
    if isinstance(policy, type) or not callable(call):
        raise EvaluationError(
            f"a policy is a function or has .act(observations) or .predict(observations), got {_name(policy)}"
        )
    if getattr(call, "__name__", "") == "predict" and "deterministic" in _parameters(call):
        call = functools.partial(call, deterministic=True)
    return lambda observations: _actions_alone(call(observations))


def check_spaces(policy: Any, where: str, observations: gym.Space[Any], actions: gym.Space[Any]) -> None:
    """Refuses the model of another library that states other spaces, before it is asked for anything.

    Raises:
        EvaluationError: its observations or actions have another shape.
    """
    model = policy if not inspect.ismethod(policy) else policy.__self__
    for name, ours in (("observation_space", observations), ("action_space", actions)):
        theirs = getattr(model, name, None)
        if not isinstance(theirs, gym.spaces.Box | gym.spaces.Discrete):
            continue
        counts = [int(space.n) if isinstance(space, gym.spaces.Discrete) else space.shape for space in (theirs, ours)]
        if counts[0] != counts[1]:
            word = "takes observations" if name == "observation_space" else "gives actions"
            raise EvaluationError(f"the policy {word} of {theirs}, {where} has {ours}")


def _actions_alone(answer: Any) -> Any:
    """The actions of an answer that may be a pair of actions and the state of a recurrent policy."""
    if not isinstance(answer, tuple):
        return answer
    if len(answer) != 2:
        raise EvaluationError(f"the policy returns {len(answer)} things at once: return the actions alone")
    if answer[1] is not None:
        raise EvaluationError(
            "the policy returns a state beside its actions, so it is recurrent and wants that state at the next step: "
            "give an object whose .act(observations) keeps the state itself"
        )
    return answer[0]


def _parameters(call: Callable[..., Any]) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(call).parameters)
    except (TypeError, ValueError):  # of functions written in C nothing is known
        return ()


def _name(policy: Any) -> str:
    return f"the class {policy.__name__}" if isinstance(policy, type) else type(policy).__name__
