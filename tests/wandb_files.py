"""Reading what Weights & Biases wrote offline: its file is a log of checked records, each a protobuf message."""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK, _HEAD = 32_768, 7
_FULL, _LAST = 1, 4


@dataclass
class Logged:
    """What one .wandb file holds."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)


def read_wandb(path: Path) -> Logged:
    """The run, its configuration, every history line (with ``_step``), the summary and the artifacts."""
    wait_for_wandb(path)
    found = Logged()
    for record in _records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            line: dict[str, Any] = {"_step": record.history.step.num}
            for item in record.history.item:
                _put(line, item)
            found.history.append(line)
        elif kind == "summary":
            for item in record.summary.update:
                _put(found.summary, item)
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
    return found


def wait_for_wandb(path: Path, seconds: float = 30.0) -> None:
    """Returns when the file has its last record: W&B's own process may write it after `finish` has returned."""
    end = time.monotonic() + seconds
    while not any(record.WhichOneof("record_type") == "exit" for record in _records(path)):
        assert time.monotonic() < end, f"{path} was never finished"
        time.sleep(0.05)


def _put(line: dict[str, Any], item: Any) -> None:
    """A value with one key, or with the keys that lead to it through mappings."""
    *outer, last = [item.key] if item.key else item.nested_key
    for key in outer:
        line = line.setdefault(key, {})
    line[last] = json.loads(item.value_json)


def _records(path: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    at, message = _HEAD, b""
    while at + _HEAD <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEAD:  # the rest of a block is too small for a head
            at += left
            continue
        check, size, kind = struct.unpack("<IHB", data[at : at + _HEAD])
        part = data[at + _HEAD : at + _HEAD + size]
        if len(part) < size:  # being written
            return
        assert zlib.crc32(part, zlib.crc32(bytes([kind]))) == check
        message += part
        at += _HEAD + size
        if kind in (_FULL, _LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(message)
            yield record
            message = b""
