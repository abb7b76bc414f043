"""The transition VAE: loss, spread, smoothing, diagnostics."""

from __future__ import annotations

import math
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from toys import line_dataset, problem_of, run_values, saved, small_vae

from offline_robust.divergences import KL
from offline_robust.experiments import train
from offline_robust.models import Scales, diagnose


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fitted(data, steps: int = 1500, **fields):
    problem = problem_of(data)
    model = small_vae(data, problem, **fields)
    for _ in range(steps):
        model.update(data.sample(256, problem.streams["sampler"]), problem.streams["model"])
    return model


def test_samples_have_the_asked_shape_and_follow_the_generator() -> None:
    data = line_dataset()
    model = small_vae(data, problem_of(data))
    args = data.observations[:7], data.actions[:7], 5
    drawn = model.sample(*args, stream(1))
    assert drawn.shape == (7, 5, 1)
    assert torch.equal(drawn, model.sample(*args, stream(1)))
    assert not torch.equal(drawn, model.sample(*args, stream(2)))
    assert not drawn.requires_grad


def test_learns_the_next_observation() -> None:
    data = line_dataset(episodes=80)
    found = diagnose(fitted(data), data, stream(0))
    # The best possible error is the noise, 0.1; the mean change has a standard deviation of about 0.3.
    assert 0.09 < found.rmse[0] < 0.13


@pytest.mark.parametrize("option", [{"predict_change": True}, {"normalise": True}])
def test_options_keep_the_units(option) -> None:
    data = line_dataset(episodes=80)
    found = diagnose(fitted(data, **option), data, stream(0))
    assert found.rmse[0] < 0.14


def test_spread_follows_the_linear_theory_of_the_papers_loss() -> None:
    """Linear probabilistic PCA: sampled variance max(0, noise variance - O / (2 z)) for the mean-reduced loss.

    With O = 1, z = 5 noise of std 1 gives about 0.95 and noise of std 0.2 about nothing (dr_sac_rfqi 5.4). Loose:
    the encoder is a network.
    """
    for noise, low, high in ((1.0, 0.75, 1.1), (0.2, 0.0, 0.1)):
        data = line_dataset(episodes=200, noise=noise, seed=1)
        scales = replace(Scales.of(data), step_std=torch.ones(1))  # spread in absolute units
        found = diagnose(fitted(data, latent_dim=5), data, stream(0), scales=scales)
        assert low <= found.spread[0] <= high, (noise, found.spread)


def test_learned_decoder_noise_restores_spread_and_calibration() -> None:
    data = line_dataset(episodes=200, noise=0.2, seed=1)
    scales = replace(Scales.of(data), step_std=torch.ones(1))
    found = diagnose(fitted(data, decoder_noise="learned"), data, stream(0), scales=scales)
    assert found.spread[0] == pytest.approx(0.2, rel=0.15)
    for nominal, observed in zip(found.levels, found.coverage, strict=True):
        assert observed == pytest.approx(nominal, abs=0.08)


def test_smoothing_adds_its_share_of_the_one_step_std() -> None:
    data = line_dataset()
    problem = problem_of(data)
    plain, wide = small_vae(data, problem), small_vae(data, problem, smoothing=0.5)
    wide.networks.load_state_dict(plain.networks.state_dict())
    args = data.observations[:200], data.actions[:200], 2000
    added = wide.sample(*args, stream(1)).var(1) - plain.sample(*args, stream(2)).var(1)
    expected = (0.5 * Scales.of(data).step_std) ** 2
    assert added.mean().item() == pytest.approx(expected.item(), rel=0.02)


def test_smoothing_and_radius_shift_a_linear_value_by_their_closed_form() -> None:
    """smoothing * sqrt(2 delta) one-step stds: how the documentation explains the two knobs together."""
    step, smoothing, delta = 0.7, 0.3, 0.5
    states = smoothing * step * torch.randn(200, 4000, generator=stream(0))
    slope = 3.0
    worst = KL(delta).worst_case(slope * states)[0].mean().item()
    assert worst == pytest.approx(-slope * smoothing * step * math.sqrt(2 * delta), rel=0.01)


def test_rows_without_a_next_observation_do_not_train_the_model() -> None:
    data = line_dataset()
    invalid = torch.arange(len(data)) % 3 == 0
    poisoned = replace(
        data,
        next_observations=torch.where(invalid.unsqueeze(1), torch.nan, data.next_observations),
        next_valid=~invalid,
    )
    batch = poisoned.rows(torch.arange(90))
    clean = batch._replace(next_observations=data.next_observations[:90])
    losses = []
    for each in (batch, clean):
        model = small_vae(data, problem_of(data))
        losses.append(model.vae_loss(each, stream(3))[0].item())
    assert losses[0] == losses[1]
    assert losses[0] < 100


def test_latent_kl_is_zero_at_the_prior() -> None:
    data = line_dataset()
    model = small_vae(data, problem_of(data))
    with torch.no_grad():
        for head in ("latent_mean", "latent_log_var"):
            model.networks[head].weight.zero_()
            model.networks[head].bias.zero_()
    _, info = model.vae_loss(data.rows(torch.arange(64)), stream(0))
    assert info["model/latent_kl"].item() == pytest.approx(0.0, abs=1e-7)


def test_an_empty_ball_is_named_with_its_spread(tmp_path) -> None:
    """Training warns, loudly and with the figure, where a robust policy would be robust in name only."""
    values = run_values(saved(line_dataset(noise=0.01), tmp_path), "dr_sac", model_steps=3000)
    values["model"] = {"name": "vae", "hidden": [32], "learning_rate": 5e-3, "kl_weight": 10.0}
    with pytest.warns(UserWarning, match=r"ball of radius 0.5 is empty in effect.*one-step stds.*model.smoothing"):
        run = train(values, out=tmp_path / "narrow")
    assert "empty in effect" in (run.folder / "model.json").read_text()
    values["model"]["smoothing"] = 0.3
    run = train(values, out=tmp_path / "wide")
    assert "empty in effect" not in (run.folder / "model.json").read_text()


def test_an_empty_ball_is_named_without_a_model_phase_too(tmp_path) -> None:
    values = run_values(saved(line_dataset(noise=0.01), tmp_path), "dr_sac", model_steps=0, steps=1500)
    values["model"] = {"name": "vae", "hidden": [32], "learning_rate": 5e-3, "kl_weight": 10.0}
    values["learner"] |= {"delta": 0.01}
    with pytest.warns(UserWarning, match="ball of radius 0.01 is empty in effect"):
        train(values, out=tmp_path / "run")


def test_dimensions_that_never_change_do_not_count_as_spread() -> None:
    """A constant dimension (a target, padding) has no one-step std; its rounding must not hide an empty ball."""
    data = line_dataset()
    constant = replace(
        data,
        observations=torch.cat([data.observations, torch.full((len(data), 1), 3.0)], 1),
        next_observations=torch.cat([data.next_observations, torch.full((len(data), 1), 3.0)], 1),
        observation_space=gym.spaces.Box(-np.inf, np.inf, (2,), np.float32),
    )
    found = diagnose(small_vae(constant, problem_of(constant)), constant, stream(0))
    assert found.spread[1] == 0.0
    assert found.relative_error[1] == 0.0
    assert found.spread[0] > 0.0


def test_held_out_episodes_are_kept_from_training_and_used_for_the_diagnosis(tmp_path) -> None:
    run = train(run_values(saved(line_dataset(), tmp_path), "dr_sac", holdout=0.2), out=tmp_path / "run")
    text = (run.folder / "model.json").read_text()
    assert '"held_out": true' in text
    assert '"rows": 100' in text  # 4 of 20 episodes of 25 rows


def test_action_smoothing_decodes_from_noisy_actions() -> None:
    """Samples spread by as much as the decoder's prediction moves with an action off by the stated share of its std."""
    data = line_dataset(episodes=80)
    model = fitted(data)
    model.config = model.config.model_copy(update={"action_smoothing": 0.5})
    observations, actions = data.observations[:50], data.actions[:50]
    spread = model.sample(observations, actions, 4000, stream(0)).std(1)
    scale = 0.5 * Scales.of(data).action_std
    moved = (model.mean(observations, actions + scale) - model.mean(observations, actions - scale)).abs() / 2
    torch.testing.assert_close(spread.mean(), moved.mean(), rtol=0.1, atol=0.0)
    assert scale.item() == pytest.approx(0.5 * data.actions.std().item(), rel=1e-3)
