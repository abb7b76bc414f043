"""Readers of flat sources, one row per transition: D4RL's HDF5, npz archives, arrays in memory."""

from __future__ import annotations

import io
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import gymnasium as gym
import numpy as np
from torch import Tensor

from offline_robust.datasets.findings import refusal
from offline_robust.datasets.hdf5 import Budget, is_group, links, open_hdf5, open_object, read_array
from offline_robust.datasets.logged import KEPT, Array, Logged, episode_starts, find_keys, from_columns
from offline_robust.datasets.spaces import OWN_PREFIX, flat_space
from offline_robust.environment import as_spec, flat_actions, flat_observations
from offline_robust.environment.spec import plain_values
from offline_robust.untrusted import open_regular

_MEMBERS = 1_000
_MAX_HEADER, _MAX_DIRECTORY = 2**16, 2**20
"""Bytes of an array's header, and of an archive's list of members, that are read."""
_HEADER_DAMAGE = (
    ValueError, SyntaxError, TypeError, LookupError, AttributeError, RecursionError, MemoryError, tokenize.TokenError,
)  # fmt: skip
"""What numpy raises at a header that is no header: it reads it as a Python literal, and its dtype as a description."""
_PIECE = 2**22
_OWN_KEYS = ("next_valid", "episode_starts", "description")


def read_d4rl(path: Path) -> Logged:
    """Reads a D4RL-layout HDF5 file.

    ``infos`` and ``metadata`` are left alone. Layout: Fu et al. 2020, D4RL (arXiv 2004.07219), and its wiki.

    Raises:
        DatasetError: the file is damaged, or arrays are missing or of the wrong shape.
    """
    where = str(path)
    budget = Budget(where)
    with open_hdf5(path) as root:
        keys = set(links(root))
        if any(key.startswith("episode_") for key in keys) and "observations" not in keys:
            mend = "pass the folder that holds it together with its metadata.json"
            raise refusal(where, "is the data file of a Minari dataset", mend)
        names = find_keys(where, keys)
        columns = {name: read_array(where, root, key, budget) for name, key in names.items()}
        own = OWN_PREFIX.rstrip("/")
        if own in keys:
            group = open_object(where, root, own)
            if not is_group(group):
                raise refusal(f"{where}: {own}", "is not a group", "remove it")
            for key in set(links(group)) & set(_OWN_KEYS):
                columns[OWN_PREFIX + key] = read_array(f"{where}: {own}", group, key, budget)
    logged = from_columns(where, columns, names)
    logged.provenance = {"source": where, "format": "d4rl"}
    return logged


def read_npz(path: Path) -> Logged:
    """Reads an npz archive with D4RL's, Gymnasium's or NeoRL's names; nothing is ever unpickled.

    Raises:
        DatasetError: not an archive of plain arrays, larger than it says, or arrays missing or of the wrong shape.
    """
    where = str(path)
    try:
        with open_regular(path) as file:
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise refusal(where, f"cannot be read ({error.strerror})") from None
    if size == 0:
        raise refusal(where, "is empty", "copy or download it again")
    if _directory_bytes(path) > _MAX_DIRECTORY:
        raise refusal(where, "lists more members than an npz archive has", f"at most {_MEMBERS:,} arrays are read")
    if not zipfile.is_zipfile(path):
        raise refusal(where, "is not an npz archive", "check what it is: pickles and text are never loaded")
    budget = Budget(where)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if len(members) > _MEMBERS:
                raise refusal(where, f"holds {len(members):,} arrays", f"at most {_MEMBERS:,} are read")
            names = find_keys(where, set(members))
            wanted = names | {OWN_PREFIX + key: OWN_PREFIX + key for key in _OWN_KEYS if OWN_PREFIX + key in members}
            columns = {name: _member(f"{where}: {key}", archive, members[key], budget) for name, key in wanted.items()}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, LookupError, RuntimeError, ValueError) as error:
        raise refusal(where, f"is damaged or cut short ({error})", "copy or download it again") from None
    logged = from_columns(where, columns, names)
    logged.provenance = {"source": where, "format": "npz"}
    return logged


def read_arrays(arrays: Mapping[str, Any]) -> Logged:
    """Takes arrays, tensors or lists from memory; what comes of them shares none of it with the caller.

    Args:
        arrays: keys as in `ALIASES`; optionally ``next_valid`` (N,), ``episode`` (N,) (the episode of each row, rows
            of one episode together), ``observation_space``, ``action_space``, ``env`` (an id or an `EnvironmentSpec`;
            also as ``env_id`` and ``env_kwargs``).

    Raises:
        DatasetError: a key is missing or an array has the wrong shape.
    """
    where = "arrays"
    extras = {"next_valid", "episode", "observation_space", "action_space", "env", "env_id", "env_kwargs"}
    names = find_keys(where, {str(key) for key in arrays} - extras)
    columns = {name: _as_array(f"{where}: {key}", arrays[key]) for name, key in names.items()}
    if arrays.get("next_valid") is not None:
        columns[OWN_PREFIX + "next_valid"] = _as_array(f"{where}: next_valid", arrays["next_valid"])
    logged = from_columns(where, columns, names)
    own_memory(logged, columns)
    if arrays.get("episode") is not None:
        set_episodes(logged, f"{where}: episode", _as_array(f"{where}: episode", arrays["episode"]))
    for key, flat in (("observation_space", flat_observations), ("action_space", flat_actions)):
        if arrays.get(key) is not None:
            setattr(logged, key, flat_space(f"{where}: {key}", arrays[key], flat))
    stated = arrays.get("action_space")
    if isinstance(stated, gym.spaces.Discrete) and logged.actions.dtype.kind == "i":
        logged.actions = logged.actions - int(stated.start)  # they count from 0 here
    env = arrays.get("env") if arrays.get("env") is not None else arrays.get("env_id")
    if env is not None:
        spec = as_spec(env, f"{where}: env")
        logged.environment = replace(
            spec, kwargs={**spec.kwargs, **plain_values(arrays.get("env_kwargs") or {}, where)}
        )
    logged.provenance = {"source": "arrays", "format": "arrays"}
    return logged


def set_episodes(logged: Logged, where: str, episode: Array) -> None:
    """Takes over which episode (N,) each row belongs to.

    Raises:
        DatasetError: another shape, or rows of one episode that are not together.
    """
    if episode.shape != (len(logged),):
        raise refusal(where, f"has shape {episode.shape}", f"give one number for each of {len(logged):,}")
    starts = np.flatnonzero(np.r_[True, episode[1:] != episode[:-1]])
    if len(np.unique(episode)) != len(starts):
        raise refusal(where, "rows of one episode are not together", "sort the rows by episode")
    logged.starts = episode_starts(where, starts, len(logged))


def own_memory(logged: Logged, columns: Mapping[str, Array]) -> None:
    """Copies what still lies in the caller's memory: reused, it would change the data under their fingerprint."""
    for name in ("observations", "actions", "rewards", "next_observations"):
        values = getattr(logged, name)
        if values is not None and np.may_share_memory(values, columns[name]):
            setattr(logged, name, values.copy())


def _directory_bytes(path: Path) -> int:
    """Bytes of a zip archive's list of members, as its end says: zipfile would make an object of every entry."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2**16 - 200))
        tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    large = tail.rfind(b"PK\x06\x06")
    sizes = [int.from_bytes(tail[end + 12 : end + 16], "little")] if end >= 0 else []
    sizes += [int.from_bytes(tail[large + 40 : large + 48], "little")] if large >= 0 else []
    return max((size for size in sizes if size != 2**32 - 1), default=0)


def _member(where: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> Array:
    """One array of an archive; its header must agree with the archive's sizes before anything is allocated."""
    if info.flag_bits & 1:
        raise refusal(where, "is encrypted", "store it in the clear")
    with archive.open(info) as member:
        stream = io.BytesIO(member.read(_MAX_HEADER))  # a header may say that it has gigabytes
        try:
            version = np.lib.format.read_magic(stream)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in read_header:
                raise refusal(where, f"has npy version {version}", "save it again with numpy.savez")
            shape, transposed, kind = read_header[version](stream)
            begin = stream.tell()
        except _HEADER_DAMAGE as error:
            raise refusal(where, f"is not a plain array ({error})", "save it again with numpy.savez") from None
        if kind.hasobject or kind.kind not in "fiub":
            raise refusal(where, f"holds {kind}, not numbers", "store numbers; objects are never unpickled")
        declared = kind.itemsize * math.prod(shape)
        if min(shape, default=0) < 0 or declared != info.file_size - begin:
            raise refusal(
                where, f"declares shape {shape}, which its {info.file_size:,} bytes do not hold", "save it again"
            )
        budget.take(where, declared, info.compress_size, math.prod(shape) * KEPT[kind.kind])
    with archive.open(info) as member:
        member.read(begin)
        values = _read_values(member, math.prod(shape), kind)
    return values.reshape(shape[::-1]).T if transposed else values.reshape(shape)


def _read_values(stream: IO[bytes], count: int, kind: np.dtype[Any]) -> Array:
    """So many numbers, piece by piece: never are all of them there twice."""
    values = np.empty(count, kind)
    step = _PIECE // kind.itemsize
    for begin in range(0, count, step):
        length = min(step, count - begin)
        values[begin : begin + length] = np.frombuffer(stream.read(length * kind.itemsize), kind, length)
    return values


def _as_array(where: str, values: Any) -> Array:
    try:
        return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    except (ValueError, TypeError) as error:
        raise refusal(where, f"is not an array ({error})", "give numbers of one shape") from None
