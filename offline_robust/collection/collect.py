"""Rolls a policy in an environment and keeps what happened."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch

from offline_robust.collection.behaviour import Behaviour
from offline_robust.datasets import TransitionDataset
from offline_robust.datasets.logged import Array
from offline_robust.datasets.spaces import Spaces
from offline_robust.environment import EnvironmentSpec, make_env
from offline_robust.envs import (
    BatchedEnv,
    Condition,
    Perturbation,
    System,
    make_batch,
    parse_perturb,
    system,
    without_effect,
)
from offline_robust.errors import DatasetError
from offline_robust.networks import Policy
from offline_robust.process import one_thread
from offline_robust.untrusted import free_memory

CollectionProgress = Callable[[int], None]
"""Called with the number of rows so far."""

_COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminated", "truncated")
_COPIES = 3
_TELL = 1_000
"""Rows between two reports of progress, about."""


def collect(
    policy: Policy | None,
    env: str | EnvironmentSpec,
    *,
    transitions: int,
    epsilon: float = 0.0,
    seed: int = 0,
    parallel: int = 256,
    stochastic: bool = False,
    perturb: str | Sequence[str | Perturbation] = (),
    progress: CollectionProgress | None = None,
    part: int = 0,
) -> TransitionDataset:
    """Collects transitions with a policy's action, replaced by a uniform one with probability ``epsilon``.

    Start state and noise of an episode come from streams of its own, see `Behaviour`, so that the result does not
    depend on ``parallel``, and a longer collection begins with the shorter one. Rows are ordered by episode; the last
    episode is cut (truncated) so that the number of rows is exact. It repeats bit for bit on the same library
    versions and kind of processor. The policy sees the observations as they are kept, in float32.

    Args:
        policy: the behaviour policy; None acts uniformly at random.
        env: the environment, an id or a whole description; observations are kept flat.
        transitions: N, the number of rows.
        epsilon: probability of a uniform action, step by step.
        seed: of all streams.
        parallel: at most this many episodes advance together.
        stochastic: whether the policy's action is drawn from its distribution (DR-SAC's data of SAC policies)
            rather than its mean.
        perturb: physics that differ from the nominal ones during all of the collection, as `Perturbation` or as text
            with one level, such as ``"ctrlrange=0.85"``. Actions are kept as the policy asked for them.
        progress: called with the number of rows so far.
        part: of a mixture; parts with the same seed share no stream.

    Raises:
        DatasetError: an argument is out of range, or policy, environment and perturbations do not fit each other.
        EvaluationError: the environment cannot be made, or it has no such parameter or level to perturb.
    """
    if transitions < 1 or not 0.0 <= epsilon <= 1.0 or parallel < 1 or min(seed, part) < 0:
        raise DatasetError(
            f"collect needs transitions >= 1, epsilon in [0, 1], parallel >= 1 and seed >= 0, not {transitions}, "
            f"{epsilon}, {parallel} and {seed}"
        )
    of = system(env)
    observation_space, action_space = _spaces(of)
    _check_fit(policy, of, observation_space, action_space, stochastic)
    check_memory(of, transitions)
    acting = _perturbations(of, [perturb] if isinstance(perturb, str) else perturb)
    behaviour = Behaviour(policy, action_space, epsilon, stochastic, seed, part)
    rows = _Rows(transitions, observation_space, action_space)
    with one_thread():
        _fill(rows, of, acting, behaviour, parallel, progress)
    about = {
        "source": "collect",
        "policy": "given" if policy else "uniform",
        "epsilon": epsilon,
        "seed": seed,
        "stochastic": stochastic,
        "perturb": [{"parameter": p.parameter, "level": p.level, "mode": p.mode} for p in acting],
    }
    columns: dict[str, Any] = {name: torch.from_numpy(values) for name, values in rows.columns.items()}
    return TransitionDataset(
        **columns,
        next_valid=torch.ones(transitions, dtype=torch.bool),
        observation_space=observation_space,
        action_space=action_space,
        environment=_whole(of),
        provenance=about,
    )


def check_memory(of: System, transitions: int) -> None:
    """Refuses more rows than there is memory for: as they are collected, in order, and as they are written.

    Raises:
        DatasetError: says how much is needed and how much is free.
    """
    width, actions = (int(np.prod(space.shape or ())) for space in (of.observation_space, of.action_space))
    needed = _COPIES * transitions * (8 * width + 8 * actions + 14)
    if needed > (free := free_memory()):
        raise DatasetError(
            f"{transitions:,} rows of {of.env_id} need about {needed:,} bytes of memory, {free:,} are free: collect "
            "fewer rows at a time"
        )


class _Rows:
    """The rows of the dataset, filled from the first to the last."""

    def __init__(self, transitions: int, observation_space: gym.spaces.Box, action_space: Spaces) -> None:
        width = observation_space.shape[0]
        continuous = isinstance(action_space, gym.spaces.Box)
        actions = np.zeros((transitions, *(action_space.shape or ())), np.float32 if continuous else np.int64)
        self.columns: dict[str, Array] = {
            "observations": np.zeros((transitions, width), np.float32),
            "actions": actions,
            "rewards": np.zeros(transitions, np.float32),
            "next_observations": np.zeros((transitions, width), np.float32),
            "terminated": np.zeros(transitions, bool),
            "truncated": np.zeros(transitions, bool),
            "episode": np.zeros(transitions, np.int64),
        }
        self.filled = 0

    @property
    def left(self) -> int:
        """Rows that are still missing."""
        return len(self.columns["episode"]) - self.filled

    def add(self, first: int, steps: list[tuple[Array, ...]]) -> None:
        """Appends the episodes ``first``, ``first + 1``, ...: of each step who took it (M,), and `_COLUMNS`."""
        who = np.concatenate([step[0] for step in steps])
        order = np.argsort(who, kind="stable")[: self.left]  # stable: the steps of an episode stay in order
        place = slice(self.filled, self.filled + len(order))
        self.columns["episode"][place] = first + who[order]
        for index, name in enumerate(_COLUMNS, 1):
            self.columns[name][place] = np.concatenate([step[index] for step in steps])[order]
        self.filled += len(order)
        if not self.left and not self.columns["terminated"][-1]:
            self.columns["truncated"][-1] = True


def _fill(
    rows: _Rows,
    of: System,
    acting: Sequence[Perturbation],
    behaviour: Behaviour,
    parallel: int,
    progress: CollectionProgress | None,
) -> None:
    """Runs the episodes 0, 1, 2, ... in waves until they hold enough rows."""
    batch: BatchedEnv | None = None
    first, length = 0, float(of.time_limit or rows.left)
    try:
        while rows.left:
            # As many episodes as the rest will need: none is begun in vain while lengths are what they were.
            count = max(1, min(parallel, math.ceil(rows.left / length)))
            if batch is None or len(batch.live) != count:
                if batch is not None:
                    batch.close()
                batch = make_batch(of, [acting] * count)
            rows.add(first, _wave(batch, of, behaviour, range(first, first + count), rows, progress))
            if batch.broken.any():
                raise DatasetError(
                    f"{of.env_id}: the simulation broke down in {int(batch.broken.sum())} of {count} episodes; the "
                    "physics are too stiff for the time step, leave such levels out"
                )
            first += count
            length = rows.filled / first
    finally:
        if batch is not None:
            batch.close()


def _wave(
    batch: BatchedEnv,
    of: System,
    behaviour: Behaviour,
    numbers: range,
    rows: _Rows,
    progress: CollectionProgress | None,
) -> list[tuple[Array, ...]]:
    """Runs episodes side by side until all have ended, or nothing more of them can be among the missing rows."""
    observations = np.asarray(batch.reset(behaviour.begin(numbers)), np.float32)
    lengths = np.zeros(len(numbers), np.int64)
    executed = np.zeros((len(numbers), *(of.action_space.shape or ())), of.action_space.dtype)
    steps: list[tuple[Array, ...]] = []
    told = 0
    # The next row of an episode comes after all rows that it and the episodes before it have by now.
    while len(who := np.flatnonzero(batch.live & (np.cumsum(lengths) < rows.left))):
        before = observations[who]
        actions = behaviour.act(who, before, len(steps))
        executed[who] = actions
        after, rewards, terminated, truncated = batch.step(executed)
        observations = np.asarray(after, np.float32)
        steps.append((who, before, actions, rewards[who], observations[who], terminated[who], truncated[who]))
        lengths[who] += 1
        told += len(who)
        if progress is not None and told >= _TELL:
            told = 0
            progress(rows.filled + min(int(lengths.sum()), rows.left))
    return steps


def _spaces(of: System) -> tuple[gym.spaces.Box, Spaces]:
    observation_space, action_space = cast(gym.spaces.Box, of.observation_space), cast(Spaces, of.action_space)
    if isinstance(action_space, gym.spaces.Box) and not np.isfinite([action_space.low, action_space.high]).all():
        raise DatasetError(f"{of.env_id}: the action space {action_space} has no bounds to explore between")
    return observation_space, action_space


def _whole(of: System) -> EnvironmentSpec:
    """The environment with the spaces that it has before observations and actions are seen as vectors."""
    env = make_env(of.environment)
    spaces = (env.observation_space, env.action_space)
    env.close()  # type: ignore[no-untyped-call]
    if spaces == (of.observation_space, of.action_space):
        return of.environment
    return replace(of.environment, observation_space=spaces[0], action_space=spaces[1])


def _check_fit(
    policy: Policy | None, of: System, observation_space: gym.spaces.Box, action_space: Spaces, stochastic: bool
) -> None:
    kind = policy.spec.kind if policy is not None else "uniform"
    if stochastic and kind != "tanh_gaussian":
        raise DatasetError(f"stochastic: a {kind} policy has no distribution to draw actions from; leave it out")
    if policy is None:
        return
    spec = policy.spec
    if isinstance(action_space, gym.spaces.Discrete):
        fits = spec.action_count == action_space.n and action_space.start == 0
    else:
        fits = spec.action_count == 0 and action_space.shape == (spec.action_dim,)
    if not fits or observation_space.shape != (spec.observation_dim,):
        raise DatasetError(
            f"the policy takes {spec.observation_dim} observations and gives {spec.action_text}; {of.env_id} has "
            f"{observation_space} and {action_space}"
        )


def _perturbations(of: System, perturb: Sequence[str | Perturbation]) -> tuple[Perturbation, ...]:
    """Made ready for the system; they hold still, act on the physics, and have an effect."""
    ready = tuple(of.ready(one_level(item) if isinstance(item, str) else item) for item in perturb)
    for item in of.outside(ready):
        raise DatasetError(f"{item.parameter} does not act on the physics: the data would not say what happened")
    for item in ready:
        if item.moves:
            raise DatasetError(
                f"{item.label}: data are collected under physics that hold still; leave the schedule out"
            )
    condition = Condition(ready, nominal=of.check(ready))
    for _, inert in without_effect(of, [condition]):
        raise DatasetError(f"{of.env_id}: {inert.label} changes nothing in this model")
    return ready


def one_level(text: str) -> Perturbation:
    """Reads a perturbation at one level, such as ``ctrlrange=0.85`` or ``gravity=absolute@5``.

    Raises:
        EvaluationError: it cannot be read.
        DatasetError: it has several levels.
    """
    axis = parse_perturb(text)
    if len(axis.levels) != 1:
        raise DatasetError(f"{text!r}: data are collected at one level, as in {axis.parameter}=0.85")
    return axis.perturbations()[0][0]
