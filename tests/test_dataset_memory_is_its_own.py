"""A dataset made from objects in memory shares nothing with them: used again, they do not change it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_files import columns

from offline_robust.datasets import TransitionDataset, load_dataset
from offline_robust.datasets.transitions import TENSORS

Made = tuple[Any, list[np.ndarray]]
"""A source, and the arrays that its owner writes over."""


def plain(**changes: Any) -> Made:
    content = columns(12, ends={3: "terminal", 7: "timeout"}) | changes
    return content, list(content.values())


def views() -> Made:
    """All columns in one block of memory, as a preallocated buffer has them."""
    content = columns(12, ends={3: "terminal"})
    block = np.zeros((12, 3 + 1 + 1 + 3), np.float32)
    named = {
        "observations": block[:, :3],
        "actions": block[:, 3:4],
        "rewards": block[:, 4],
        "next_observations": block[:, 5:],
    }
    for name, view in named.items():
        view[:] = content[name]
    return named | {"terminals": content["terminals"]}, [block]


def tensors() -> Made:
    content = {name: torch.from_numpy(values) for name, values in columns(12).items()}
    return content, [values.numpy() for values in content.values()]


def memory_maps(folder: Path) -> Made:
    content = columns(12)
    for name in ("observations", "actions", "rewards"):
        np.save(folder / f"{name}.npy", content[name])
        content[name] = np.load(folder / f"{name}.npy", mmap_mode="r+")
    return content, [content[name] for name in ("observations", "actions", "rewards")]


def masked() -> Made:
    episode, valid = np.repeat([0, 1], 6), np.arange(12) % 6 != 5
    return plain(episode=episode, next_valid=valid)


SOURCES: dict[str, Callable[[Path], Made]] = {
    "arrays": lambda _: plain(),
    "discrete actions": lambda _: plain(actions=np.arange(12) % 3),
    "flat observations": lambda _: plain(observations=np.arange(12, dtype=np.float32), next_observations=None),
    "float64": lambda _: plain(observations=np.ones((12, 3)), rewards=np.ones(12)),
    "episodes and a mask": lambda _: masked(),
    "views of one block": lambda _: views(),
    "tensors": lambda _: tensors(),
    "memory maps": memory_maps,
}


@pytest.mark.parametrize("name", SOURCES)
def test_writing_over_the_source_leaves_the_dataset_alone(name: str, tmp_path: Path) -> None:
    source, memory = SOURCES[name](tmp_path)
    memory = [array for array in memory if array is not None]
    source = {key: values for key, values in source.items() if values is not None}
    dataset = load_dataset(source)
    before = {tensor: getattr(dataset, tensor).clone() for tensor in TENSORS}
    for array in memory:
        array[:] = 1 - array
        assert not any(np.may_share_memory(array, getattr(dataset, tensor).numpy()) for tensor in TENSORS)
    for tensor, values in before.items():
        assert torch.equal(getattr(dataset, tensor), values), tensor
    assert dataset.fingerprint == fresh(dataset).fingerprint


def fresh(dataset: TransitionDataset) -> TransitionDataset:
    """The same data with their fingerprint yet to be computed."""
    return dataset.to("cpu")


def test_what_conversion_copied_is_not_copied_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr("offline_robust.datasets.flat_files.np.may_share_memory", lambda *pair: made.append(pair))
    source, _ = plain(observations=np.ones((12, 3)))
    load_dataset(source)
    shared = [bool(np.shares_memory(*pair)) for pair in made]
    assert shared == [False, True, True, True]  # observations became float32; the rest is the caller's until copied
