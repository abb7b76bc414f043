"""Gymnasium's MuJoCo environments, many episodes at once, each on a model of its own, equal to them bit for bit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import mujoco
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from mujoco.batch import Batch, SimulationError
from numpy.typing import NDArray

from offline_robust.envs import mujoco_tasks as tasks
from offline_robust.errors import EvaluationError

_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)
"""Everything the next step depends on: positions, velocities, activations, warm start, controls, forces, time."""

_UNSTABLE = [int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{what}")) for what in ("QPOS", "QVEL", "QACC", "CTRL")]
_TRANSPARENT = (TimeLimit, OrderEnforcing, PassiveEnvChecker)
"""The wrappers of `gymnasium.make` that change no figure but the time limit."""

_FAMILIES: dict[str, tuple[str, Callable[[Any, str], tasks.Task]]] = {
    "hopper": ("HopperEnv", partial(tasks.Runner, hidden=1, clip=True)),
    "walker2d": ("Walker2dEnv", partial(tasks.Runner, hidden=1, clip=True)),
    "half_cheetah": ("HalfCheetahEnv", partial(tasks.Runner, hidden=1, clip=False)),
    "swimmer": ("SwimmerEnv", partial(tasks.Runner, hidden=2, clip=False)),
    "ant": ("AntEnv", tasks.Ant),
    "humanoid": ("HumanoidEnv", tasks.Humanoid),
    "humanoidstandup": ("HumanoidStandupEnv", tasks.HumanoidStandup),
    "inverted_pendulum": ("InvertedPendulumEnv", tasks.InvertedPendulum),
    "inverted_double_pendulum": ("InvertedDoublePendulumEnv", tasks.InvertedDoublePendulum),
    "reacher": ("ReacherEnv", tasks.Reacher),
    "pusher": ("PusherEnv", tasks.Pusher),
}


def supports(env: Any) -> bool:
    """Whether `MuJoCoSimulation` can run a made environment.

    True for the v4 and v5 classes of gymnasium.envs.mujoco themselves, under no wrapper but those of
    `gymnasium.make`. A subclass or another wrapper may redefine anything, so both are refused.
    """
    while hasattr(env, "env"):
        if type(env) not in _TRANSPARENT:
            return False
        env = env.env
    return _family(env) is not None


class MuJoCoSimulation:
    """N episodes of one environment on a pool of threads, equal to N Gymnasium environments bit for bit.

    Starts are Gymnasium's own: the environment itself is reset on each model in turn, and its state copied. Steps run
    in `mujoco.batch.Batch`; what they mean (observation, reward, end) is in `mujoco_tasks`. Results depend neither on
    the number of threads nor on the other episodes. An episode that has ended is not simulated any further.

    A simulation that becomes unstable does what it does in Gymnasium: MuJoCo puts it back to the initial state (which
    also drops its push) and the episode goes on; `unstable` tells. One in which MuJoCo raises an error, where
    Gymnasium would raise it too, is cut instead: it earns 0, is reported truncated, and `failed` tells.

    Args:
        env: a made environment that `supports` accepts. It is taken over: its model changes while it resets.
        models: one `MjModel` per episode, all with the sizes of the environment's own; the same one may stand for
            many episodes. They are read at every step, and must not be edited without a call of `set_models`.
        pushes: per episode a constant world force (nbody, 3) on each body's centre of mass, in N.
        threads: at most this many; by default as many as there are processors or episodes.

    Raises:
        EvaluationError: an environment that is not supported, no model, or one of other sizes.

    Attributes:
        live: (N,), which episodes still run; see `BatchedEnv`.
        failed: (N,), in which episodes MuJoCo raised an error since the last reset.
    """

    def __init__(
        self,
        env: Any,
        models: Sequence[Any],
        pushes: Sequence[NDArray[np.float64]] | None = None,
        threads: int | None = None,
    ) -> None:
        if not supports(env):
            raise EvaluationError(
                f"{env} is not one of Gymnasium's own MuJoCo environments, v4 or v5, without wrappers"
            )
        if not models:
            raise EvaluationError("a batched simulation needs at least one episode")
        self._env, self._limit = env, _time_limit(env)
        name, version = _family(env.unwrapped) or ("", "")
        self._task = _FAMILIES[name][1](env.unwrapped, version)
        count, nominal = len(models), env.unwrapped.model
        self._batch = Batch(nominal, count, _threads(threads, count), persistent=self._task.contacts)
        self._scratch = mujoco.MjData(nominal)
        self._state = {field: self._batch.bind(field) for field in ("qpos", "qvel", "ctrl", *self._task.fields)}
        self._forces = np.zeros((count, nominal.nbody, 6))
        self._observations = np.zeros((count, *env.observation_space.shape), env.observation_space.dtype)
        self._marks: NDArray[np.float64] = np.zeros(count)
        self._steps = 0
        self._rows: Any = slice(None)
        self.failed = np.zeros(count, bool)
        self.live = np.zeros(count, bool)
        self.set_models(models, pushes)

    @property
    def unstable(self) -> NDArray[np.bool_]:
        """(N,), in which episodes MuJoCo met figures that are not finite or huge since the last reset."""
        return np.asarray(self._batch.warning[:, _UNSTABLE, 1].any(1))

    @property
    def broken(self) -> NDArray[np.bool_]:
        """(N,), `unstable` or `failed`; see `BatchedEnv`."""
        return self.unstable | self.failed

    def set_models(self, models: Sequence[Any], pushes: Sequence[NDArray[np.float64]] | None = None) -> None:
        """Changes the physics from the next step on, in the middle of an episode too; the state stays.

        Equal to editing the model, and `xfrc_applied`, of a running Gymnasium environment.

        Args:
            models: one per episode. Those edited in place count only after this call.
            pushes: forces (nbody, 3) in N per episode; None takes them away.

        Raises:
            EvaluationError: a wrong number of models or pushes, or a model of other sizes.
        """
        count = len(self.live)
        if len(models) != count or (pushes is not None and len(pushes) != count):
            raise EvaluationError(f"{count} episodes need {count} models and as many pushes, or none")
        try:
            self._batch.set_models(list(models))
        except (mujoco.FatalError, ValueError) as error:
            raise EvaluationError(f"a model does not fit the environment's own: {error}") from None
        self._models = list(models)
        timestep = np.array([model.opt.timestep for model in models])
        # Gymnasium adds up the masses as a column; the sum of a row has the same order.
        mass = np.array([model.body_mass for model in models])
        self._constants = {
            "dt": timestep * self._env.unwrapped.frame_skip,
            "timestep": timestep,
            "mass": mass,
            "total_mass": mass.sum(1),
        }
        self._pushes = None if pushes is None else np.asarray(pushes, np.float64)
        self._push()

    def reset(self, seeds: Sequence[int]) -> NDArray[Any]:
        """Starts every episode as `env.reset(seed=...)` does on its model; observations (N, O)."""
        fields, observations, marks = ("qpos", "qvel", *self._task.fields), [], []
        with self._borrowed() as env, _quiet():
            for row, (model, seed) in enumerate(zip(self._models, seeds, strict=True)):
                env.model = model
                # A new MjData starts from these, so a new environment would.
                env.init_qpos, env.init_qvel = model.qpos0.copy(), np.zeros(model.nv)
                observations.append(env.reset(seed=int(seed))[0])
                mujoco.mj_getState(model, self._scratch, self._batch.state[row], _STATE)
                marks.append(self._task.mark({field: getattr(self._scratch, field)[None] for field in fields}))
        self._observations, self._marks = np.array(observations), np.concatenate(marks)
        self._batch.warning[:] = 0
        self._push()
        self._steps = 0
        self.failed[:] = False
        self._set_live(np.ones(len(self.live), bool))
        return self._observations.copy()

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Advances every live episode by one action of (N, A).

        Actions beyond the limits are clipped by MuJoCo but, as in Gymnasium, paid in full. Give the dtype the policy
        gives Gymnasium: the cost of an action is computed in it.

        Returns:
            Observations (N, O), rewards (N,), terminated (N,) and truncated (N,).
        """
        if np.shape(actions) != self._state["ctrl"].shape:
            raise EvaluationError(f"actions have shape {np.shape(actions)}, not {self._state['ctrl'].shape}")
        count, rows = len(self.live), self._rows
        rewards, terminated, truncated = np.zeros(count), np.zeros(count, bool), np.zeros(count, bool)
        if not self.live.any():
            return self._observations.copy(), rewards, terminated, truncated
        chosen = np.ascontiguousarray(actions[rows])
        self._state["ctrl"][rows] = chosen
        failures = self._advance(rows)
        now = {name: values[rows] for name, values in (self._state | self._constants).items()}
        now["cfrc_ext"] = self._forces[rows]
        kept = self._observations[failures]
        # An unstable simulation may hold figures at which NumPy warns; Gymnasium returns them all the same.
        with np.errstate(all="ignore"):
            self._observations[rows] = self._task.observe(now)
            rewards[rows], terminated[rows] = self._task.judge(self._marks[rows], now, chosen)
        self._marks[rows] = self._task.mark(now)
        self._steps += 1
        truncated[rows] = self._limit is not None and self._steps >= self._limit
        if len(failures):
            self._observations[failures], rewards[failures] = kept, 0.0
            terminated[failures], truncated[failures], self.failed[failures] = False, True, True
        if terminated.any() or truncated.any():
            self._set_live(self.live & ~(terminated | truncated))
        return self._observations.copy(), rewards, terminated, truncated

    def close(self) -> None:
        """Closes the environment; the threads end with the object."""
        self._env.close()

    def _advance(self, rows: Any) -> NDArray[np.integer[Any]]:
        """Steps the live simulations; returns the ids of those in which MuJoCo raised an error."""
        failures: NDArray[np.integer[Any]] = np.zeros(0, np.int64)
        with _quiet():
            try:
                self._batch.step(None if isinstance(rows, slice) else rows, nstep=self._env.unwrapped.frame_skip)
            except SimulationError as error:
                failures = np.asarray(error.ids)
            if self._task.contacts:
                for row in np.flatnonzero(self.live):
                    self._batch.get_data(row, self._scratch)
                    mujoco.mj_rnePostConstraint(self._models[row], self._scratch)
                    self._forces[row] = self._scratch.cfrc_ext
        return failures

    def _push(self) -> None:
        forces = self._batch.xfrc_applied
        forces[:, :, :3] = 0.0 if self._pushes is None else self._pushes

    def _set_live(self, live: NDArray[np.bool_]) -> None:
        self.live[:] = live
        # While all live, views of the whole arrays spare a copy of each field at every step.
        self._rows = slice(None) if live.all() else np.flatnonzero(live).astype(np.int32)

    @contextmanager
    def _borrowed(self) -> Iterator[Any]:
        """The unwrapped environment with our scratch data in place of its own."""
        env = self._env.unwrapped
        names = ("model", "data", "init_qpos", "init_qvel")
        own = {name: getattr(env, name) for name in names}
        env.data = self._scratch
        try:
            yield env
        finally:
            for name in names:
                setattr(env, name, own[name])


def _family(env: Any) -> tuple[str, str] | None:
    """Name and version of an unwrapped environment's class, exactly."""
    package, _, module = type(env).__module__.rpartition(".")
    name, _, version = module.rpartition("_")
    known = package == "gymnasium.envs.mujoco" and version in ("v4", "v5") and name in _FAMILIES
    return (name, version) if known and type(env).__qualname__ == _FAMILIES[name][0] else None


def _time_limit(env: Any) -> int | None:
    """The least of the time limits around an environment, in steps."""
    limits = []
    while hasattr(env, "env"):
        if isinstance(env, TimeLimit):
            limits.append(int(env._max_episode_steps))
        env = env.env
    return min(limits, default=None)


def _threads(threads: int | None, episodes: int) -> int:
    return max(1, min(threads or os.cpu_count() or 1, episodes))


@contextmanager
def _quiet() -> Iterator[None]:
    """MuJoCo's warnings stay in its counters instead of a file in the working directory, unless someone listens."""
    if mujoco.get_mju_user_warning() is not None:
        yield
        return
    mujoco.set_mju_user_warning(_ignore)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)


def _ignore(message: str) -> None:
    """A warning that `MuJoCoSimulation.unstable` tells about."""
