"""Whatever is wrong with a finite problem is told in one line that names it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from toys import line_dataset, two_way

from offline_robust.divergences import KL, Contamination, CressieRead, GradientWasserstein, Wasserstein1
from offline_robust.errors import ConfigError, DatasetError, MissingExtra, UserError
from offline_robust.tabular import (
    Sampling,
    american_put,
    as_log,
    cliffwalking,
    contamination_q_learning,
    count_model,
    drq,
    finite_mdp,
    learning,
    multilevel_drq,
    q_learning,
    random_mdp,
    robust_backward_induction,
    robust_policy_evaluation,
    robust_value_iteration,
    three_state_chain,
)

P = np.full((2, 2, 2), 0.5)
R = np.zeros((2, 2))


def law(*row):
    changed = P.copy()
    changed[1, 0] = row
    return changed


CASES = [
    (lambda: robust_value_iteration(law(0.5, 0.4), R, 0.9), "state 1, action 0 sum to 0.9, not to one"),
    (lambda: robust_value_iteration(law(1.5, -0.5), R, 0.9), "state 1, action 0 has a negative probability, -0.5"),
    (lambda: robust_value_iteration(law(np.nan, 0.5), R, 0.9), r"P: entry \(1, 0, 0\) is not finite"),
    (lambda: robust_value_iteration(P[:1], R, 0.9), r"P: shape \(S, A, S\)"),
    (lambda: robust_value_iteration("no", R, 0.9), "P: an array of numbers"),
    (lambda: robust_value_iteration((P, P, P), R, 0.9), "got a tuple of 3"),
    (lambda: robust_value_iteration((P, P), R, 0.9), "successors are whole numbers"),
    (lambda: robust_value_iteration((P.astype(int) + 2, P), R, 0.9), "successor 2 of state 0, action 0"),
    (lambda: robust_value_iteration((P[:, :1].astype(int), P), R, 0.9), "are .S, A, K. both"),
    (lambda: robust_value_iteration(P, R[:1], 0.9), r"r: shape \(2,\), \(2, 2\)"),
    (lambda: robust_value_iteration(P, R + np.inf, 0.9), r"r: entry \(0, 0\) is not finite"),
    (lambda: robust_value_iteration(P, R, 1.0), "discount: .*without an end, discount 1 has no finite values"),
    (lambda: robust_value_iteration(P, R, -0.1), "discount: a number in"),
    (lambda: robust_value_iteration(P, R, float("nan")), "discount: a number in"),
    (lambda: robust_value_iteration(P, R, 0.9, "kl"), "divergence: a ball .* 'kl' is none"),
    (lambda: robust_value_iteration(P, R, 0.9, GradientWasserstein(0.1)), "divergence: a ball"),
    (lambda: robust_value_iteration(P, R, 0.9, Wasserstein1(0.1, torch.ones(3, 3) - torch.eye(3))), "costs between"),
    (lambda: robust_value_iteration(P, R, 0.9, KL(0.1), everywhere=True), "everywhere is for"),
    (lambda: robust_value_iteration(P, P, 0.9, Contamination(0.1), everywhere=True), "no reward on entering"),
    (lambda: robust_value_iteration(P, R, 0.9, terminal=[True]), "terminal: one bool for each of 2 states"),
    (lambda: robust_value_iteration(P, R + 1, 0.9, max_sweeps=1), "not reached in 1 sweeps"),
    (lambda: robust_value_iteration(P, R, 0.9, tolerance=0.0), "tolerance: greater than 0"),
    (lambda: robust_policy_evaluation(P, R, 0.9, None, [0, 2]), "policy: actions are 0 to 1"),
    (lambda: robust_policy_evaluation(P, R, 0.9, None, [[0.5, 0.6], [1, 0]]), "policy: .*state 0 sum to 1.1"),
    (lambda: robust_policy_evaluation(P, R, 0.9, None, [0.0]), "policy: "),
    (lambda: robust_backward_induction(P, R, 1.5, None, stages=3), "discount: a number in"),
    (lambda: robust_backward_induction(P, R, 1.0, None, stages=0), "stages: a whole number"),
    (lambda: robust_backward_induction(P, R, 1.0, None, stages=1, final=[1.0]), "final: 2 finite numbers"),
    (lambda: finite_mdp(P, R, 0.9, terminal=[True, False]), "state 0 is terminal"),
    (lambda: finite_mdp(P, R, 0.9, terminal=[True, True]), "not all true"),
    (lambda: finite_mdp(P, R, 0.9, start=[1.0, 1.0]), "start: 2 probabilities"),
    (lambda: finite_mdp(P, R, 0.9, action_names=("one",)), "action_names: 2 names"),
    (lambda: cliffwalking(1.5), "wind: a probability"),
    (lambda: cliffwalking(reward="goal"), "reward: state or entering"),
    (lambda: american_put(-0.1), "p_up: a probability"),
    (lambda: american_put(low=99.0), "prices: "),
    (lambda: american_put(stages=0), "stages: "),
    (lambda: random_mdp(3, 2, 4), "successors <= states"),
    (lambda: drq(cliffwalking(), [Contamination(0.1)], 10), "drq: CressieRead, ChiSquare or KL"),
    (lambda: drq(cliffwalking(), [], 10), "at least one ball"),
    (lambda: drq(cliffwalking(), [KL(0.1)], 0), "steps: at least 1"),
    (lambda: drq(cliffwalking(), [KL(0.1)], 10, discount=0.9), "a problem brings its own"),
    (lambda: drq(cliffwalking(), [KL(0.1)], 10, value_range=(1.0, 0.0)), "value_range"),
    (lambda: drq(cliffwalking(), [KL(0.1)], 10, step_sizes=((1, 1),)), "step_sizes: three pairs"),
    (lambda: q_learning(cliffwalking(), 10, sampling=Sampling("all")), "no such mode"),
    (lambda: q_learning(cliffwalking(), 10, sampling=Sampling(epsilon=2.0)), "epsilon: in"),
    (lambda: q_learning(([0], [0], [1.0], [0]), 10), "a log does not know it"),
    (lambda: contamination_q_learning(cliffwalking(), [KL(0.1)], 10), "Contamination balls"),
    (
        lambda: contamination_q_learning(cliffwalking(reward="entering"), [Contamination(0.1)], 10),
        "worst state has no reward on entering",
    ),
    (lambda: multilevel_drq(three_state_chain(), CressieRead(2, 0.1), 10, level_rate=1.0), "level_rate in"),
    (lambda: multilevel_drq(three_state_chain(), None, 10), "a ball that re-weights"),
]
LOGS = [
    (lambda: as_log(([0, 1], [0], [0.0, 0.0], [0, 0])), "actions: shape"),
    (lambda: as_log(([0.5], [0], [0.0], [0])), "states: whole numbers"),
    (lambda: as_log(([0], [0], [np.nan], [0])), "rewards: row 0 is not finite"),
    (lambda: as_log(([0], [0], [0.0], [-1])), "states: 0 to "),
    (lambda: as_log(([0], [3], [0.0], [0]), actions=2), "actions: 0 to 1, got 3"),
    (lambda: as_log(([], [], [], [])), "no transition|whole numbers"),
    (lambda: as_log(([0], [0])), "a log is a dataset"),
    (lambda: count_model(([0, 1], [0, 1], [0.0, 0.0], [1, 0]), 0.9), "2 of 4 pairs were never tried"),
]


@pytest.mark.parametrize(("call", "said"), CASES, ids=[said[:30] for _, said in CASES])
def test_problems(call, said) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("call", "said"), LOGS, ids=[said[:30] for _, said in LOGS])
def test_logs(call, said) -> None:
    with pytest.raises(DatasetError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_data_that_are_no_states_are_refused() -> None:
    with pytest.raises(DatasetError, match="actions are continuous"):
        as_log(line_dataset())
    with pytest.raises(DatasetError, match="row 0: the observation is not one-hot"):
        as_log(two_way(line_dataset()))


def test_the_missing_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "offline_robust.tabular.kernels", raising=False)
    with pytest.raises(MissingExtra, match=r"offline-robust\[tabular\]"):
        learning.q_learning(cliffwalking(), 10)
    assert issubclass(MissingExtra, UserError)
    assert robust_value_iteration(P, R, 0.9).v.tolist() == [0.0, 0.0]  # planning needs no numba
