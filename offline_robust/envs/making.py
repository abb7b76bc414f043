"""Making one Gymnasium environment, with errors made for people."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import gymnasium as gym

from offline_robust.envs.cartpole import register_environments
from offline_robust.errors import EvaluationError, nearest

Env = gym.Env[Any, Any]


def make_env(env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> Env:
    """`gymnasium.make` without its per-step checker, and with one clear line when it fails.

    Raises:
        EvaluationError: unknown id (offers the nearest), missing dependency, or wrong keyword arguments.
    """
    register_environments()
    try:
        with _quietly(env_id):
            return gym.make(env_id, disable_env_checker=True, **(env_kwargs or {}))
    except gym.error.DependencyNotInstalled as error:
        reason = _line(error)
        # Gymnasium 1.0's own advice does not build: its extra compiles an old box2d.
        advice = "pip install 'offline-robust[box2d]'" if "box2d" in reason.lower() else reason
        raise EvaluationError(f"{env_id} needs a package that is not installed: {advice}") from None
    except (gym.error.UnregisteredEnv, gym.error.DeprecatedEnv) as error:
        if env_id in gym.registry:
            raise EvaluationError(f"cannot make {env_id}: {_line(error)}") from None
        raise EvaluationError(f"no environment {env_id!r}{nearest(env_id, _offer(env_id))}") from None
    except (gym.error.Error, ImportError, TypeError, ValueError, OSError) as error:
        given = f" with {dict(env_kwargs)}" if env_kwargs else ""
        raise EvaluationError(f"cannot make {env_id!r}{given}: {_line(error)}") from None


def _quietly(env_id: str) -> AbstractContextManager[None]:
    """MuJoCo's compiler warns on stderr and in a file in the working directory; with it installed, it is kept quiet."""
    spec = gym.registry.get(env_id)
    if spec is None or "mujoco" not in str(spec.entry_point):
        return nullcontext()
    try:
        from offline_robust.envs.mujoco_lengths import quiet_compiler
    except ImportError:
        return nullcontext()
    return quiet_compiler()


def _offer(env_id: str) -> list[str]:
    """Registered ids worth naming: all when the mistyped one may be near, a few when it is not."""
    known = [name for name in gym.registry if "/" not in name]
    return known if "did you mean" in nearest(env_id, known) else ["Pendulum-v1", "Hopper-v5", "HalfCheetah-v5"]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
