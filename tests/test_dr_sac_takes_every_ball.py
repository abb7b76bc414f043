"""DR-SAC under any ball: targets are worst cases, duals from samples and from data agree, the rest is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import pytest
import torch
from toys import future_of, line_dataset, make_learner, problem_of, run_values, saved, small_vae

from offline_robust.divergences import KL, CVaR, Divergence, GradientWasserstein, TotalVariation, make
from offline_robust.errors import ConfigError
from offline_robust.experiments import load_config, train
from offline_robust.experiments.checkpoints import load_checkpoint, save_checkpoint
from offline_robust.learners import DRSAC, DRSACConfig
from offline_robust.learners.learned_dual import LearnedDual, dual_kinds, normal_shift, normal_start
from offline_robust.networks import DualNetwork, adamw

BALLS = [
    {"name": "kl", "radius": 0.4},
    {"name": "cressie_read", "k": 3.0, "radius": 0.3},
    {"name": "chi2", "radius": 0.5},
    {"name": "tv", "radius": 0.3},
    {"name": "tv", "radius": 0.3, "v_min": -50.0},
    {"name": "cvar", "alpha": 0.4},
    {"name": "contamination", "radius": 0.2},
    {"name": "contamination", "radius": 0.2, "v_min": -50.0},
]
GRADIENT = {"name": "wasserstein_gradient", "radius": 0.3}
ids = {"ids": lambda ball: "-".join(map(str, ball.values())) if isinstance(ball, dict) else None}


@pytest.fixture(scope="module")
def data():
    return line_dataset()


@pytest.fixture(scope="module")
def batch(data):
    return data.sample(64, torch.Generator().manual_seed(0))


def dr_sac(data, seed: int = 0, **fields) -> DRSAC:
    """A small learner after a few updates; one without a model where its next states are the data's."""
    small = {"hidden": (16, 16), "tau": 0.1} | fields
    if small.get("next_states") == "data":
        learner = DRSAC(DRSACConfig(**small), problem_of(data, seed))
    else:
        learner = make_learner("dr_sac", data, seed, train_model=False, **small)
    for _ in range(10):
        learner.update(data.sample(64, learner.problem.streams["sampler"]))
    return learner


def worst_value(learner: DRSAC, batch):
    return learner.worst_case(future_of(learner, batch))


def dual_network(learner: DRSAC):
    """The network of the learned dual; None where nothing is learned."""
    dual = getattr(learner.worst_case, "dual", None)
    return None if dual is None else dual.network


# --- Targets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("divergence", BALLS, **ids)
def test_the_target_is_the_exact_worst_case_of_the_sampled_values(divergence, data, batch) -> None:
    learner = dr_sac(data, divergence=divergence)
    before = learner.problem.streams["model"].get_state()
    values = future_of(learner, batch).values
    learner.problem.streams["model"].set_state(before)
    found, info = worst_value(learner, batch)
    exact = make(**divergence).worst_case(values)[0]
    torch.testing.assert_close(found, exact)
    assert (found < values.mean(1)).all()
    torch.testing.assert_close(info["dual/gap"], (values.mean(1) - exact).mean())
    assert all(torch.isfinite(value) and value.ndim == 0 for value in info.values())


@pytest.mark.parametrize("source", ["data", "model"])
def test_a_first_order_move_lowers_the_value_of_every_next_state(source: str, data, batch) -> None:
    """V' less the radius times its slope, in one-step stds; at the logged next states and at the model's samples."""
    learner = dr_sac(data, divergence=GRADIENT, next_states=source)
    before = learner.problem.streams["model"].get_state()
    found, info = worst_value(learner, batch)
    states = batch.next_observations.unsqueeze(1)
    if source == "model":
        learner.problem.streams["model"].set_state(before)
        states = learner.model.sample(batch.observations, batch.actions, 16, learner.problem.streams["model"])
    step = learner.problem.scales.step_std
    ball = GradientWasserstein(0.3, step)
    expected = ball.worst_case(lambda s, v=learner.target_value: v(s).squeeze(-1), states)[0].mean(1)
    torch.testing.assert_close(found, expected)
    assert info["dual/gap"] > 0.0
    plain = learner.target_value(states).squeeze(-1).mean(1)
    assert (found <= plain).all()


def test_contamination_from_data_needs_no_dual(data, batch) -> None:
    learner = dr_sac(data, next_states="data", divergence=BALLS[-1])
    assert dual_network(learner) is None
    value = learner.target_value(batch.next_observations).squeeze(-1)
    torch.testing.assert_close(worst_value(learner, batch)[0], 0.8 * value - 0.2 * 50.0)


@pytest.mark.parametrize("source", ["data", "model"])
@pytest.mark.parametrize("divergence", [BALLS[0], BALLS[2], BALLS[4], GRADIENT], **ids)
def test_ends_of_episodes_are_worth_their_reward_and_teach_the_dual_nothing(source, divergence, data, batch) -> None:
    ends = torch.arange(64) % 2 == 0
    nothing = torch.where(ends.unsqueeze(1), torch.nan, batch.next_observations)
    ended = batch._replace(terminated=ends, next_observations=nothing, next_valid=~ends)
    learner = dr_sac(data, divergence=divergence, next_states=source)
    caught = {}
    original = learner.critic_loss
    learner.critic_loss = lambda b, target: caught.update(target=target) or original(b, target)
    info = learner.update(ended)
    torch.testing.assert_close(caught["target"][ends], batch.rewards[ends])
    assert torch.isfinite(caught["target"]).all()
    assert all(torch.isfinite(value) for value in info.values())
    if (network := dual_network(learner)) is not None:
        assert all(torch.isfinite(p).all() for p in network.parameters())


# --- Learned duals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ball",
    [KL(0.3), make("chi2", radius=0.5), make("cressie_read", k=3.0, radius=0.3), TotalVariation(0.3, -9.0), CVaR(0.4)],
    ids=repr,
)
def test_one_next_state_teaches_what_several_samples_teach(ball: Divergence) -> None:
    """Eight pairs with laws of 32 values each: both forms come within 0.05 standard deviations of the exact value."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.eye(8)
    mean, std = torch.linspace(-2, 2, 8), torch.linspace(0.5, 1.5, 8)
    grid = torch.tensor([NormalDist().inv_cdf((i + 0.5) / 32) for i in range(32)])
    laws = mean.unsqueeze(1) + std.unsqueeze(1) * grid
    exact = ball.worst_case(laws)[0]
    forms = {}
    for linear in (False, True):
        kinds, start = dual_kinds(ball, linear), normal_start(ball, linear)
        network = DualNetwork(kinds, 8, (32,), generator, start=start)
        forms[linear] = LearnedDual(ball, network, adamw([(network.parameters(), 1e-2)], 0.0), steps=2, linear=linear)
    rows = torch.arange(8).repeat(32)
    for step in range(400):
        for form in forms.values():
            form.optimiser.param_groups[0]["lr"] = 1e-2 if step < 250 else 1e-3
        drawn = torch.randint(32, (256,), generator=generator)
        forms[True].fit(pairs[rows], laws[rows, drawn])
        forms[False].fit(pairs, laws)
    from_samples, _, info = forms[False].worst_case(pairs, laws)
    duals = [dual.detach().unsqueeze(1) for dual in forms[True].network(pairs)]
    from_draws = ball.linear_dual(laws, *duals).mean(1)
    for found in (from_samples, from_draws):
        assert (found <= exact + 1e-4).all()
        assert ((exact - found) / std).max() < 0.05
    assert info["dual/collapsed"] == 0.0


@pytest.mark.parametrize("divergence", [b for b in BALLS if b["name"] != "contamination"], **ids)
def test_functional_duals_are_a_lower_bound_whose_shortfall_is_logged(divergence, data, batch) -> None:
    learner = dr_sac(data, divergence=divergence, dual="functional")
    before = learner.problem.streams["model"].get_state()
    values = future_of(learner, batch).values
    learner.problem.streams["model"].set_state(before)
    found, info = worst_value(learner, batch)
    exact = make(**divergence).worst_case(values)[0]
    assert (found <= exact + 1e-5).all()
    torch.testing.assert_close(info["dual/shortfall"], (exact - found)[:32].mean(), atol=1e-6, rtol=1e-4)
    assert {"dual/min", "dual/max", "dual/saturated", "dual/collapsed"} <= info.keys()
    assert info["dual/collapsed"] == 0.0


@pytest.mark.parametrize(("source", "divergence"), [("model", BALLS[2]), ("data", BALLS[2]), ("model", BALLS[0])])
def test_a_dual_at_its_bound_raises_the_alarm(source, divergence, data, batch) -> None:
    learner = dr_sac(data, divergence=divergence, next_states=source, dual="functional")
    network = dual_network(learner)
    network = getattr(network, "network", network)
    with torch.no_grad():
        network.linears[-1].weight.zero_()
        network.linears[-1].bias.fill_(1e3)
    assert worst_value(learner, batch)[1]["dual/collapsed"] == 1.0


# --- State ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"divergence": BALLS[2]},
        {"divergence": BALLS[2], "dual": "functional"},
        {"divergence": BALLS[2], "next_states": "data"},
        {"divergence": BALLS[0], "next_states": "data"},
        {"divergence": BALLS[4], "next_states": "data"},
        {"divergence": GRADIENT, "next_states": "data"},
    ],
    ids=lambda f: "-".join(str(v["name"] if isinstance(v, dict) else v) for v in f.values()),
)
def test_a_restored_learner_goes_on_bit_for_bit(fields, data, tmp_path) -> None:
    first, second = dr_sac(data, 0, **fields), dr_sac(data, 1, **fields)
    save_checkpoint(tmp_path / "c.safetensors", {"learner": first.state()})
    second.load_state(load_checkpoint(tmp_path / "c.safetensors")["learner"])
    for key, stream in first.problem.streams.items():
        second.problem.streams[key].set_state(stream.get_state())
    for learner in (first, second):
        for _ in range(3):
            learner.update(data.sample(64, learner.problem.streams["sampler"]))
    for part in ("actor", "critics", "value"):
        for one, other in zip(getattr(first, part).parameters(), getattr(second, part).parameters(), strict=True):
            assert torch.equal(one, other)
    if dual_network(first) is not None:
        left, right = (dual_network(learner).state_dict().values() for learner in (first, second))
        assert all(torch.equal(one, other) for one, other in zip(left, right, strict=True))


def test_a_run_under_another_ball_keeps_its_configuration(data, tmp_path) -> None:
    values = run_values(saved(data, tmp_path), "dr_sac", steps=20)
    values["learner"] |= {"divergence": {"name": "chi2", "radius": 0.5}}
    run = train(values, out=tmp_path / "run")
    again = load_config(tmp_path / "run" / "config.yaml")
    assert again == run.config
    assert again.learner.divergence.radius == 0.5
    assert run.metrics[-1]["dual/gap"] > 0.0


# --- Configuration --------------------------------------------------------------------------------------------------


def test_delta_is_short_for_a_kl_ball() -> None:
    assert DRSACConfig(divergence={"name": "kl", "radius": 0.3}) == DRSACConfig(delta=0.3)
    assert DRSACConfig() == DRSACConfig(delta=0.5)
    assert repr(DRSACConfig(delta=0.3).ball()) == "KL(0.3)"
    other = DRSACConfig(divergence={"name": "chi2", "radius": 0.3})
    assert other.delta is None
    assert DRSACConfig(**other.model_dump()) == other
    written_before = {"name": "dr_sac", "delta": 0.5, "dual": "functional", "samples": 8}
    assert DRSACConfig(**written_before).divergence is None


REFUSED = [
    ({"delta": 0.5, "divergence": BALLS[2]}, "not both"),
    ({"delta": None}, "both null"),
    ({"divergence": {"name": "ch2", "radius": 1.0}}, "did you mean 'chi2'"),
    ({"divergence": {"name": "chi2", "radius": -1.0}}, "chi2: radius"),
    ({"divergence": {"name": "wasserstein1", "radius": 1.0, "costs": [[0.0]]}}, "wasserstein_gradient"),
    ({"divergence": BALLS[2], "samples": 1}, "single sample"),
    ({"divergence": {"name": "chi2", "radius": 0.0}, "dual": "functional"}, "dual: exact"),
    ({"delta": 0.0, "dual": "functional"}, "dual: exact"),
    ({"divergence": BALLS[3], "next_states": "data"}, "tv needs a lower bound"),
    ({"divergence": BALLS[6], "next_states": "data"}, "contamination needs a lower bound"),
    ({"divergence": BALLS[2], "next_states": "data", "dual": "exact"}, "is learned"),
    ({"delta": 0.0, "next_states": "data"}, "name: sac"),
    ({"next_states": "model_and_data"}, "next_states"),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED)
def test_what_is_no_worst_case_is_refused_by_name(fields, words, data, tmp_path) -> None:
    values = run_values("pendulum-td3", "dr_sac")
    values["learner"] |= fields
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(values)
    assert "\n" not in str(caught.value)


def test_nominal_laws_that_do_not_fit_are_refused(data) -> None:
    problem = problem_of(data)
    with pytest.raises(ConfigError, match="give the run a nominal model"):
        DRSAC(DRSACConfig(divergence=BALLS[2]), problem)
    model = small_vae(data, problem)
    with pytest.raises(ConfigError, match="no nominal model"):
        DRSAC(DRSACConfig(divergence=BALLS[2], next_states="data"), replace(problem, model=model))
    model.deterministic = True
    for ball in (BALLS[2], BALLS[5], BALLS[3]):
        with pytest.raises(ConfigError, match="deterministic model holds that model alone"):
            DRSAC(DRSACConfig(divergence=ball), replace(problem, model=model))
    DRSAC(DRSACConfig(divergence=BALLS[4], hidden=(8,)), replace(problem, model=model))
    DRSAC(DRSACConfig(divergence=GRADIENT, hidden=(8,)), replace(problem, model=model))


def test_the_equivalent_kl_radius_tells_an_empty_ball() -> None:
    """chi-square of radius r and KL of r / 2 shift a normal law alike; CVaR by the normal density at its quantile."""
    assert DRSACConfig(delta=0.3).kl_radius == 0.3
    assert DRSACConfig(divergence={"name": "chi2", "radius": 0.1}).kl_radius == pytest.approx(0.05, rel=0.02)
    density = math.exp(-0.5 * NormalDist().inv_cdf(0.4) ** 2) / math.sqrt(2 * math.pi)
    assert normal_shift(CVaR(0.4)) == pytest.approx(density / 0.4, rel=0.02)
    for ball in (BALLS[4], BALLS[7], GRADIENT):
        assert DRSACConfig(divergence=ball).kl_radius is None
