"""offline-robust: from logged data to a policy that still works on a system that differs.

import offline_robust as orl

data = orl.load_dataset("pendulum-td3")
run = orl.train("dr_sac/pendulum", {"learner.delta": 0.3})
results = orl.evaluate(run.policy, "Pendulum-v1", suite="pendulum-length", episodes=50, seed=0)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offline_robust import divergences, tabular
    from offline_robust.datasets import TransitionDataset, load_dataset
    from offline_robust.evaluation import Results, evaluate
    from offline_robust.experiments import Run, load_run, train
    from offline_robust.learners import register_learner
    from offline_robust.networks import Policy, load_policy

__all__ = [
    "Policy",
    "Results",
    "Run",
    "TransitionDataset",
    "divergences",
    "evaluate",
    "load_dataset",
    "load_policy",
    "load_run",
    "register_learner",
    "tabular",
    "train",
]

_HOME = {
    "TransitionDataset": "datasets",
    "load_dataset": "datasets",
    "Results": "evaluation",
    "evaluate": "evaluation",
    "Run": "experiments",
    "load_run": "experiments",
    "train": "experiments",
    "register_learner": "learners",
    "Policy": "networks",
    "load_policy": "networks",
}


def __getattr__(name: str) -> Any:
    """Imports on first use: `offline-robust --help` need not wait for PyTorch."""
    if name in ("divergences", "tabular"):
        return importlib.import_module(f"offline_robust.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"offline_robust.{_HOME[name]}"), name)
    raise AttributeError(f"module 'offline_robust' has no attribute {name!r}")
