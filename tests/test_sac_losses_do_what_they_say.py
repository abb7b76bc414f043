"""SAC and DR-SAC: signs, gradients, masks and targets."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from scipy.stats import norm
from toys import future_of, line_dataset, make_learner, problem_of, small_vae

from offline_robust.datasets import Batch
from offline_robust.divergences import KL
from offline_robust.learners import DRSAC, DRSACConfig
from offline_robust.learners.worst_case import Exact
from offline_robust.networks import Policy, TanhGaussianActor, policy_spec


@pytest.fixture
def data():
    return line_dataset()


@pytest.fixture
def batch(data) -> Batch:
    return data.sample(64, torch.Generator().manual_seed(0))


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def target_of(learner, batch: Batch) -> torch.Tensor:
    """The critics' target, caught on its way into the loss; targets and optimiser steps do not matter to it."""
    caught = {}
    original = learner.critic_loss
    learner.critic_loss = lambda b, target: caught.update(target=target) or original(b, target)
    learner.update(batch)
    assert not caught["target"].requires_grad
    return caught["target"]


def trained(name: str, data, **fields):
    learner = make_learner(name, data, **fields)
    for _ in range(20):
        learner.update(data.sample(64, learner.problem.streams["sampler"]))
    return learner


def test_log_density_equals_the_change_of_variables() -> None:
    """log N(u) - sum log(1 - tanh(u)^2), to 1e-4 up to |u| = 6 and finite beyond, where the naive form is not."""
    space = gym.spaces.Box(-3.0, 5.0, (2,), np.float32)
    actor = TanhGaussianActor(policy_spec("tanh_gaussian", 3, space, [8], None), stream(0)).double()
    observations = torch.randn(40, 3, generator=stream(1), dtype=torch.float64)
    noise = torch.linspace(-6, 6, 80, dtype=torch.float64).view(40, 2)
    actions, log_prob = actor.sample(observations, noise)
    hidden = torch.relu(actor.trunk(observations))
    mean, log_std = actor.mean(hidden).detach().numpy(), actor.log_std(hidden).detach().numpy()
    u = mean + np.exp(log_std) * noise.numpy()
    expected = (norm.logpdf(u, mean, np.exp(log_std)) - np.log1p(-(np.tanh(u) ** 2))).sum(1)
    np.testing.assert_allclose(log_prob.detach().numpy(), expected, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(actions.detach().numpy(), 1.0 + 4.0 * np.tanh(u), atol=1e-6)
    _, far = actor.sample(observations, torch.full((40, 2), 400.0, dtype=torch.float64))
    assert torch.isfinite(far).all()


def test_deterministic_action_is_within_bounds_and_arrays_and_tensors_agree() -> None:
    space = gym.spaces.Box(np.float32([-1, 2]), np.float32([1, 6]))
    spec = policy_spec("tanh_gaussian", 3, space, [8], None)
    policy = Policy(spec, TanhGaussianActor(spec, stream(0)))
    observations = np.random.default_rng(0).normal(size=(30, 3)) * 100
    actions = policy.act(observations)
    assert (actions >= space.low).all()
    assert (actions <= space.high).all()
    np.testing.assert_array_equal(actions, policy.act(torch.from_numpy(observations)).numpy())
    drawn = policy.act(observations, deterministic=False, generator=stream(3))
    np.testing.assert_array_equal(drawn, policy.act(observations, deterministic=False, generator=stream(3)))
    assert np.abs(drawn - actions).max() > 0.05


def test_terminal_rows_never_bootstrap(data, batch) -> None:
    """The target of a true end is its reward, whatever lies in next_observations, NaN included."""
    ends = torch.arange(64) % 2 == 0
    nothing = torch.where(ends.unsqueeze(1), torch.nan, batch.next_observations)
    ended = batch._replace(terminated=ends, next_observations=nothing, next_valid=~ends)
    for name in ("sac", "dr_sac"):
        learner = trained(name, data)
        target = target_of(learner, ended)
        torch.testing.assert_close(target[ends], batch.rewards[ends])
        assert torch.isfinite(target).all()
        assert (target[~ends] != batch.rewards[~ends]).all()
        assert all(torch.isfinite(p).all() for p in learner.critics.parameters())
        if learner.model is not None:
            assert all(torch.isfinite(p).all() for p in learner.model.networks.parameters())


@pytest.mark.parametrize("name", ["sac", "dr_sac"])
def test_time_limits_bootstrap_unless_asked_otherwise(name: str, data, batch) -> None:
    cut = batch._replace(truncated=torch.ones(64, dtype=torch.bool))
    through = target_of(trained(name, data), cut)
    as_ends = target_of(trained(name, data, timeouts_as_terminals=True), cut)
    assert (through != batch.rewards).all()
    torch.testing.assert_close(as_ends, batch.rewards)


def test_rewards_are_shifted_then_scaled(data, batch) -> None:
    ends = batch._replace(terminated=torch.ones(64, dtype=torch.bool))
    target = target_of(make_learner("sac", data, reward_shift=8.0, reward_scale=0.125), ends)
    torch.testing.assert_close(target, (batch.rewards + 8.0) / 8.0)


def test_actor_gradient_raises_value_and_entropy_and_reaches_the_actor_alone(data, batch) -> None:
    learner = trained("sac", data)
    noise = torch.randn(64, 1, generator=stream(0))

    def objective() -> tuple[torch.Tensor, torch.Tensor]:
        actions, log_prob = learner.actor.sample(batch.observations, noise)
        q = learner.target_critics(torch.cat([batch.observations, actions], 1)).squeeze(-1).amin(0)
        return q, log_prob

    for alpha, better in ((0.0, lambda q, lp: q.mean()), (1e4, lambda q, lp: -lp.mean())):
        q, log_prob = objective()
        loss, _ = learner.actor_loss(q, log_prob, torch.tensor(alpha), batch)
        before = better(q, log_prob).item()
        gradients = torch.autograd.grad(loss, list(learner.actor.parameters()))
        scale = 1e-3 / torch.cat([g.flatten() for g in gradients]).norm()
        with torch.no_grad():
            for parameter, gradient in zip(learner.actor.parameters(), gradients, strict=True):
                parameter -= scale * gradient
        assert better(*objective()).item() > before
    assert all(p.grad is None for p in learner.target_critics.parameters())


def test_temperature_moves_entropy_towards_its_target(data) -> None:
    learner = make_learner("sac", data)
    for log_prob, sign in ((torch.full((8,), 5.0), 1), (torch.full((8,), -5.0), -1)):
        loss, _ = learner.temperature_loss(log_prob)
        (gradient,) = torch.autograd.grad(loss, learner.log_alpha)
        assert -gradient.item() * sign > 0  # descent raises alpha exactly when entropy is below -A


def test_soft_value_is_the_target_minimum_less_alpha_log_pi(data, batch) -> None:
    learner = trained("sac", data, critics=4, initial_temperature=0.7)
    noise_state = learner.problem.streams["policy"].get_state()
    noise = torch.randn((64, 1), generator=learner.problem.streams["policy"])
    learner.problem.streams["policy"].set_state(noise_state)
    actions, log_prob = learner.actor.sample(batch.observations, noise)
    members = learner.target_critics(torch.cat([batch.observations, actions], 1))
    assert members.shape == (4, 64, 1)
    expected = (members.min(dim=0).values.squeeze(-1) - learner.log_alpha.exp() * log_prob).detach()
    caught = {}
    original = learner.value_loss
    learner.value_loss = lambda o, soft: caught.update(soft=soft) or original(o, soft)
    learner.update(batch)
    torch.testing.assert_close(caught["soft"], expected)
    assert not caught["soft"].requires_grad


def test_polyak_moves_targets_by_tau(data, batch) -> None:
    learner = make_learner("sac", data, tau=0.25)
    before = [t.clone() for t in learner._targets()]
    learner.update(batch)
    for old, new, source in zip(before, learner._targets(), learner._sources(), strict=True):
        torch.testing.assert_close(new, old + 0.25 * (source - old))


@pytest.mark.parametrize("averaging", [1.0, 0.25])
def test_deployed_actor_follows_the_learning_one_at_its_step(averaging: float, data, batch) -> None:
    learner = trained("sac", data, policy_averaging=averaging)
    before = [p.clone() for p in learner.policy.actor.parameters()]
    learner.update(batch)
    for old, new, actor in zip(before, learner.policy.actor.parameters(), learner.actor.parameters(), strict=True):
        torch.testing.assert_close(new, old + averaging * (actor - old))
        assert not new.requires_grad


def test_radius_zero_targets_the_mean_over_the_same_samples(data, batch) -> None:
    learner = trained("dr_sac", data, delta=0.0, train_model=False)
    state = learner.problem.streams["model"].get_state()
    values = future_of(learner, batch).values
    learner.problem.streams["model"].set_state(state)
    torch.testing.assert_close(learner.worst_case(future_of(learner, batch))[0], values.mean(1))


def test_larger_radius_never_raises_the_target(data, batch) -> None:
    learner = trained("dr_sac", data, train_model=False)
    previous = None
    for delta in (0.0, 0.1, 0.5, 1.0, 2.0, 5.0):
        learner.worst_case = Exact(KL(delta))
        learner.problem.streams["model"].manual_seed(7)
        worst, info = learner.worst_case(future_of(learner, batch))
        if previous is not None:
            assert (worst <= previous + 1e-5).all()
        assert info["dual/gap"] >= -1e-6
        previous = worst
    torch.testing.assert_close(info["dual/saturated"], torch.tensor(1.0))  # 16 samples saturate at log 16 = 2.77


def test_learned_dual_reaches_the_exact_one(data) -> None:
    """On frozen values: within 1e-3 of the exact worst case on average after training, and never above it."""
    learner = make_learner("dr_sac", data, dual="functional", dual_learning_rate=3e-3, samples=64, hidden=[32, 32])
    pairs = torch.randn(64, 2, generator=stream(0))
    spread = 0.5 + pairs[:, :1].abs()
    values = torch.randn(64, 64, generator=stream(1)) * spread + pairs.sum(1, keepdim=True)
    exact = KL(0.5).worst_case(values)[0]
    dual = learner.worst_case.dual
    assert dual.steps == 5
    for step in range(1200):
        if step == 800:
            dual.optimiser.param_groups[0]["lr"] = 3e-4
        dual.fit(pairs, values)
    learned = dual.worst_case(pairs, values)[0]
    assert (exact - learned).mean().item() < 1e-3
    assert (learned <= exact + 1e-5).all()


def test_dual_gradient_is_minus_g_times_kl_minus_delta(data) -> None:
    """For G = exp(o): d loss / d o = -g (KL(q_g || p) - delta) (dr_sac_rfqi 5.1.5)."""
    values = torch.tensor([1.0, 2.0, 5.0, 10.0], dtype=torch.float64).expand(3, 4)
    o = torch.tensor([0.5, 1.982935, 5.0], dtype=torch.float64).log().requires_grad_()
    law = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    loss = -KL(0.25).profile(values, o.exp(), law.expand(3, 4)).sum()
    loss.backward()
    expected = -o.detach().exp() * torch.tensor([0.383978, 0.0, -0.165489], dtype=torch.float64)
    torch.testing.assert_close(o.grad, expected, atol=2e-6, rtol=0)


def test_reduced_precision_changes_the_target_negligibly(data, batch) -> None:
    """bfloat16 products move the robust value by under 0.5 % of the spread of values over the batch, in the mean."""
    fields = {"hidden": (64, 64), "samples": 200, "train_model": False, "tau": 0.05, "critic_learning_rate": 3e-3}
    fields |= {"discount": 0.9, "delta": 0.5}
    reference = make_learner("dr_sac", data, sampling_precision="float32", **fields)
    for _ in range(300):
        reference.fit_model(data.sample(64, reference.problem.streams["sampler"]))
    for _ in range(300):
        reference.update(data.sample(64, reference.problem.streams["sampler"]))
    reduced = DRSAC(
        DRSACConfig(sampling_precision="bfloat16", **fields),
        replace(problem_of(data), streams=reference.problem.streams, model=reference.model),
    )
    reduced.load_state(reference.state())
    found = []
    for learner in (reference, reduced):
        reference.problem.streams["model"].manual_seed(5)
        found.append(learner.worst_case(future_of(learner, batch))[0])
    assert (found[0] - found[1]).abs().mean() < 5e-3 * found[0].std()
    assert not torch.equal(*found)


def test_functional_dual_refuses_radius_zero(data) -> None:
    with pytest.raises(Exception, match="dual: exact"):
        make_learner("dr_sac", data, dual="functional", delta=0.0)


def test_sampling_in_pieces_equals_one_piece(data, batch, monkeypatch) -> None:
    """Each piece draws its own noise in order: the law of every pair is the same model's."""
    learner = trained("dr_sac", data, samples=400, sampling_precision="float32", train_model=False)
    pieces = future_of(learner, batch).values
    assert pieces.shape == (64, 400)
    states = learner.model.sample(batch.observations, batch.actions, 400, stream(11))
    direct = learner.target_value(states).squeeze(-1)
    standard_error = direct.std(1) * (2 / 400) ** 0.5
    assert ((pieces.mean(1) - direct.mean(1)).abs() < 5 * standard_error).all()


def test_model_draws_do_not_reach_into_gradients(data, batch) -> None:
    problem = problem_of(data)
    learner = DRSAC(
        DRSACConfig(hidden=(16, 16), samples=8, train_model=False),
        replace(problem, model=small_vae(data, problem, smoothing=0.1)),
    )
    before = [p.detach().clone() for p in learner.model.networks.parameters()]
    learner.update(batch)
    for old, new in zip(before, learner.model.networks.parameters(), strict=True):
        assert torch.equal(old, new)
        assert new.grad is None
