"""Q-learning, R-contamination Q-learning and single-trajectory DRQ, for many seeds and balls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, NamedTuple

import numpy as np

from offline_robust.divergences import KL, Contamination, CressieRead, Divergence
from offline_robust.errors import ConfigError, MissingExtra
from offline_robust.tabular.logs import Log, TransitionLog, as_log
from offline_robust.tabular.mdp import FiniteMDP, FloatArray, IntArray, Rewards, as_problem, checked_discount

Rate = tuple[float, float]
"""(c, p) of a step size 1 / (1 + c t^p)."""


class StepSizes(NamedTuple):
    """The three time scales of DRQ; t counts the updates of a pair, or all of them (`Sampling.count`)."""

    fast: Rate
    """Of the means under the dual variable (Z_1, Z_2)."""
    medium: Rate
    """Of the dual variable, in units of the values: the rewards should be of order one."""
    slow: Rate
    """Of Q; the only one of plain and R-contamination Q-learning."""


def drq_step_sizes(discount: float, *, kl: bool = False) -> StepSizes:
    """Those of DRQ's experiments, as a published version of the paper is remembered; the kept text has lost them.

    For KL, of which the paper says nothing, the dual variable is ten times as slow: ours.
    """
    medium = (1.0 if kl else 0.1) * (1.0 - discount)
    return StepSizes((1.0 - discount, 0.6), (medium, 0.8), (0.05 * (1.0 - discount), 1.0))


@dataclass(frozen=True)
class Sampling:
    """Where samples of a problem come from."""

    mode: Literal["trajectory", "synchronous"] = "trajectory"
    """One trajectory, a pair a step; or every pair once a step, which needs a simulator."""
    epsilon: float = 0.1
    """Share of random actions along a trajectory. DRQ: 0.1."""
    episode_steps: int = 0
    """Along a trajectory, a new episode begins after so many steps; 0: only at terminal states."""
    count: Literal["visits", "steps"] = "visits"
    """What step sizes count, apart from synchronous sweeps: the pair's own updates, or all steps."""
    record: int = 0
    """Steps between two records of all states' values; 0: none. Each takes 8 S bytes a seed and ball."""


@dataclass(frozen=True, eq=False)
class LearnedValues:
    """What was learned by R rules (balls, in their order) and N seeds."""

    q: FloatArray
    """(R, N, S, A); 0 in terminal states."""
    dual: FloatArray
    """(R, N, S, A) eta of Cressie-Read, lambda of KL, 0 of the others."""
    visits: IntArray
    """(R, N, S, A) updates of each pair."""
    curve: FloatArray
    """(R, N, T, S) values along the way (`Sampling.record`)."""
    samples: IntArray
    """(T,) transitions that had been used by then."""

    @property
    def v(self) -> FloatArray:
        """(R, N, S)."""
        best: FloatArray = self.q.max(-1)
        return best

    @property
    def policy(self) -> IntArray:
        """(R, N, S) greedy actions, the first of equals."""
        greedy: IntArray = self.q.argmax(-1)
        return greedy


def q_learning(
    problem: FiniteMDP | Log,
    steps: int,
    *,
    discount: float | None = None,
    seeds: Sequence[int] = (0,),
    sampling: Sampling | None = None,
    step_sizes: StepSizes | None = None,
) -> LearnedValues:
    """Q <- Q + z (r + discount max_b Q(s', b) - Q); see `drq`, of whose step sizes the slow one is used.

    Source: Watkins and Dayan (1992).
    """
    return _learn(problem, [None], steps, discount, seeds, sampling, step_sizes, None)


def contamination_q_learning(
    problem: FiniteMDP | Log,
    balls: Sequence[Contamination],
    steps: int,
    *,
    discount: float | None = None,
    seeds: Sequence[int] = (0,),
    sampling: Sampling | None = None,
    step_sizes: StepSizes | None = None,
) -> LearnedValues:
    """Q-learning whose target takes a share R of all mass to the worst state there is; see `drq`.

    The target is r + discount [(1 - R) max_b Q(s', b) + R min_s max_b Q(s, b)]; with `v_min` that value takes the
    minimum's place. Its fixed point is `robust_value_iteration` with the same ball and `everywhere`.

    Raises:
        ConfigError: as `drq`; or rewards on entering, which the worst state would not have.

    Source: Wang and Zou (2021), equation for R-contamination.
    """
    for ball in balls:
        if not isinstance(ball, Contamination):
            raise ConfigError(f"contamination_q_learning: Contamination balls, got {ball!r}")
    return _learn(problem, balls, steps, discount, seeds, sampling, step_sizes, None)


def drq(
    problem: FiniteMDP | Log,
    balls: Sequence[CressieRead | KL],
    steps: int,
    *,
    discount: float | None = None,
    seeds: Sequence[int] = (0,),
    sampling: Sampling | None = None,
    step_sizes: StepSizes | None = None,
    value_range: tuple[float, float] | None = None,
) -> LearnedValues:
    """Distributionally robust Q-learning from one sample a step, by three time scales.

    For Cressie-Read balls, X = max_b Q(s', b):

        Z1  <- Z1 + z1 ((eta - X)_+^k* - Z1),    Z2 <- Z2 + z1 ((eta - X)_+^(k* - 1) - Z2)
        eta <- eta + z2 (1 - c Z1^(-1/k) Z2)
        Q   <- Q + z3 (r + discount (eta - c Z1^(1/k*)) - Q)

    eta stays where the best one must lie (Lemma C.1), Q in the range of values (appendix C clips both), and Z1 off
    zero, where its power is not finite.

    For KL balls eta is lambda, Z1 a mean of exp(-X / lambda), Z2 of X exp(-X / lambda), the slope
    -log Z1 - Z2 / (lambda Z1) - delta, and the target -lambda (log Z1 + delta). lambda moves by the exponential of its
    steps, and is read as it was when Z1 was averaged.

    X includes the reward where that is paid on entering the successor.

    Every seed and ball has its own stream; balls share a seed's.

    Args:
        problem: a finite problem to sample from; or a log, of which every step takes a random row.
        balls: R of `CressieRead`, `ChiSquare` or `KL`; radius 0 is plain Q-learning.
        steps: sweeps where synchronous, transitions otherwise.
        discount: of a log; a problem brings its own.
        seeds: N.
        sampling: see `Sampling`; of a log, `count` and `record` matter.
        step_sizes: `drq_step_sizes` by default.
        value_range: bounds of all values, in which the dual variable is kept; by default from the rewards.

    Raises:
        ConfigError: bad input.
        DatasetError: a log that is none.
        MissingExtra: numba is not installed.

    Source: DRQ (arXiv 2301.11721), algorithm 1, equations 9 to 12; the KL form by the same steps, ours.
    """
    for ball in balls:
        if not isinstance(ball, CressieRead | KL):
            raise ConfigError(f"drq: CressieRead, ChiSquare or KL balls, got {ball!r}")
    return _learn(problem, balls, steps, discount, seeds, sampling, step_sizes, value_range)


class _Rule(NamedTuple):
    kind: int
    numbers: FloatArray
    dual: float
    """Where the dual variable starts."""


def _learn(
    problem: FiniteMDP | Log,
    balls: Sequence[Divergence | None],
    steps: int,
    discount: float | None,
    seeds: Sequence[int],
    sampling: Sampling | None,
    step_sizes: StepSizes | None,
    value_range: tuple[float, float] | None,
) -> LearnedValues:
    sampling = sampling or Sampling()
    _check_run(balls, steps, seeds, sampling)
    kernels = _kernels()
    source = _Source(problem, discount, sampling)
    if source.inside and any(isinstance(ball, Contamination) for ball in balls):
        raise ConfigError("R-contamination: the worst state has no reward on entering; give rewards as (S, A)")
    span = value_range or source.value_range()
    if not -math.inf < span[0] < span[1] < math.inf:
        raise ConfigError(f"value_range: (least, largest), got {span}")
    rules = [_rule(kernels, ball, span) for ball in balls]
    rates = [_rates(step_sizes or drq_step_sizes(source.discount, kl=isinstance(ball, KL))) for ball in balls]
    records = steps // sampling.record if sampling.record else 0
    shape = (len(rules), len(seeds), source.states, source.actions)
    learned = LearnedValues(
        np.zeros(shape),
        np.zeros(shape),
        np.zeros(shape, np.int64),
        np.zeros((*shape[:2], records, source.states)),
        source.samples(np.arange(1, records + 1) * sampling.record),
    )
    for i, rule in enumerate(rules):
        for j, seed in enumerate(seeds):
            learned.dual[i, j] = rule.dual
            tables = (learned.q[i, j], learned.dual[i, j], *(np.zeros(shape[2:]) for _ in range(3)))
            source.run(
                kernels, np.random.default_rng(seed), steps, rule, rates[i], learned.curve[i, j], tables,
                learned.visits[i, j],
            )  # fmt: skip
    return learned


def _check_run(balls: Sequence[Divergence | None], steps: int, seeds: Sequence[int], sampling: Sampling) -> None:
    if not balls or not len(seeds):
        raise ConfigError("at least one ball and one seed are needed")
    if steps < 1 or sampling.record < 0 or sampling.episode_steps < 0:
        raise ConfigError(f"steps: at least 1 (record, episode_steps: not negative), got {steps}")
    if sampling.mode not in ("trajectory", "synchronous") or sampling.count not in ("visits", "steps"):
        raise ConfigError(f"sampling: no such mode or count: {sampling.mode!r}, {sampling.count!r}")
    if not 0.0 <= sampling.epsilon <= 1.0:
        raise ConfigError(f"epsilon: in [0, 1], got {sampling.epsilon}")


def _rates(step_sizes: StepSizes) -> FloatArray:
    rates = np.array(step_sizes, np.float64)
    if rates.shape != (3, 2) or not (rates >= 0.0).all():
        raise ConfigError("step_sizes: three pairs (c, p) of numbers that are not negative")
    return rates


def _rule(kernels: Any, ball: Divergence | None, span: tuple[float, float]) -> _Rule:
    low, high = span
    if ball is None or ball.radius == 0.0:
        return _Rule(kernels.Q_LEARNING, np.array([0.0, 0.0, 0.0, 0.0, 0.0, low, high]), 0.0)
    if isinstance(ball, Contamination):
        floor = math.nan if ball.v_min is None else ball.v_min
        return _Rule(kernels.CONTAMINATION, np.array([ball.radius, floor, 0.0, 0.0, 0.0, low, high]), 0.0)
    if isinstance(ball, KL):
        # At a six-hundredth of the range exp(-range / lambda) is still a number.
        least, most = (high - low) / 600.0, (high - low) / ball.radius
        numbers = np.array([ball.radius, 0.0, low, least, max(least, most), low, high])
        return _Rule(kernels.KL_BALL, numbers, min(0.1 * (high - low), most))
    assert isinstance(ball, CressieRead)
    top = low + ball.norm / (ball.norm - 1.0) * (high - low)
    least = (1e-6 * (high - low)) ** ball.conjugate
    numbers = np.array([ball.k, ball.norm, least, low, top, low, high])
    return _Rule(kernels.CRESSIE_READ, numbers, min(max(0.0, low), top))


class _Source:
    """Where samples come from, as the compiled loops take it."""

    def __init__(self, problem: FiniteMDP | Log, discount: float | None, sampling: Sampling) -> None:
        self._sampling = sampling
        self.log: TransitionLog | None = None
        if isinstance(problem, FiniteMDP):
            if discount is not None:
                raise ConfigError("discount: a problem brings its own; give one for a log only")
            self.discount = checked_discount(problem.discount)
            transitions, rewards = as_problem(problem.transitions, problem.rewards)
            self.states, self.actions, self.terminal = problem.states, problem.actions, problem.terminal
            self._successors = transitions.successors
            self._cumulative = transitions.probabilities.cumsum(-1)
            self._start = problem.start.cumsum()
            self._certain, self._entering, self.inside = _rewards(rewards, transitions.successors.shape)
        else:
            if discount is None:
                raise ConfigError("discount: a log does not know it; give one")
            self.discount = checked_discount(discount)
            self.log = as_log(problem)
            self.states, self.actions, self.terminal = self.log.states, self.log.actions, self.log.terminal
            self.inside = False

    def value_range(self) -> tuple[float, float]:
        """Bounds of all values that the rewards allow, 0 among them."""
        if self.log is not None:
            low, high = self.log.rewards.min(), self.log.rewards.max()
        else:
            low = self._certain.min() + self._entering.min()
            high = self._certain.max() + self._entering.max()
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        return low / (1.0 - self.discount), max(high, low + 1e-3) / (1.0 - self.discount)

    def samples(self, steps: IntArray) -> IntArray:
        """Transitions that so many steps use."""
        if self.log is None and self._sampling.mode == "synchronous":
            return steps * int((~self.terminal).sum()) * self.actions
        return steps

    def run(
        self, kernels: Any, rng: np.random.Generator, steps: int, rule: _Rule, rates: FloatArray, curve: FloatArray,
        tables: tuple[FloatArray, ...], visits: IntArray,
    ) -> None:  # fmt: skip
        """Learns the tables in place."""
        every = self._sampling.record
        head = (rng, steps, rule.kind, rule.numbers, rates)
        by_visits = self._sampling.count == "visits"
        if self.log is not None:
            kernels.replay(
                *head, self.log.transitions, self.log.rewards, self.terminal, self.discount, self.inside, every, curve,
                *tables, by_visits, visits,
            )  # fmt: skip
            return
        arrays = (
            self._successors, self._cumulative, self._certain, self._entering, self.inside, self.terminal,
            self.discount, every, curve,
        )  # fmt: skip
        if self._sampling.mode == "synchronous":
            kernels.sweeps(*head, *arrays, *tables)
            visits[~self.terminal] = steps
            return
        kernels.trajectory(
            *head,
            *arrays,
            *tables,
            self._start,
            self._sampling.epsilon,
            self._sampling.episode_steps,
            by_visits,
            visits,
        )


def _rewards(rewards: Rewards, shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray, bool]:
    """(S, A) certain ones, (S, A, K) those on entering, and whether there are such."""
    if rewards.entering is None:
        return np.ascontiguousarray(rewards.certain), np.zeros(shape), False
    return np.ascontiguousarray(rewards.certain), np.ascontiguousarray(rewards.entering), True


def _kernels() -> Any:
    try:
        return import_module("offline_robust.tabular.kernels")
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        raise MissingExtra("numba", "tabular", "learning in finite problems") from None
