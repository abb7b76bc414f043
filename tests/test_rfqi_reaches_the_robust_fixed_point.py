"""RFQI: its target is the total-variation dual, row by row; its fixed point is that of exact dynamic programming."""

from __future__ import annotations

import warnings
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from toys import line_dataset, make_learner, run_values, saved, two_way

from offline_robust.datasets import TransitionDataset
from offline_robust.divergences import TotalVariation
from offline_robust.experiments import train
from offline_robust.learners.learned_dual import LearnedDual
from offline_robust.networks import DualNetwork


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def learned(ball: TotalVariation) -> LearnedDual:
    """A dual as RFQI holds it, of three inputs."""
    network = DualNetwork(("real",), 3, (8,), stream(0))
    return LearnedDual(ball, network, torch.optim.Adam(network.parameters()), steps=1, linear=True)


def robust(learner, batch, values):
    """Worst values (B,), every row counted."""
    return learner.worst_value(values, torch.ones_like(values), *learner.search.pairs(batch))[0]


def chain_dataset(rows: int) -> TransitionDataset:
    """dr_sac_rfqi 5.3: s0 gives 1 and goes on to s0 or s1 with probability one half each; s1 gives 0 for ever.

    One action. Of the rows half lie in s0, and exactly half of those return to it.
    """
    state = torch.arange(rows) % 2
    after = torch.where((state == 0) & (torch.arange(rows) % 4 == 0), 0, 1)
    one_hot = torch.eye(2)
    none = torch.zeros(rows, dtype=torch.bool)
    return TransitionDataset(
        observations=one_hot[state],
        actions=torch.zeros(rows, dtype=torch.int64),
        rewards=(state == 0).float(),
        next_observations=one_hot[after],
        terminated=none,
        truncated=none,
        next_valid=~none,
        episode=torch.arange(rows),
        observation_space=gym.spaces.Box(0.0, 1.0, (2,), np.float32),
        action_space=gym.spaces.Discrete(1),
    )


@pytest.mark.parametrize(("rho", "expected"), [(0.0, 1.818182), (0.1, 1.5625), (0.3, 1.219512), (0.5, 1.0)])
def test_exact_duals_iterate_to_the_fixed_point(rho: float, expected: float) -> None:
    """V(s0) = 1 / (1 - .9 (.5 - rho)): the operator that the update calls, at the best eta of each state."""
    ball = TotalVariation(rho, v_min=0.0)
    operator = learned(ball).objective
    law = torch.tensor([[0.5, 0.5], [0.0, 1.0]], dtype=torch.float64)
    rewards = torch.tensor([1.0, 0.0], dtype=torch.float64)
    v, errors = torch.zeros(2, dtype=torch.float64), []
    for _ in range(120):
        (eta,) = ball.linear_optimum(v.expand(2, 2), law)
        single = torch.stack([operator(v[j].expand(2), eta) for j in range(2)], dim=1)
        v = rewards + 0.9 * (law * single).sum(1)
        errors.append(abs(v[0].item() - expected))
    assert v[0].item() == pytest.approx(expected, abs=1e-6)
    assert v[1].item() == pytest.approx(0.0, abs=1e-12)
    # A 0.9-contraction: ten steps shrink the error to 0.9^10 = 0.35 of it at least.
    assert errors[20] <= 0.35 * errors[10] + 1e-6


@pytest.mark.parametrize(("rho", "expected"), [(0.1, 1.5625), (0.3, 1.219512)])
def test_the_learner_reaches_the_fixed_point(rho: float, expected: float) -> None:
    """The whole update, networks and all, on batches that are the law itself; eta swings about its optimum by a step
    of Adam, 1e-2 standard deviations, and the value with it: 2 %."""
    data = chain_dataset(8)
    fields = {"hidden": [16], "dual_hidden": [16], "discount": 0.9, "tau": 0.2, "reward_shift": 0.0}
    learner = make_learner("rfqi", data, rho=rho, critic_learning_rate=1e-2, dual_learning_rate=1e-2, **fields)
    batch, values = data.rows(torch.arange(8)), []
    for step in range(600):
        info = learner.update(batch)
        if step >= 500:
            values.append(learner.next_values(torch.eye(2)))
    found = torch.stack(values).mean(0)
    assert found[0].item() == pytest.approx(expected, rel=0.02)
    assert found[1].item() == pytest.approx(0.0, abs=0.02)
    assert info["dual/collapsed"] == 0.0


def test_eta_approaches_the_quantile_of_every_pair() -> None:
    """Values N(2 x, (0.5 + |x|)^2) of x: eta learned from single draws follows x's own (1 - rho)-quantile."""
    rho, draws = 0.3, stream(0)
    dual = DualNetwork(("real",), 1, (32, 32), stream(1), start=(0.52,))
    ball = TotalVariation(rho, v_min=-50.0)
    optimiser = torch.optim.Adam(dual.parameters(), lr=3e-3)
    for step in range(900):
        if step == 600:
            optimiser.param_groups[0]["lr"] = 3e-4
        x = torch.rand(256, 1, generator=draws) * 4 - 2
        values = (2 * x + (0.5 + x.abs()) * torch.randn(256, 1, generator=draws)).squeeze(1)
        dual.observe(values)
        (eta,) = dual(x)
        loss = dual.loss(ball.linear_dual(values, eta))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x = torch.linspace(-1.8, 1.8, 37).unsqueeze(1)
    quantile = (2 * x + (0.5 + x.abs()) * 0.524401).squeeze(1)  # the normal 0.7-quantile
    # Between the smallest spread 0.5 and the largest 2.3: a tenth of the mean spread.
    assert (dual(x)[0] - quantile).abs().mean() < 0.14


def test_shapes_that_would_broadcast_are_refused() -> None:
    ball = TotalVariation(0.5, v_min=0.0)
    column, row = torch.rand(8, 1), torch.rand(8)
    for values, eta in ((column, row), (row, column), (column, column), (row, row[:4]), (row, torch.tensor(1.0))):
        with pytest.raises(ValueError, match="one shape"):
            learned(ball).objective(values, eta)
    dual = learned(ball).network
    with pytest.raises(ValueError, match="one shape"):
        dual.observe(row, column)
    with pytest.raises(ValueError, match="one shape"):
        dual.loss(row, column)


def test_no_eta_sees_another_rows_value() -> None:
    """dr_sac_rfqi 5.2.3, which the released code fails: d loss / d eta_j does not depend on V_i, i != j."""
    data = line_dataset()
    learner = make_learner("rfqi", data)
    batch = data.sample(16, stream(0))

    def gradient(values: torch.Tensor) -> torch.Tensor:
        (eta,) = learner.dual.network(*learner.search.pairs(batch))
        loss = learner.dual.network.loss(learner.dual.objective(values, eta))
        return torch.autograd.grad(loss, eta)[0]

    values = torch.linspace(0.0, 3.0, 16)
    other = values.clone()
    other[1:] = 100.0 - other[1:]
    assert gradient(values)[0] == gradient(other)[0]
    assert not torch.equal(gradient(values), gradient(other))


def test_batch_quantile_is_what_the_released_broadcast_amounts_to() -> None:
    """dr_sac_rfqi 3.4: eta the (1 - rho)-quantile of the minibatch; V >= eta gives (1 - rho) eta, else V - rho eta."""
    data = line_dataset()
    values = 50.0 + 10.0 * torch.randn(1000, generator=stream(0))
    for rho in (0.1, 0.5, 0.77):
        learner = make_learner("rfqi", data, rho=rho, eta_mode="batch_quantile")
        batch = data.sample(1000, stream(1))
        found = robust(learner, batch, values)
        # The (B, B) objective of the release, maximised over one number by trying them all.
        tried = values.sort().values.double()
        objective = (1 - rho) * tried - (tried[:, None] - values.double()).clamp_min(0).mean(1)
        eta = tried[objective.argmax()].float()
        expected = torch.where(values >= eta, (1 - rho) * eta, values - rho * eta)
        # Between two neighbours the objective is flat: eta may be either.
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0)
    assert learner.dual is None
    learner = make_learner("rfqi", data, rho=0.5, eta_mode="batch_quantile")
    found = robust(learner, batch, values)
    assert 0.99 * found.max().item() == pytest.approx(24.7, abs=0.4)
    assert found.min() < 0  # below what any law of the ball can give: values are positive


def test_targets_fall_with_the_radius_and_start_at_the_plain_one() -> None:
    data = line_dataset()
    batch = data.sample(64, stream(0))
    for name, fields in (("per_sample", {}), ("batch_quantile", {"eta_mode": "batch_quantile"})):
        previous = None
        values = torch.linspace(1.0, 9.0, 64)
        for rho in (0.0, 0.1, 0.3, 0.5, 0.9, 1.0):
            learner = make_learner("rfqi", data, rho=rho, **fields)
            if name == "per_sample" and learner.dual is not None:
                (eta,) = learner.ball.linear_optimum(values.unsqueeze(1))
                found = learner.dual.objective(values, eta)
                torch.testing.assert_close(found, (1 - rho) * values)  # one sample: a discount, 5.2.2
            else:
                found = robust(learner, batch, values)
                found = found if rho == 0.0 else found.mean()  # the worst case of the minibatch as one law: its mean
            if rho == 0.0:
                assert torch.equal(found, values)
            assert previous is None or (found.mean() <= previous.mean() - 1e-3).all()
            previous = found


@pytest.mark.parametrize("name", ["fqi", "rfqi"])
@pytest.mark.parametrize("discrete", [False, True])
def test_terminal_rows_never_bootstrap(name: str, discrete: bool) -> None:
    """The target of a true end is its reward, whatever lies in next_observations, NaN included."""
    data = two_way(line_dataset()) if discrete else line_dataset()
    learner = make_learner(name, data)
    for _ in range(20):
        learner.update(data.sample(64, learner.problem.streams["sampler"]))
    batch = data.sample(64, stream(0))
    ends = torch.arange(64) % 2 == 0
    ended = batch._replace(
        terminated=ends,
        next_valid=~ends,
        next_observations=torch.where(ends.unsqueeze(1), torch.nan, batch.next_observations),
    )
    caught = {}
    original = learner.critic_loss
    learner.critic_loss = lambda b, target: caught.update(target=target) or original(b, target)
    info = learner.update(ended)
    rewards = learner.config.shaped(batch.rewards)
    torch.testing.assert_close(caught["target"][ends], rewards[ends])
    assert (caught["target"][~ends] != rewards[~ends]).all()
    assert not caught["target"].requires_grad
    assert all(torch.isfinite(value) for value in info.values())
    networks = [part for part in learner._parts.values() if isinstance(part, torch.nn.Module)]
    assert len(networks) >= 3
    assert all(torch.isfinite(t).all() for part in networks for t in part.state_dict().values())


def test_the_releases_missing_mask_is_an_option_of_that_name() -> None:
    data = line_dataset(truncate=False)
    batch = data.sample(64, stream(0))._replace(terminated=torch.ones(64, dtype=torch.bool))
    for masked in (True, False):
        learner = make_learner("rfqi", data, mask_terminals=masked)
        target = learner.target(batch, learner.next_values(batch.next_observations))
        assert torch.equal(target, learner.config.shaped(batch.rewards)) is masked


def test_negative_shaped_rewards_are_warned_of_once(tmp_path) -> None:
    values = run_values(saved(line_dataset(), tmp_path), "rfqi")
    values["training"] |= {"steps": 2, "log_every": 1}
    good = train(values, out=tmp_path / "good")
    assert "warnings" not in good.meta
    values["learner"] |= {"reward_shift": 1.0}
    with pytest.warns(UserWarning, match=r"rewards reach -.*v_min 0.*reward_shift to \d") as said:
        bad = train(values, out=tmp_path / "bad")
    assert bad.meta["warnings"] == [str(said[0].message)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(values, out=tmp_path / "bad", resume=True)
    # A lower fail state is the other remedy.
    learner = make_learner("rfqi", line_dataset(), reward_shift=0.0, v_min=-1600.0)
    assert learner.warnings(line_dataset()) == []


def test_a_shift_of_rewards_and_of_the_fail_state_together_shift_the_target() -> None:
    """General v_min: values and v_min moved by c move the robust value by c (the no-shift form would not)."""
    values = torch.rand(32, generator=stream(0)) * 5
    eta = torch.rand(32, generator=stream(1)) * 5
    at = learned(TotalVariation(0.4, v_min=0.0)).objective(values, eta)
    moved = learned(TotalVariation(0.4, v_min=-7.0)).objective(values - 7.0, eta - 7.0)
    torch.testing.assert_close(moved, at - 7.0)


def test_one_transition_that_ends_gives_finite_figures() -> None:
    data = line_dataset(episodes=1, length=1, truncate=False)
    data = replace(data, next_valid=torch.zeros(1, dtype=torch.bool))
    for name in ("fqi", "rfqi"):
        learner = make_learner(name, data)
        for _ in range(3):
            info = learner.update(data.sample(8, stream(0)))
        assert all(torch.isfinite(value) for value in info.values()), info
