"""One flat file beside a folder of many episodes: the second load reads eight arrays instead of thousands."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from offline_robust.datasets.minari_files import MAIN, METADATA
from offline_robust.datasets.sources import Location, cache_root
from offline_robust.datasets.spaces import Description, decode_description, encode_description, parse_json
from offline_robust.datasets.transitions import TENSORS, TransitionDataset
from offline_robust.environment import EnvironmentChoice, EnvironmentSpec
from offline_robust.errors import DatasetError
from offline_robust.files import replacing
from offline_robust.tensor_files import open_tensors
from offline_robust.untrusted import open_regular

_SAMPLE, _SAMPLES = 4_096, 64
FORMAT = 5
"""Part of every key: raise it whenever a reader changes what it returns."""
MIN_EPISODES = 64
"""Fewer episodes than this are read as fast from the source."""


class Cache:
    """The cached form of one source, under a key that changes with the source's files.

    A cache never makes a load fail: what is damaged is read again, what cannot be written is left, with a warning.

    Args:
        location: the source. Only Minari folders are cached: the other formats are flat already.
        env: the caller's environment, which can decide about spaces.
    """

    def __init__(self, location: Location, env: str | EnvironmentSpec | EnvironmentChoice | None) -> None:
        self.path: Path | None = None
        if location.kind != "minari":
            return
        folder = location.path.resolve()
        try:
            # Arrow and parquet have a folder per episode and no main file: their metadata.json tells versions apart.
            files = [_stamp(file) for file in (folder / MAIN, folder / METADATA) if file.exists()]
        except OSError:
            return
        stamp = [FORMAT, repr(env), *files]
        place = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
        key = hashlib.sha256(json.dumps(stamp).encode()).hexdigest()[:16]
        root = cache_root()
        self.path = None if root is None else root / f"{place}-{key}.safetensors"
        self.place = place

    def load(self) -> TransitionDataset | None:
        """The cached dataset, checked like any input; None where there is none or it is damaged."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            dataset = _read(self.path)
        except (DatasetError, SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            warnings.warn(f"{self.path}: damaged cache, reading the source again ({error})", stacklevel=3)
            return None
        return replace(dataset, provenance={**dataset.provenance, "cache": str(self.path)})

    def save(self, dataset: TransitionDataset) -> None:
        """Keeps a dataset of many episodes; older versions of the same source are removed."""
        if self.path is None or dataset.episodes < MIN_EPISODES:
            return
        try:
            tensors = {name: getattr(dataset, name).contiguous() for name in TENSORS}
            about = {
                "description": encode_description(_description(dataset)),
                "provenance": json.dumps(dict(dataset.provenance)),
                "checksums": json.dumps({name: _checksum(tensor) for name, tensor in tensors.items()}),
            }
            for old in self.path.parent.glob(f"{self.place}-*.safetensors"):
                old.unlink(missing_ok=True)
            with replacing(self.path) as aside:
                save_file(tensors, aside, about)
        except (OSError, SafetensorError, DatasetError, TypeError, ValueError) as error:
            warnings.warn(f"{self.path}: the cache cannot be written ({error}); loading works without", stacklevel=3)


def _stamp(path: Path) -> list[Any]:
    """What changes when a file does: of a small one its content, of a large one samples of it.

    A program may write other bytes of the same number and set the time back: the system's own time of the last change
    and the file's number change then, and samples where the system keeps neither.
    """
    with open_regular(path) as file:
        about = os.fstat(file.fileno())
        size = about.st_size
        digest = hashlib.blake2b(digest_size=16)
        places = range(0, size, _SAMPLE) if size <= _SAMPLE * _SAMPLES else _sampled(size)
        for place in places:
            file.seek(place)
            digest.update(file.read(_SAMPLE))
    return [size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino, digest.hexdigest()]


def _sampled(size: int) -> list[int]:
    """Places of `_SAMPLES` blocks, evenly from the first to the last byte."""
    return [(size - _SAMPLE) * k // (_SAMPLES - 1) for k in range(_SAMPLES)]


def _read(path: Path) -> TransitionDataset:
    with open_tensors(path) as file:
        about = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in TENSORS}
    sums = parse_json(f"{path}: checksums", about["checksums"])
    for name, tensor in tensors.items():
        if sums.get(name) != _checksum(tensor):
            raise DatasetError(f"{name} does not match its checksum")
    description = decode_description(str(path), about["description"])
    provenance: Mapping[str, Any] = parse_json(f"{path}: provenance", about["provenance"])
    if description.observation_space is None or description.action_space is None:
        raise DatasetError("the spaces are missing")
    return TransitionDataset(
        **tensors,
        observation_space=description.observation_space,
        action_space=description.action_space,
        environment=description.environment,
        provenance=provenance,
    )


def _description(dataset: TransitionDataset) -> Description:
    return Description(dataset.observation_space, dataset.action_space, dataset.environment)


def _checksum(tensor: Tensor) -> int:
    """CRC-32 of the bytes: against damage, not against malice."""
    return zlib.crc32(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
