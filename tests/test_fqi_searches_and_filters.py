"""FQI and what it shares with RFQI: candidate actions, the mix of critics, the filter, the policy that comes out."""

from __future__ import annotations

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from toys import line_dataset, make_learner, problem_of, run_values, saved, two_way

from offline_robust.errors import ConfigError, EvaluationError
from offline_robust.experiments import load_config
from offline_robust.experiments.config import TrainingConfig
from offline_robust.models import Scales, StateDensity
from offline_robust.networks import (
    ActionVAE,
    BCQActor,
    CandidateSearch,
    CandidateSpec,
    EnsembleMLP,
    PerturbationNetwork,
    Policy,
    policy_spec,
)
from offline_robust.networks.mlp import MLP, PairInference

SPACE = gym.spaces.Box(np.float32([-1.0, 2.0]), np.float32([3.0, 4.0]))


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spec(count: int = 6, reach: float = 0.3):
    return policy_spec("bcq", 3, SPACE, (16, 12), None, CandidateSpec(count, 4, (20, 20), reach))


@pytest.fixture
def data():
    return line_dataset()


def trained(name: str, data, **fields):
    learner = make_learner(name, data, **fields)
    for _ in range(20):
        learner.update(data.sample(64, learner.problem.streams["sampler"]))
    return learner


def networks_of(learner):
    """The learner's networks, by their names in checkpoints."""
    return {name: part for name, part in learner._parts.items() if isinstance(part, torch.nn.Module)}


def density_phase(learner):
    """The phase before the policy's."""
    first, second = learner.phases(TrainingConfig(model_steps=1, steps=1))
    assert (first.steps, second.step) == (1, learner.update)
    return first


# --- Candidates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
def test_pairs_evaluate_as_if_written_side_by_side(shared: bool) -> None:
    network = MLP([5, 8, 8, 2], stream(0))
    s, x = torch.randn(7, 3, generator=stream(1)), torch.randn(1 if shared else 7, 4, 2, generator=stream(2))
    pairs = torch.cat([s.unsqueeze(1).expand(7, 4, 3), x.expand(7, 4, 2)], dim=2).flatten(0, 1)
    for layers in (network, network.frozen()):
        found = PairInference(layers, 3, torch.float32, {})(s, x if shared else x.flatten(0, 1))
        torch.testing.assert_close(found, network(pairs).detach(), atol=1e-6, rtol=1e-5)


def test_members_of_an_ensemble_are_views_of_it() -> None:
    critics = EnsembleMLP(2, [3, 8, 1], stream(0))
    x = torch.randn(5, 3, generator=stream(1))
    layers = critics.member(1)
    hidden = torch.relu(torch.nn.functional.linear(x, *layers[0]))
    torch.testing.assert_close(torch.nn.functional.linear(hidden, *layers[1]), critics(x)[1])
    with torch.no_grad():
        critics.weights[0].zero_()
    assert (layers[0][0] == 0).all()


def test_the_policy_takes_the_best_candidate() -> None:
    """Against the definition, one observation and one candidate at a time."""
    made = spec()
    actor = BCQActor(made, stream(0))
    actor.draws.copy_(torch.randn(6, 4, generator=stream(1)).clamp(-0.5, 0.5))
    vae, perturbation = ActionVAE(made, stream(2)), PerturbationNetwork(made, stream(3))
    vae.decoder.load_state_dict(actor.decoder.state_dict())
    perturbation.network.load_state_dict(actor.perturbation.state_dict())
    observations = torch.randn(40, 3, generator=stream(4))
    policy = Policy(made, actor)
    found = policy.act(observations)
    for row, action in zip(observations, found, strict=True):
        s = row.expand(6, 3)
        candidates = perturbation(s, vae.decode(s, actor.draws))
        values = actor.critic(torch.cat([s, candidates], dim=1)).squeeze(1)
        torch.testing.assert_close(action, candidates[values.argmax()].detach(), atol=1e-5, rtol=1e-5)
    low, high = torch.tensor(SPACE.low), torch.tensor(SPACE.high)
    assert (found >= low).all()
    assert (found <= high).all()
    assert torch.equal(policy.act(observations), found)  # no draw is made while acting
    torch.testing.assert_close(policy.act(observations[0]), found[0])
    np.testing.assert_array_equal(policy.act(observations.numpy()), found.numpy())
    torch.testing.assert_close(copy.deepcopy(actor).double()(observations.double()).float(), found)


def test_many_rows_go_in_pieces(monkeypatch) -> None:
    actor = BCQActor(spec(), stream(0))
    actor.draws.normal_(generator=stream(1))
    observations = torch.randn(50, 3, generator=stream(2))
    whole = actor(observations)
    monkeypatch.setattr("offline_robust.networks.candidates._ROWS_IN_CACHE", 20)
    torch.testing.assert_close(actor(observations), whole)


def test_perturbations_stay_within_their_reach_and_the_action_range() -> None:
    for reach in (0.0, 0.1, 2.0):
        perturbation = PerturbationNetwork(spec(reach=reach), stream(0))
        with torch.no_grad():
            perturbation.network.linears[-1].weight.mul_(100.0)
        s = torch.randn(200, 3, generator=stream(1))
        low, high = torch.tensor(SPACE.low), torch.tensor(SPACE.high)
        actions = low + (high - low) * torch.rand(200, 2, generator=stream(2))
        moved = perturbation(s, actions)
        assert (moved >= low).all()
        assert (moved <= high).all()
        assert ((moved - actions).abs() <= reach * (high - low) / 2 + 1e-6).all()
        assert torch.equal(moved, actions) == (reach == 0.0)


def test_the_behaviours_actions_are_learned() -> None:
    """Actions 0.8 sin(2 s): decoded draws lie near them, and far fewer lie elsewhere."""
    space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    made = policy_spec("bcq", 1, space, (8,), None, CandidateSpec(1, 2, (64, 64), 0.1))
    vae = ActionVAE(made, stream(0))
    optimiser, draws = torch.optim.Adam(vae.parameters(), lr=3e-3), stream(1)
    for _ in range(500):
        s = torch.rand(128, 1, generator=draws) * 4 - 2
        loss, info = vae.loss(s, 0.8 * torch.sin(2 * s), torch.randn(128, 2, generator=draws))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    s = torch.linspace(-1.9, 1.9, 60).unsqueeze(1)
    decoded = vae.decode(s, torch.randn(60, 2, generator=draws).clamp(-0.5, 0.5))
    assert (decoded - 0.8 * torch.sin(2 * s)).abs().mean() < 0.1
    assert info["train/vae_error"] < 0.02


# --- Targets and losses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("discrete", [False, True])
def test_values_are_the_best_mix_of_the_target_critics(discrete: bool, data) -> None:
    data = two_way(data) if discrete else data
    learner = trained("fqi", data, pessimism=0.6, sampling_precision="float32", backup_noise=0.0, backup="ac")
    observations = data.observations[:40]
    state = learner.problem.streams["policy"].get_state()
    found = learner.next_values(observations)
    if discrete:
        q = learner.target_critics(observations)
    else:
        learner.problem.streams["policy"].set_state(state)
        search = learner.search
        s = observations.repeat_interleave(10, 0)
        actions = search.target_perturbation(s, search.vae.decode(s, search.draws(400)))
        q = learner.target_critics(torch.cat([s, actions], 1)).view(2, 40, 10)
    expected = (0.6 * q.min(0).values + 0.4 * q.max(0).values).max(1).values
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-5)


def test_the_ql_backup_adds_noise_and_takes_no_perturbation(data) -> None:
    learner = make_learner("fqi", data, backup="ql", backup_noise=0.3, sampling_precision="float32")
    search = learner.search.candidate_search(learner.target_critics)
    s, z = data.observations[:500], learner.search.draws(500)
    plain = search.actions(s, z)
    torch.testing.assert_close(plain, learner.search.vae.decode(s, z).detach(), atol=1e-6, rtol=1e-5)
    noise = learner.search.noise(500)
    assert noise.std().item() == pytest.approx(0.3, rel=0.15)  # five standard errors
    moved = search.actions(s, z, noise)
    torch.testing.assert_close(moved, (plain + noise).clamp(-1, 1), atol=1e-6, rtol=1e-5)
    assert make_learner("fqi", data, backup="ac").search.noise(5) is None
    assert make_learner("rfqi", data).search.noise(5) is None


def test_reduced_precision_changes_values_negligibly(data) -> None:
    """bfloat16 products move V by under 1 % of its spread over the data, in the mean."""
    learner = trained("rfqi", data, sampling_precision="float32", tau=0.1, critic_learning_rate=3e-3)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        learner.search.dtype, learner.search.buffers = dtype, {}
        learner.problem.streams["policy"].manual_seed(5)
        found.append(learner.next_values(data.observations))
    assert (found[0] - found[1]).abs().mean() < 1e-2 * found[0].std()
    assert not torch.equal(*found)


def test_fqi_without_filter_is_rfqi_without_a_ball(data) -> None:
    """With radius 0 and no filter the two are one algorithm: the same weights, bit for bit."""
    plain = trained("fqi", data, density_filter=False, backup="ac", reward_shift=16.0)
    robust = trained("rfqi", data, rho=0.0)
    parts, others = networks_of(plain), networks_of(robust)
    assert parts.keys() == others.keys()
    assert len(parts) == 6
    for name, part in parts.items():
        for key, value in part.state_dict().items():
            assert torch.equal(value, others[name].state_dict()[key]), (name, key)


def test_the_actor_climbs_the_first_critic_and_moves_nothing_else(data) -> None:
    learner = trained("rfqi", data)
    observations = data.observations[:64]
    parts = [part for name, part in networks_of(learner).items() if name != "perturbation"]
    for part in networks_of(learner).values():
        for parameter in part.parameters():
            parameter.grad = None
    state = learner.problem.streams["policy"].get_state()
    loss, _ = learner.search.perturbation_loss(learner.critics, observations)
    loss.backward()
    assert all(parameter.grad is None for part in parts for parameter in part.parameters())
    with torch.no_grad():
        for parameter in learner.search.perturbation.parameters():
            parameter -= 1e-2 * parameter.grad / (1e-6 + parameter.grad.norm())
    learner.problem.streams["policy"].set_state(state)
    assert learner.search.perturbation_loss(learner.critics, observations)[0] < loss


@pytest.mark.parametrize("averaging", [1.0, 0.25])
@pytest.mark.parametrize("discrete", [False, True])
def test_the_deployed_policy_follows_at_its_step(averaging: float, discrete: bool, data) -> None:
    data = two_way(data) if discrete else data
    learner = trained("rfqi", data, policy_averaging=averaging)
    search = learner.search
    before = [p.clone() for p in search.deployed.parameters()]
    learner.update(data.sample(64, stream(0)))
    for old, new, source in zip(before, search.deployed.parameters(), search.sources, strict=True):
        torch.testing.assert_close(new, old + averaging * (source - old))
        assert not new.requires_grad
    first = learner.critics(data.observations)[0] if discrete else None
    if discrete and averaging == 1.0:
        assert torch.equal(learner.policy.act(data.observations), first.argmax(1))


def test_discrete_actions_must_count_from_zero(data) -> None:
    space = gym.spaces.Discrete(3, start=1)
    with pytest.raises(EvaluationError, match="count from 0"):
        policy_spec("greedy", 2, space, (8,), None)
    with pytest.raises(EvaluationError, match="discrete actions"):
        policy_spec("greedy", 2, SPACE, (8,), None)


# --- The filter -----------------------------------------------------------------------------------------------------


def test_unfamiliar_observations_are_worth_v_min(data) -> None:
    learner = make_learner("fqi", data, v_min=-7.0)
    sampler = learner.problem.streams["sampler"]
    for _ in range(400):
        density_phase(learner).step(data.sample(128, sampler))
    for _ in range(20):
        batch = data.sample(200, sampler)
        learner.filtered(torch.zeros(200), batch.next_observations, torch.ones(200, dtype=torch.bool))
    share = (learner.density.score(data.next_observations) < learner.density.threshold).float().mean()
    assert share.item() == pytest.approx(0.02, abs=0.012)  # 500 rows: two standard errors
    batch = data.sample(64, stream(0))
    far = torch.full((64, 1), 40.0)
    values = torch.linspace(1.0, 2.0, 64)
    ones = torch.ones(64, dtype=torch.bool)
    torch.testing.assert_close(learner.filtered(values, far, ones)[0], torch.full((64,), -7.0), atol=1e-3, rtol=0)
    found, info = learner.filtered(values, batch.next_observations, ones)
    kept = (found - values).abs() < 0.05
    assert kept.float().mean() > 0.85
    assert info["model/familiar"] > 0.9


def test_the_threshold_is_the_second_percentile_of_what_it_has_seen() -> None:
    data = line_dataset(episodes=200)
    density = StateDensity(1, (16,), 1e-3, Scales.of(data), None, stream(0), torch.device("cpu"))
    rows = data.next_observations[torch.randperm(5000, generator=stream(1))]
    valid = torch.ones(500, dtype=torch.bool)
    for piece in rows.split(500):
        density.familiarity(piece, valid, 100.0)
    exact = density.score(rows).sort().values[99]
    spread = density.score(rows).std()
    assert (density.threshold - exact).abs() < 0.1 * spread
    assert density.rows == 5000
    before = density.threshold.clone()
    density.familiarity(rows[:500], ~valid, 100.0)  # rows without a true next observation do not count
    assert torch.equal(density.threshold, before)
    fixed = StateDensity(1, (16,), 1e-3, None, -0.4, stream(0), torch.device("cpu"))
    fixed.familiarity(rows[:500], valid, 100.0)
    assert fixed.threshold.item() == pytest.approx(-0.4)


def test_the_filters_network_learns_in_its_own_phase_only(data) -> None:
    learner = make_learner("fqi", data)
    start = copy.deepcopy(learner.density.networks.state_dict())
    learner.update(data.sample(32, stream(0)))
    assert all(torch.equal(start[key], value) for key, value in learner.density.networks.state_dict().items())
    density_phase(learner).step(data.sample(32, stream(0)))
    assert not all(torch.equal(start[key], value) for key, value in learner.density.networks.state_dict().items())


def test_a_filter_that_nothing_trains_is_refused(tmp_path) -> None:
    values = run_values(saved(line_dataset(), tmp_path), "fqi")
    values["training"]["model_steps"] = 0
    with pytest.raises(ConfigError, match=r"density filter learns in training\.model_steps"):
        load_config(values)
    values["learner"]["density_filter"] = False
    load_config(values)
    values["training"]["model_steps"] = 5
    with pytest.raises(ConfigError, match="there is no model"):
        load_config(values)


def test_candidate_values_have_a_row_for_each_critic() -> None:
    made = spec()
    vae, problem = ActionVAE(made, stream(0)), problem_of(line_dataset())
    critics = EnsembleMLP(2, [5, 8, 1], stream(1))
    search = CandidateSearch(
        vae.decoder,
        None,
        [critics.member(0), critics.member(1)],
        3,
        0.1,
        vae.centre,
        vae.half_range,
        torch.float32,
        {},
    )
    s, z = torch.randn(9, 3, generator=problem.streams["model"]), torch.randn(36, 4, generator=stream(2))
    actions = search.actions(s, z)
    values = search.values(s, actions)
    assert values.shape == (2, 9, 4)
    pairs = torch.cat([s.repeat_interleave(4, 0), actions], 1)
    torch.testing.assert_close(values, critics(pairs).detach().view(2, 9, 4), atol=1e-6, rtol=1e-5)
