"""Checkpoints: one safetensors file that holds every tensor, and everything else as JSON in its header.

One file, so that replacing it is one atomic rename: a killed run has the old checkpoint or the new, whole. Nothing is
ever unpickled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from offline_robust.errors import CheckpointError
from offline_robust.files import write_bytes
from offline_robust.tensor_files import open_tensors
from offline_robust.untrusted import parse_json

FORMAT = "offline-robust-checkpoint-1"
_TENSOR = "tensor:"
_DTYPES = ("F32", "F64", "I64", "U8", "BOOL")
_MAX_BYTES = 16 * 2**30


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Writes nested dictionaries and lists of tensors, numbers, strings and None, atomically."""
    tensors: dict[str, Tensor] = {}
    skeleton = _flatten(state, "", tensors)
    write_bytes(path, save(tensors, {"checkpoint": json.dumps({"format": FORMAT, "state": skeleton})}))


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote.

    Raises:
        CheckpointError: not such a file, damaged, or holding NaN or infinite numbers.
    """
    where = Path(path)
    if not where.is_file():
        raise CheckpointError(f"{where}: no such checkpoint")
    if where.stat().st_size > _MAX_BYTES:
        raise CheckpointError(f"{where}: larger than {_MAX_BYTES:,} bytes: not a checkpoint of this library")
    try:
        with open_tensors(where) as file:
            content = parse_json((file.metadata() or {}).get("checkpoint", "{}"))
            if content.get("format") != FORMAT:
                raise CheckpointError(f"{where}: not a checkpoint of this library")
            names = set(file.keys())
            if sorted(_named(content["state"])) != sorted(names):
                raise ValueError("its tensors are not those that its state names")
            for name in names:
                if (dtype := file.get_slice(name).get_dtype()) not in _DTYPES:
                    raise ValueError(f"{name[:80]} is {dtype}, which no checkpoint holds")
            tensors = {name: file.get_tensor(name) for name in names}
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise CheckpointError(f"{where}: {name[:80]} holds NaN or infinite values")
        state = _restore(content["state"], tensors)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{where}: not a safetensors file ({_line(error)}); pickled checkpoints are never loaded, "
            "delete it and train anew"
        ) from None
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: damaged ({_line(error)})") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{where}: damaged: its state is not a mapping")
    return state


def require_like(template: Any, loaded: Any, where: Path | str, path: str = "") -> None:
    """Checks that a loaded state has the names and tensor shapes of a fresh one.

    An empty part of the fresh state fits anything: an optimiser has no slots before its first step.

    Raises:
        CheckpointError: names the first part that differs.
    """
    if isinstance(template, Tensor):
        if not isinstance(loaded, Tensor) or loaded.shape != template.shape or loaded.dtype != template.dtype:
            found = f"{loaded.dtype} {tuple(loaded.shape)}" if isinstance(loaded, Tensor) else type(loaded).__name__
            raise CheckpointError(
                f"{where}: {path} is {found}, expected {template.dtype} {tuple(template.shape)}: "
                "the checkpoint belongs to another environment or configuration"
            )
    elif isinstance(template, Mapping):
        if not isinstance(loaded, Mapping) or (template and template.keys() != loaded.keys()):
            raise CheckpointError(f"{where}: {path or 'state'} has other parts than this configuration expects")
        for key, value in template.items():
            require_like(value, loaded[key], where, f"{path}.{key}" if path else str(key))
    elif isinstance(template, list | tuple) and (not isinstance(loaded, list) or len(loaded) != len(template)):
        raise CheckpointError(f"{where}: {path} has another length than this configuration expects")


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().clone().contiguous()
        return _TENSOR + path
    if isinstance(value, Mapping):
        # Optimisers number their slots: keys keep their type in a list of pairs.
        return {"": [[key, _flatten(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_flatten(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path}: {value} cannot be saved")
    if isinstance(value, str) and value.startswith(_TENSOR):
        raise ValueError(f"{path}: strings that begin with {_TENSOR!r} are reserved")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path}: cannot save a {type(value).__name__}")


def _named(value: Any) -> list[str]:
    """Names of the tensors that a state is made of."""
    if isinstance(value, str):
        return [value[len(_TENSOR) :]] if value.startswith(_TENSOR) else []
    parts = [item for _, item in value[""]] if isinstance(value, dict) else value if isinstance(value, list) else []
    return [name for part in parts for name in _named(part)]


def _restore(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, str) and value.startswith(_TENSOR):
        return tensors[value[len(_TENSOR) :]]
    if isinstance(value, dict):
        return {key: _restore(item, tensors) for key, item in value[""]}
    if isinstance(value, list):
        return [_restore(item, tensors) for item in value]
    return value


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
