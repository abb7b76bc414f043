"""HDF5 files that are not trusted: nothing outside the file is followed, nothing absurd is allocated.

h5py's low-level interface is used on purpose: a Minari file has five small arrays per episode, and opening each
through the high-level one takes half of the reading time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from offline_robust.datasets.findings import refusal
from offline_robust.datasets.logged import KEPT, source_bytes
from offline_robust.untrusted import MEMORY, open_regular

# Deflate, the filter that most files have, gives at most 1032:1.
_MAX_RATIO = 1_100
MAX_UNSTORED = 2 * 2**30
"""Bytes of one source that may come out of nothing: arrays, or chunks of them, that were created and never written
(HDF5 reads their fill value), and what filters make of almost no bytes."""
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError, OverflowError)


@dataclass
class Budget:
    """Counts the bytes that a source declares, and refuses what would not fit into memory, or more than `MAX_UNSTORED`
    of what it does not store: a file of a few bytes must not take all memory."""

    where: str
    left: int = field(default_factory=source_bytes)
    unstored: int = field(default_factory=lambda: MAX_UNSTORED)

    def take(self, where: str, declared: int, stored: int, kept: int = 0) -> None:
        """Accounts for one array.

        Args:
            where: the array, for the message.
            declared: bytes that it takes in memory.
            stored: bytes that it takes in the file.
            kept: bytes that it takes in the type it is kept in, where that is larger.

        Raises:
            DatasetError: the sum is beyond a limit.
        """
        self.unstored -= max(0, declared - stored * _MAX_RATIO)
        if self.unstored < 0:
            what = f"declares {declared:,} bytes but stores {stored:,}"
            mend = f"copy the file again, or write the array (of fill values a source may hold {MAX_UNSTORED:,} bytes)"
            raise refusal(where, what, mend)
        self.left -= max(declared, kept)
        if self.left < 0:
            what = f"needs {max(declared, kept):,} bytes; a source may take {source_bytes():,} of free memory"
            raise refusal(where, what, f"split the source, or set {MEMORY}")


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Opens a file for reading; yields h5py's root group identifier.

    Raises:
        DatasetError: missing, empty, not HDF5, or cut short (also where that shows only while reading).
    """
    where = str(path)
    try:
        with open_regular(path) as content:
            size = content.seek(0, os.SEEK_END)
        signature = h5py.is_hdf5(path)
    except OSError as error:
        raise refusal(where, f"cannot be read ({error.strerror})") from None
    if size == 0:
        raise refusal(where, "is empty", "copy or download it again")
    if not signature:
        raise refusal(where, "is not an HDF5 file", "check what it is: pickles and text are never loaded")
    try:
        file = h5py.File(path, "r", locking=False)
    except _DAMAGE as error:
        raise refusal(where, f"is damaged or cut short ({error})", "copy or download it again") from None
    with file:
        try:
            yield h5py.h5g.open(file.id, b"/")
        except (OSError, RuntimeError, KeyError, ValueError, MemoryError) as error:
            raise refusal(where, f"is damaged ({error})", "copy or download it again") from None


def links(group: Any) -> list[str]:
    """Names in a group, in no order that means anything (`episode_10` comes before `episode_2`)."""
    return [name.decode("utf-8", "replace") for name in group]


def open_object(where: str, group: Any, name: str) -> Any:
    """A group or dataset under a name, which must be a hard link: what lies in this file.

    Raises:
        DatasetError: missing, a soft or external link, or damaged.
    """
    key = name.encode()
    try:
        if not group.links.exists(key):
            raise refusal(where, f"the key '{name}' is missing", "add it, or collect the data again")
        if group.links.get_info(key).type != h5py.h5l.TYPE_HARD:
            raise refusal(f"{where}: {name}", "is a soft or external link", "copy the data into the file (h5repack)")
        return h5py.h5o.open(group, key)
    except _DAMAGE as error:
        raise refusal(f"{where}: {name}", f"is damaged ({error})", "copy or download the file again") from None


def is_group(item: Any) -> bool:
    """Whether an opened object is a group."""
    return isinstance(item, h5py.h5g.GroupID)


def read_array(where: str, group: Any, name: str, budget: Budget) -> NDArray[Any]:
    """Reads one array whole.

    Args:
        where: file and group, for messages.
        group: the group's identifier.
        name: the dataset's name in it.
        budget: what may still be allocated.

    Returns:
        The array in the file's own number type. What was never written has the fill value, as h5py reads it.

    Raises:
        DatasetError: missing, a link, virtual or external storage, not numbers, too large, or damaged.
    """
    item = open_object(where, group, name)
    at = f"{where}: {name}"
    if is_group(item):
        inside = ", ".join(sorted(links(item))[:6]) or "nothing"
        mend = "only vectors are supported: flatten when collecting (gymnasium.wrappers.FlattenObservation)"
        raise refusal(at, f"is a group (holding {inside}), as dictionaries and tuples are stored", mend)
    try:
        if not isinstance(item, h5py.h5d.DatasetID):
            raise refusal(at, "is not an array", "collect the data again")
        layout = item.get_create_plist()
        if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count() > 0:
            raise refusal(at, "keeps its values in another file", "copy the data into the file (h5repack)")
        kind, shape = item.dtype, item.shape
        if kind.kind not in "fiub" or shape is None:
            mend = "store numbers; JPEG-coded images and text are not supported"
            raise refusal(at, f"holds {'no values' if shape is None else kind}, not numbers", mend)
        count = 1
        for length in shape:
            count *= int(length)
        stored, declared = item.get_storage_size(), count * kind.itemsize
        if layout.get_layout() == h5py.h5d.CONTIGUOUS and 0 < stored < declared:
            # Written at all, such an array is stored whole.
            raise refusal(at, f"declares {declared:,} bytes but stores {stored:,}", "copy the file again")
        budget.take(at, declared, stored, count * KEPT[kind.kind])
        values = np.zeros(shape, kind)  # where a file has neither values nor a fill value, nothing is read into it
        if count:
            item.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
        return values
    except _DAMAGE as error:
        raise refusal(at, f"is damaged ({error})", "copy or download the file again") from None


def read_attribute(group: Any, name: str) -> Any:
    """A small attribute (a number or a string), or None where there is none that can be read."""
    try:
        key = name.encode()
        if not h5py.h5a.exists(group, key):
            return None
        attribute = h5py.h5a.open(group, key)
        if attribute.get_storage_size() > 2**20:
            return None
        return h5py.Group(group).attrs[name]
    except _DAMAGE:
        return None
