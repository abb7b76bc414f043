"""What a bug report should say: versions, devices, extras, data roots."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from offline_robust.datasets.sources import cache_root, minari_root
from offline_robust.experiments.run import environment_facts
from offline_robust.files import bundled

_EXTRAS = {"d3rlpy": "d3rlpy", "wandb": "wandb", "hub": "huggingface_hub", "arrow": "pyarrow"}


def examine() -> dict[str, dict[str, Any]]:
    """Facts by section; looks at everything, changes nothing."""
    facts = environment_facts()
    devices: dict[str, Any] = {**facts["hardware"], "torch threads": torch.get_num_threads()}
    devices["cuda"] = torch.cuda.is_available()
    extras = {
        extra: "installed" if importlib.util.find_spec(module) else f"missing: pip install 'offline-robust[{extra}]'"
        for extra, module in _EXTRAS.items()
    }
    roots = {name: _there(bundled(name)) for name in ("datasets", "models", "configs")}
    roots |= {"minari": _there(minari_root()), "cache": _there(cache_root())}
    return {"versions": facts["versions"], "devices": devices, "extras": extras, "data": roots}


def _there(path: Path | None) -> str:
    if path is None:
        return "none: there is no home directory"
    return f"{path}{'' if path.is_dir() else ' (not there)'}"
