"""Experiments: configurations, the training loop, checkpoints and run folders."""

from offline_robust.experiments.config import RunConfig, load_config, parse_override
from offline_robust.experiments.run import Run, load_run
from offline_robust.experiments.train import train

__all__ = ["Run", "RunConfig", "load_config", "load_run", "parse_override", "train"]
