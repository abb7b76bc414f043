"""Logged data: read, check, describe, convert. (Data are collected in `offline_robust.collection`.)

Every reader returns a `TransitionDataset`; `load_dataset` finds the right one.
"""

from offline_robust.datasets.describe import describe
from offline_robust.datasets.findings import Finding
from offline_robust.datasets.load import check, convert, load_dataset
from offline_robust.datasets.sources import bundled_names
from offline_robust.datasets.transitions import Batch, TransitionDataset
from offline_robust.datasets.writers import write_d4rl, write_dataset, write_minari, write_npz

__all__ = [
    "Batch",
    "Finding",
    "TransitionDataset",
    "bundled_names",
    "check",
    "convert",
    "describe",
    "load_dataset",
    "write_d4rl",
    "write_dataset",
    "write_minari",
    "write_npz",
]
