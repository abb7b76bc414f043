"""`kill -9` in the middle of a training, then --resume: the same weights as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from toys import line_dataset, run_values, saved

from offline_robust.experiments.checkpoints import load_checkpoint

COMMAND = [sys.executable, "-c", "from offline_robust.cli import main; main()", "train"]


# Long enough to be killed on the way, no longer.
STEPS = {"sac": 1500, "dr_sac": 1000, "fqi": 600, "rfqi": 500}


@pytest.mark.parametrize("learner", sorted(STEPS))
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, learner: str) -> None:
    data = saved(line_dataset(), tmp_path)
    values = run_values(data, learner, steps=STEPS[learner], checkpoint_every=100, log_every=50)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(out: str, *more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*COMMAND, str(config), "--out", str(tmp_path / out), "--quiet", *more], env=environment
        )

    whole = start("whole")
    cut = start("cut")
    checkpoint = tmp_path / "cut" / "checkpoints" / "last.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and cut.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(cut.pid, signal.SIGKILL)
    assert cut.wait() == -signal.SIGKILL, "the training was over before it could be killed"
    reached = load_checkpoint(checkpoint)["step"]
    assert 0 < reached < values["training"]["steps"]
    assert start("cut", "--resume").wait() == 0
    assert whole.wait() == 0
    for name in ("policy.safetensors", "checkpoints/last.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
