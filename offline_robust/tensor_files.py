"""safetensors files of anyone: the header is measured before it is read, the tensors before they are taken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from offline_robust.untrusted import free_memory, open_regular

MAX_HEADER = 8 * 2**20
"""Bytes of a header: names and shapes of tensors, and the description; a hundred thousand tensors fit."""


@contextmanager
def open_tensors(path: str | Path) -> Iterator[Any]:
    """`safetensors.safe_open` of a regular file with a header of bounded size, whose tensors fit into memory.

    Raises:
        SafetensorError: the header is larger than `MAX_HEADER`, the file larger than free memory, or damaged.
        OSError: not a file, or it cannot be read.
    """
    with open_regular(path) as file:
        header, size = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
    if header > min(MAX_HEADER, size):
        raise SafetensorError(f"its header says {header:,} bytes, at most {min(MAX_HEADER, size):,} are read")
    if size > (free := free_memory()):
        raise SafetensorError(f"its {size:,} bytes do not fit into the {free:,} that are free")
    with safe_open(path, framework="pt") as tensors:
        yield tensors
