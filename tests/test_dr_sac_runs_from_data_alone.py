"""A run whose next states are the data's has no nominal model, and says which ball it is under."""

from __future__ import annotations

import pytest
from toys import line_dataset, run_values, saved

from offline_robust.errors import ConfigError
from offline_robust.experiments import train


def test_a_run_from_data_alone_has_no_model(tmp_path) -> None:
    values = run_values(saved(line_dataset(), tmp_path), "dr_sac", steps=20, model_steps=0)
    values["learner"] |= {"next_states": "data", "divergence": {"name": "chi2", "radius": 0.5}}
    with pytest.raises(ConfigError, match="no nominal model"):
        train(values, out=tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    del values["model"]
    run = train(values, out=tmp_path / "run")
    assert "dual/gap" in run.metrics[-1]
    assert not (run.folder / "model.json").exists()
    assert run.config.label == "dr_sac chi2 radius=0.5 next_states=data"
