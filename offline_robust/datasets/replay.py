"""Whether data are those of their environment: some of their steps are taken again and compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from offline_robust.datasets.assemble import fit_actions, layout
from offline_robust.datasets.findings import Finding
from offline_robust.datasets.logged import Array, Logged
from offline_robust.environment import make_flat
from offline_robust.environment.making import EnvironmentMissing
from offline_robust.environment.wrappers import Env
from offline_robust.errors import EvaluationError

_EPISODES, _STEPS, _ROWS = 5, 10, 64
"""Episodes that start again from their seeds, steps of each, and rows that are taken again from their observations."""
_AGREE = 0.02
"""Differences below this share of a dimension's one-step change are those of number types and versions. Ours."""
_STATE_KEEPING = ("RescaleAction", "ClipAction", "TimeLimit", "ClipReward")
"""Wrappers under which an observation still tells the state."""

SetState = Callable[[Any, Array], None]


@dataclass(frozen=True)
class Agreement:
    """How far some rows of the data and the environment agree.

    Attributes:
        rows: how many were taken again; 0 where none could be.
        how: from what they started, or why none could be taken.
        observations: the largest median difference of a dimension's next observation, as a share of the standard
            deviation of its one-step change.
        rewards: the median difference of the reward, as a share of the rewards' standard deviation.
        findings: what disagrees.
    """

    rows: int
    how: str
    observations: float = math.nan
    rewards: float = math.nan
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.rows:
            return f"not compared with its environment: {self.how}"
        return (
            f"{self.rows:,} steps taken again {self.how}: next observations differ by {self.observations:.2g} of a "
            f"one-step change, rewards by {self.rewards:.2g} of their spread"
        )


def replay(logged: Logged) -> Agreement:
    """Takes some steps of the data again in their environment, where it can be made.

    From the episodes' seeds where the source keeps them (Minari does); else from single observations, where they tell
    the state (classic control, and MuJoCo robots whose observations begin with positions and velocities).
    """
    spec = logged.environment
    if spec is None:
        return Agreement(0, "the data name none")
    try:
        env = make_flat(spec)
    except EnvironmentMissing as error:
        return Agreement(0, str(error))
    except EvaluationError as error:
        found = Finding("warning", logged.where, str(error), "evaluation refuses it")
        return Agreement(0, str(error), findings=[found])
    try:
        if env.observation_space.shape != logged.observations.shape[1:]:
            return Agreement(0, "its observations have another width")  # which the checks tell
        if any(seed is not None for seed in logged.seeds):
            return _from_seeds(logged, env)
        setter = None
        if all(wrapper.name in _STATE_KEEPING for wrapper in spec.wrappers):
            setter = _setter(env)
        if setter is None:
            return Agreement(0, "neither seeds nor observations tell the states")
        return _from_states(logged, env, setter)
    except Exception as error:  # the environment's own code, at states and actions of its data
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        what = f"{spec.id} fails when the data's own steps are taken again ({said})"
        found = Finding("warning", logged.where, what, "is it the environment of the data?")
        return Agreement(0, said, findings=[found])
    finally:
        env.close()  # type: ignore[no-untyped-call]


def _from_seeds(logged: Logged, env: Env) -> Agreement:
    """The first steps of some episodes, each from a reset with the seed that it was begun with."""
    starts, actions = layout(logged).starts, fit_actions(logged)
    ends = [*starts[1:], len(logged)]
    kept = [k for k, seed in enumerate(logged.seeds) if seed is not None][:_EPISODES]
    seen: list[Array] = []
    rewards: list[float] = []
    rows: list[int] = []
    for k in kept:
        first = np.asarray(env.reset(seed=logged.seeds[k])[0], np.float32)
        begin = int(starts[k])
        if not _near(first, logged.observations[begin], _scale(logged)):
            what = f"{logged.place(begin)}: a reset with its seed {logged.seeds[k]} gives another first observation"
            mend = "another environment or version, or options at reset that are not recorded"
            return Agreement(1, "from a seed", findings=[Finding("warning", logged.where, what, mend, (begin,), 1)])
        for row in range(begin, min(begin + _STEPS, int(ends[k]))):
            after, reward, terminated, truncated, _ = env.step(actions[row])
            seen.append(np.asarray(after, np.float32))
            rewards.append(float(reward))
            rows.append(row)
            if terminated or truncated:
                break
    return _compared(logged, rows, seen, rewards, f"from the seeds of {len(kept)} episodes")


def _from_states(logged: Logged, env: Env, set_state: SetState) -> Agreement:
    """Single steps from rows that lie evenly in the data, each from the state that its observation tells."""
    follows = np.flatnonzero(_followed(logged))
    if not len(follows):
        return Agreement(0, "no row has a next observation")
    chosen = follows[np.unique(np.linspace(0, len(follows) - 1, _ROWS).astype(int))]
    actions = fit_actions(logged)
    seen, rewards = [], []
    for row in chosen:
        env.reset(seed=0)
        set_state(env.unwrapped, logged.observations[row].astype(np.float64))
        after, reward, *_ = env.step(actions[row])
        seen.append(np.asarray(after, np.float32))
        rewards.append(float(reward))
    return _compared(logged, [int(row) for row in chosen], seen, rewards, "from the states that observations tell")


def _followed(logged: Logged) -> Array:
    """(N,) bool: rows whose next observation is known."""
    if logged.next_observations is not None:
        return np.ones(len(logged), bool) if logged.next_valid is None else logged.next_valid
    return ~layout(logged).end


def _after(logged: Logged, rows: Array) -> Array:
    after = logged.next_observations
    return after[rows] if after is not None else logged.observations[np.minimum(rows + 1, len(logged) - 1)]


def _scale(logged: Logged) -> Array:
    """(O,) standard deviation of the one-step change, never 0."""
    rows = np.flatnonzero(_followed(logged))[:10_000]
    change = _after(logged, rows).astype(np.float64) - logged.observations[rows]
    change = change[np.isfinite(change).all(1)]
    scale = change.std(0) if len(change) else np.ones(logged.observations.shape[1])
    return np.asarray(np.where(scale > 0, scale, 1.0))


def _near(one: Array, other: Array, scale: Array) -> bool:
    return bool((np.abs(one.astype(np.float64) - other) / scale < 1.0).all())


def _compared(logged: Logged, rows: list[int], seen: list[Array], rewards: list[float], how: str) -> Agreement:
    at = np.array(rows)
    known = _followed(logged)[at]
    difference = np.abs(np.array(seen, np.float64) - _after(logged, at))[known] / _scale(logged)
    by_dimension = np.median(difference, 0) if known.any() else np.zeros(1)
    spread = float(logged.rewards[np.isfinite(logged.rewards)].std()) or 1.0
    reward = float(np.median(np.abs(np.array(rewards) - logged.rewards[at]))) / spread
    findings = []
    mend = "another environment, version or settings than the data's; say them (env), or evaluate knowing it"
    worst = int(by_dimension.argmax())
    if by_dimension[worst] > _AGREE:
        what = f"dimension {worst} of the next observation differs by {by_dimension[worst]:.2g} of a one-step change"
        findings.append(Finding("warning", logged.where, f"{what} ({how}, {len(rows)} steps)", mend, tuple(rows[:9])))
    if reward > _AGREE:
        k = int(np.argmax(np.abs(np.array(rewards) - logged.rewards[at])))
        pays = f"{logged.rewards[rows[k]]:g} in the data and {rewards[k]:g} in the environment"
        what = f"rewards differ: {logged.place(rows[k])} has {pays}"
        findings.append(Finding("warning", logged.where, f"{what} ({how}, {len(rows)} steps)", mend, tuple(rows[:9])))
    return Agreement(len(rows), how, float(by_dimension.max()), reward, findings)


def _setter(env: Env) -> SetState | None:
    """How to put an environment into the state that an observation tells; None where it does not tell."""
    inner: Any = env.unwrapped
    kind = type(inner).__name__
    if type(inner).__module__.startswith(("gymnasium.envs.classic_control", "offline_robust.envs.cartpole")):
        return _CLASSIC.get(kind)
    if not hasattr(inner, "set_state") or not hasattr(inner, "data"):
        return None
    first = np.asarray(env.reset(seed=0)[0], np.float64)
    qpos, qvel = np.array(inner.data.qpos), np.array(inner.data.qvel)
    for hidden in range(3):  # leading positions that robots on a plane leave out, for nothing depends on them
        places, speeds = len(qpos) - hidden, len(qpos) - hidden + len(qvel)
        told = np.concatenate([qpos[hidden:], qvel]).astype(np.float32)
        if len(first) >= speeds and np.array_equal(first[:speeds].astype(np.float32), told):
            return lambda robot, seen: _set_robot(robot, seen, hidden, places, speeds)
    return None


def _set_robot(robot: Any, seen: Array, hidden: int, places: int, speeds: int) -> None:
    qpos = np.array(robot.data.qpos)
    qpos[hidden:] = seen[:places]
    robot.set_state(qpos, seen[places:speeds])


def _angle(cosine: float, sine: float) -> float:
    return math.atan2(sine, cosine)


def _set_cart(env: Any, seen: Array) -> None:
    env.state = seen
    env.steps_beyond_terminated = None


def _set_plain(env: Any, seen: Array) -> None:
    env.state = seen


def _set_pendulum(env: Any, seen: Array) -> None:
    env.state = np.array([_angle(seen[0], seen[1]), seen[2]])


def _set_acrobot(env: Any, seen: Array) -> None:
    env.state = np.array([_angle(seen[0], seen[1]), _angle(seen[2], seen[3]), seen[4], seen[5]])


_CLASSIC: dict[str, SetState] = {
    "PendulumEnv": _set_pendulum,
    "CartPoleEnv": _set_cart,
    "ContinuousCartPole": _set_plain,
    "MountainCarEnv": _set_plain,
    "Continuous_MountainCarEnv": _set_plain,
    "AcrobotEnv": _set_acrobot,
}
