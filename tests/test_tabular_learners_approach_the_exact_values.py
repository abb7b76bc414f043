"""Sampled learners come near the exact robust values at small budgets, alike for every way to sample."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from offline_robust.collection import collect
from offline_robust.divergences import KL, ChiSquare, Contamination, CressieRead, CVaR
from offline_robust.environment.making import make_env, register_environments
from offline_robust.tabular import (
    Sampling,
    as_log,
    cliffwalking,
    contamination_q_learning,
    count_model,
    drq,
    model_based_q_learning,
    multilevel_drq,
    q_learning,
    robust_value_iteration,
    sample_model,
    three_state_chain,
)

EVERY_PAIR = Sampling("synchronous")


def exact(mdp, ball=None, **options):
    return robust_value_iteration(mdp.transitions, mdp.rewards, mdp.discount, ball, terminal=mdp.terminal, **options)


def logged(mdp, rows: int, seed: int):
    """A log of uniformly random pairs: states, actions, rewards, next states, terminated."""
    rng = np.random.default_rng(seed)
    s = rng.choice(np.flatnonzero(~mdp.terminal), rows)
    a = rng.integers(mdp.actions, size=rows)
    after, law = mdp.transitions
    k = (law[s, a].cumsum(-1) < rng.random((rows, 1))).sum(-1)
    following = after[s, a, k]
    return s, a, mdp.rewards[s, a], following, mdp.terminal[following]


@pytest.mark.parametrize("mode", ["synchronous", "trajectory"])
def test_q_learning_finds_the_plain_values(mode) -> None:
    mdp = cliffwalking()
    steps = 15_000 if mode == "synchronous" else 400_000
    found = q_learning(mdp, steps, sampling=Sampling(mode, epsilon=0.3))
    assert found.v[0, 0, 8] == pytest.approx(exact(mdp).v[8], abs=0.25)


@pytest.mark.parametrize("reward", ["state", "entering"])
def test_synchronous_drq_finds_the_robust_values(reward) -> None:
    mdp = cliffwalking(reward=reward)
    balls = [CressieRead(2, 0.5), ChiSquare(2.0), KL(0.1)]
    found = drq(mdp, balls, 20_000, seeds=(0,), sampling=EVERY_PAIR)
    for i, ball in enumerate(balls):
        expected = exact(mdp, ball)
        assert found.v[i].mean(0)[8] == pytest.approx(expected.v[8], abs=0.5), ball
        # Far below the plain value: the ball is there.
        assert (found.v[i, :, 8] < exact(mdp).v[8] - 1.5).all()


def test_drq_along_one_trajectory_finds_the_robust_values() -> None:
    mdp, ball = cliffwalking(), CressieRead(2, 0.5)
    found = drq(mdp, [ball], 500_000, seeds=(0, 1), sampling=Sampling(epsilon=0.3, record=100_000))
    assert found.v[0].mean(0)[8] == pytest.approx(exact(mdp, ball).v[8], abs=0.3)
    assert found.curve.shape == (1, 2, 5, 17)
    assert found.curve[0, :, -1] == pytest.approx(found.v[0])
    assert found.samples.tolist() == [100_000, 200_000, 300_000, 400_000, 500_000]
    assert found.visits.sum() == 1_000_000


def test_contamination_learns_the_fixed_point_that_reaches_everywhere() -> None:
    mdp, ball = cliffwalking(), Contamination(0.2)
    found = contamination_q_learning(mdp, [ball], 30_000, sampling=EVERY_PAIR)
    assert found.v[0, 0] == pytest.approx(exact(mdp, ball, everywhere=True).v, abs=0.4)
    floor = contamination_q_learning(mdp, [Contamination(0.2, v_min=-10.0)], 30_000, sampling=EVERY_PAIR)
    assert floor.v[0, 0, 8] == pytest.approx(exact(mdp, Contamination(0.2, v_min=-10.0)).v[8], abs=0.4)


def test_drq_learns_from_a_log_and_a_counted_model_too() -> None:
    mdp, ball = cliffwalking(), CressieRead(2, 0.3)
    log = logged(mdp, 60_000, 0)
    expected = exact(mdp, ball).v
    counted = model_based_q_learning(log, 0.9, ball)
    assert counted.v[:16] == pytest.approx(expected[:16], abs=0.4)
    assert counted.v[16] == 0.0
    found = drq(log, [ball], 1_000_000, discount=0.9)
    assert found.v[0, 0, 8] == pytest.approx(counted.v[8], abs=0.3)
    assert as_log(log).states == 17


def test_counts_are_relative_frequencies() -> None:
    model = count_model(([0, 0, 0, 1, 1], [0, 0, 0, 0, 0], [1.0, 1.0, 4.0, 0.0, 0.0], [1, 1, 0, 0, 1]), 0.9)
    assert model.counts.tolist() == [[3], [2]]
    assert model.mdp.transitions.dense[:, 0] == pytest.approx(np.array([[1 / 3, 2 / 3], [0.5, 0.5]]))
    assert model.mdp.rewards == pytest.approx(np.array([[2.0], [0.0]]))
    kept = count_model(([0, 0, 0, 1], [0] * 4, [1.0, 1.0, 4.0, 0.0], [1, 1, 0, 1]), 0.9, entering=True).mdp
    assert kept.rewards[0, 0] == pytest.approx([4.0, 1.0])
    # A pair that was never tried is the worst place there is.
    held = count_model(([0], [0], [1.0], [0]), 0.5, actions=2, untried_reward=-1.0).mdp
    assert exact(held).q == pytest.approx(np.array([[2.0, 0.0]]), abs=1e-9)


def test_a_simulated_model_of_many_samples_is_the_problem() -> None:
    mdp, ball = cliffwalking(), KL(0.2)
    counted = sample_model(mdp, 4_000).mdp
    assert exact(counted, ball).v == pytest.approx(exact(mdp, ball).v, abs=0.3)
    few = sample_model(mdp, 1).mdp
    # One sample a pair: the ball holds nothing else, the model-based form of the plug-in's failure.
    assert exact(few, ball).v == pytest.approx(exact(few).v)


@pytest.mark.parametrize("ball", [CressieRead(2, 0.1), CVaR(0.5)], ids=repr)
def test_multilevel_drq_finds_the_robust_values(ball) -> None:
    chain = three_state_chain(discount=0.5)
    found = multilevel_drq(chain, ball, 200, seeds=range(8), record=100)
    error = found.q.mean(0) - exact(chain, ball).q
    assert abs(error[:2]).max() < 0.1
    assert (found.q[:, 2] == 0.0).all()
    assert found.curve.shape == (8, 2, 3)
    # 2 p / (2 p - 1) = 6 samples a pair and sweep, on average; four pairs.
    assert found.samples[:, -1].mean() == pytest.approx(200 * 4 * 6, rel=0.3)


def test_radius_zero_is_q_learning_and_runs_repeat() -> None:
    mdp = cliffwalking()
    plain = q_learning(mdp, 1_000, seeds=(3, 4), sampling=Sampling(episode_steps=20))
    zero = drq(mdp, [CressieRead(2, 0.0), KL(0.0)], 1_000, seeds=(3, 4), sampling=Sampling(episode_steps=20))
    assert (zero.q == plain.q).all()
    assert (plain.q[0, 0] != plain.q[0, 1]).any()
    # A seed learns the same whoever runs beside it.
    assert (q_learning(mdp, 1_000, seeds=(4,), sampling=Sampling(episode_steps=20)).q[0, 0] == plain.q[0, 1]).all()


@pytest.mark.parametrize("env_id", ["WindyCliffwalking-v0", "AmericanPut-v0", "RandomMDP-v0", "ThreeStateChain-v0"])
def test_environments_are_gymnasiums(env_id) -> None:
    register_environments()
    env = gym.make(env_id)
    first, _ = env.reset(seed=0)
    steps = [env.step(env.action_space.sample()) for _ in range(3)]
    assert all(env.observation_space.contains(observation) for observation in (first, *(step[0] for step in steps)))
    check_env(env.unwrapped, skip_render_check=True)


def test_environments_do_what_their_arrays_say() -> None:
    env = make_env("WindyCliffwalking-v0").unwrapped
    env.wind = 0.8
    env.reset(seed=0)
    rng, rows = np.random.default_rng(0), []
    for _ in range(30_000):
        s = env.state
        a = int(rng.integers(4))
        after, reward, ended, _, _ = env.step(a)
        rows.append((s, a, reward, after, ended))
        if ended:
            env.reset()
    s, a, r, after, ended = (np.array(column) for column in zip(*rows, strict=True))
    dense, mdp = cliffwalking(0.8, reward="entering").transitions.dense, cliffwalking(0.8)
    counts = np.zeros((17, 4, 17))
    np.add.at(counts, (s, a, after), 1)
    tried = counts.sum(-1) > 200
    assert tried.sum() > 40
    share = counts / counts.sum(-1, keepdims=True).clip(1)
    assert abs(share - dense)[tried].max() < 0.12
    assert (r == mdp.rewards[after, 0]).all()
    assert (ended == (after == 11)).all()
    with pytest.raises(Exception, match="wind"):
        env.wind = 1.5
    assert env.wind == 0.8


def test_a_collected_dataset_counts_up_to_its_problem() -> None:
    data = collect(None, "ThreeStateChain-v0", transitions=20_000, seed=0, parallel=4)
    model = count_model(data, 0.9, untried_reward=0.0).mdp
    assert model.transitions.dense[0, 1, 1] == pytest.approx(0.8, abs=0.03)
    ball = ChiSquare(0.04)
    assert exact(model, ball).v[:2] == pytest.approx(exact(three_state_chain(), ball).v[:2], abs=0.5)
