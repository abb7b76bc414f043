"""A fail state that is not the worst place is told of, with advice that works; what cannot be learned is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from toys import line_dataset, make_learner, run_values, saved

from offline_robust.divergences import CressieRead, CVaR, TotalVariation
from offline_robust.errors import ConfigError
from offline_robust.experiments import load_config
from offline_robust.learners.learned_dual import require_reach

DATA = {"next_states": "data", "divergence": {"name": "tv", "radius": 0.3, "v_min": 0.0}}
LEARNERS: list[tuple[str, dict[str, Any]]] = [("rfqi", {}), ("fqi", {"density_filter": True}), ("dr_sac", DATA)]


def said(name: str, settings: dict[str, Any]) -> list[str]:
    data = line_dataset()
    return make_learner(name, data, **settings).warnings(data)


@pytest.mark.parametrize(("name", "settings"), LEARNERS)
def test_negative_returns_are_told_of_and_the_advice_ends_it(name: str, settings: dict[str, Any]) -> None:
    (line,) = said(name, settings | {"reward_shift": 0.3, "reward_scale": 0.37})
    assert line.startswith(f"{name}: shaped rewards reach -")
    floor, shift = re.search(r"v_min to (\S+) or less, or learner.reward_shift to (\S+) or more", line).groups()
    assert said(name, settings | {"reward_shift": float(shift), "reward_scale": 0.37}) == []
    lower = {"v_min": float(floor)}
    if name == "dr_sac":
        lower = {"divergence": settings["divergence"] | lower}
    assert said(name, settings | {"reward_shift": 0.3, "reward_scale": 0.37} | lower) == []


@pytest.mark.parametrize("name", ["fqi", "rfqi"])
def test_a_floor_above_positive_returns_is_told_of_too(name: str) -> None:
    (line,) = said(name, {"reward_shift": 20.0, "v_min": 1e6})
    assert "v_min to" in line
    assert "reward_shift" not in line  # no shift lifts the data above it for sure


def test_where_nothing_is_turned_away_there_is_nothing_to_say() -> None:
    assert said("fqi", {"density_filter": False, "reward_shift": 0.0}) == []
    assert said("rfqi", {"rho": 0.0, "reward_shift": 0.0}) == []


def test_a_dual_out_of_a_networks_reach_is_refused() -> None:
    for ball in (CressieRead(1.02, 0.05), CressieRead(2.0, 1e-4)):
        with pytest.raises(ConfigError, match="standard deviations from the mean"):
            require_reach(ball)
    for fine in (CressieRead(1.5, 0.1), CressieRead(2.0, 1e-3), TotalVariation(0.1), CVaR(0.2)):
        require_reach(fine)


def test_rows_cut_by_time_teach_the_dual_nothing_where_they_count_as_ends() -> None:
    settings = {"next_states": "data", "divergence": {"name": "chi2", "radius": 0.5}, "timeouts_as_terminals": True}
    data = line_dataset()
    batch = data.sample(64, torch.Generator().manual_seed(0))
    truncated = torch.arange(64) % 4 == 0
    batch = batch._replace(truncated=truncated, terminated=torch.zeros_like(truncated))
    moved = torch.where(truncated.unsqueeze(1), batch.next_observations + 50.0, batch.next_observations)
    weights = []
    for next_observations in (batch.next_observations, moved):
        learner = make_learner("dr_sac", data, **settings)
        learner.update(batch._replace(next_observations=next_observations))
        assert learner.worst_case.dual is not None
        weights.append(torch.cat([p.flatten() for p in learner.worst_case.dual.network.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize("name", ["sac", "fqi", "rfqi"])
def test_a_model_that_nothing_would_use_is_refused(tmp_path, name: str) -> None:
    values = run_values(saved(line_dataset(), tmp_path), name) | {"model": {"name": "vae"}}
    with pytest.raises(ConfigError, match=f"{name} with these settings has no nominal model|{name} has no nominal"):
        load_config(values)
