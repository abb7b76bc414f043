"""Making one Gymnasium environment as its description says, with errors made for people."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import gymnasium as gym

from offline_robust.environment.imports import import_modules, split_module
from offline_robust.environment.spaces import same_actions, same_observations
from offline_robust.environment.spec import EnvironmentSpec, make_spec
from offline_robust.environment.wrappers import Env, flat_view, wrap
from offline_robust.errors import EvaluationError, nearest

CONTINUOUS_CARTPOLE = "ContinuousCartPole-v0"
_FINITE = {
    "WindyCliffwalking-v0": ("CliffwalkingEnv", 500),
    "AmericanPut-v0": ("AmericanPutEnv", 1000),
    "RandomMDP-v0": ("RandomMDPEnv", 100),
    "ThreeStateChain-v0": ("ThreeStateChainEnv", 100),
}
"""Environments of finite problems: class and time limit, which is ours."""


class EnvironmentMissing(EvaluationError):
    """The environment, or a package that it needs, is not there; training from logged data goes on without it."""


def register_environments() -> None:
    """Registers what this library adds to Gymnasium, once. Nothing of it is imported before it is made."""
    if CONTINUOUS_CARTPOLE not in gym.registry:
        gym.register(CONTINUOUS_CARTPOLE, "offline_robust.envs.cartpole:ContinuousCartPole", max_episode_steps=500)
    for env_id, (name, limit) in _FINITE.items():
        if env_id not in gym.registry:
            gym.register(env_id, f"offline_robust.tabular.finite_env:{name}", max_episode_steps=limit)


def as_spec(env: str | EnvironmentSpec, source: str = "") -> EnvironmentSpec:
    """A description from what the user of a function gave: one, an id, or ``module:Env-v0``, whose module is imported.

    For what the user typed only: a file's id never comes here.

    Raises:
        EvaluationError: it is not an id, or the module cannot be imported.
    """
    if isinstance(env, EnvironmentSpec):
        return env
    module, env_id = split_module(env)
    imports = import_modules([module]) if module else ()
    return make_spec(env_id, imports=imports, source=source)


def make_env(env: str | EnvironmentSpec) -> Env:
    """The environment with its wrappers, as Gymnasium makes it but without its per-step checker.

    Raises:
        EvaluationError: unknown id (offers the nearest), missing dependency, wrong keyword arguments, a wrapper that
            cannot be made again, or spaces that are not those of the description.
    """
    spec = as_spec(env)
    made = _made(spec)
    prior = len(made.spec.additional_wrappers) if made.spec is not None else 0  # by the environment's own registration
    for wrapper in spec.wrappers[prior:]:
        made = wrap(made, wrapper)
    checks = (("observation_space", same_observations), ("action_space", same_actions))
    for name, same in checks:
        recorded, found = getattr(spec, name), getattr(made, name)
        if recorded is not None and not same(recorded, found):
            raise EvaluationError(
                f"{spec}: the {name.replace('_', ' ')} is {_short(recorded)} in {spec.source or 'the data'} and "
                f"{_short(found)} in the environment as it is made here: it is another environment, or another version"
            )
    return made


def make_flat(env: str | EnvironmentSpec) -> Env:
    """`make_env`, its observations and actions seen as vectors of numbers.

    Raises:
        EvaluationError: as `make_env`; or observations or actions that cannot be vectors of numbers.
    """
    spec = as_spec(env)
    made = make_env(spec)
    try:
        return flat_view(made, spec.observation_space)
    except EvaluationError as error:
        raise EvaluationError(f"{spec.id}: {error}") from None


def keyword_for(spec: EnvironmentSpec, width: int) -> str:
    """A switch of an environment that gives its observations another width, as ``name=False``; "" where none does.

    Logs often come from an environment with a switch set (Ant without contact forces), of which they say nothing.
    """
    try:
        inner = make_env(spec.bare).unwrapped
    except EvaluationError:
        return ""
    for name, parameter in inspect.signature(type(inner).__init__).parameters.items():
        value = spec.kwargs.get(name, parameter.default)
        if not isinstance(value, bool):
            continue
        try:
            env = make_flat(replace(spec.bare, kwargs={**spec.kwargs, name: not value}))
        except EvaluationError:
            continue
        shape = env.observation_space.shape
        env.close()  # type: ignore[no-untyped-call]
        if shape == (width,):
            return f"{name}={not value}"
    return ""


def try_arguments(env: Env, spec: EnvironmentSpec) -> None:
    """One step of an environment made with arguments from any file: what they break shows here, in one line.

    Raises:
        EvaluationError: its own code fails.
    """
    try:
        env.reset(seed=0)
        env.action_space.seed(0)
        env.step(env.action_space.sample())
    except Exception as error:  # its own code decides what goes wrong in it
        said = f"{type(error).__name__}: {_line(error)}"
        raise EvaluationError(f"{spec.id} does not work with {dict(spec.kwargs)}: {said}") from None


def step_limit(env: Env) -> int | None:
    """Steps at which an episode is cut, by `gymnasium.make` or by a wrapper; None: never."""
    limit = env.spec.max_episode_steps if env.spec is not None else None
    return int(limit) if limit is not None else None


def _made(spec: EnvironmentSpec) -> Env:
    register_environments()
    env_id, kwargs = spec.id, dict(spec.kwargs)
    limit = {} if spec.step_limit is None else {"max_episode_steps": spec.step_limit or -1}
    try:
        with _quietly(env_id):
            return gym.make(env_id, disable_env_checker=True, **limit, **kwargs)
    except gym.error.DependencyNotInstalled as error:
        reason = _line(error)
        # Gymnasium 1.0's own advice does not build: its extra compiles an old box2d.
        advice = "pip install 'offline-robust[box2d]'" if "box2d" in reason.lower() else reason
        raise EnvironmentMissing(f"{env_id} needs a package that is not installed: {advice}") from None
    except (gym.error.UnregisteredEnv, gym.error.DeprecatedEnv) as error:
        if env_id in gym.registry:
            raise EvaluationError(f"cannot make {env_id}: {_line(error)}") from None
        raise EnvironmentMissing(f"no environment {env_id!r}{_where_from(spec)}") from None
    except Exception as error:  # the environment's own code decides what goes wrong in it
        given = f" with {kwargs}" if kwargs else ""
        raise EvaluationError(f"cannot make {env_id!r}{given}: {_line(error) or type(error).__name__}") from None


def _where_from(spec: EnvironmentSpec) -> str:
    """How to get an environment that is not registered."""
    if spec.imports:
        module = spec.imports[0]
        return f": it comes from the module {module!r}, which is not imported by itself: give --import {module}"
    hint = nearest(spec.id, _offer(spec.id))
    own = "; one of your own or of another package: give --import MODULE"
    return hint + ("" if "did you mean" in hint else own)


@contextmanager
def _quietly(env_id: str) -> Iterator[None]:
    """MuJoCo's compiler warns on stderr and in a file in the working directory; with it installed, it is kept quiet."""
    spec = gym.registry.get(env_id)
    if spec is not None and "mujoco" in str(spec.entry_point):
        try:
            from offline_robust.environment.quiet import quiet_compiler
        except ImportError:  # no MuJoCo
            yield
            return
        with quiet_compiler():
            yield
        return
    yield


def _offer(env_id: str) -> list[str]:
    """Registered ids worth naming: all when the mistyped one may be near, a few when it is not."""
    known = [name for name in gym.registry if "/" not in name]
    return known if "did you mean" in nearest(env_id, known) else ["Pendulum-v1", "Hopper-v5", "HalfCheetah-v5"]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


def _short(space: gym.Space[Any]) -> str:
    text = str(space)
    return text if len(text) <= 300 else f"{text[:300]}..."
