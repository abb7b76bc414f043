"""Every test runs on one thread: figures must not depend on how many cores happen to be free."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)

if find_spec("gymnasium_robotics") is None:  # `make robotics` has an environment of its own for these
    collect_ignore = ["robotics"]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _private_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's caches, datasets or Weights & Biases account."""
    root = tmp_path_factory.mktemp("home", numbered=True)
    monkeypatch.setenv("OFFLINE_ROBUST_CACHE", str(root / "cache"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root / "minari"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
