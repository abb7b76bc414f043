"""AdamW as every network here is trained with it, and restoring it from untrusted state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def adamw(groups: Iterable[tuple[Iterable[nn.Parameter], float]], weight_decay: float) -> torch.optim.AdamW:
    """A fused AdamW over (parameters, learning rate) groups."""
    return torch.optim.AdamW(
        [{"params": list(parameters), "lr": rate} for parameters, rate in groups],
        weight_decay=weight_decay,
        fused=True,
    )


def load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """`load_state_dict` that also checks what PyTorch does not: the slots' names and shapes.

    Raises:
        ValueError: a slot does not fit its parameter.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for index, slots in state["state"].items():
        shape = parameters[index].shape if isinstance(index, int) and 0 <= index < len(parameters) else None
        for name, slot in slots.items():
            fits = isinstance(slot, Tensor) and slot.shape in ((), shape) and slot.dtype == torch.float32
            if name not in ("step", "exp_avg", "exp_avg_sq") or shape is None or not fits:
                raise ValueError(f"optimiser slot {index}.{name} does not fit its parameter")
        if slots and len(slots) != 3:
            raise ValueError(f"optimiser slot {index} is incomplete")
        if slots and not (slots["exp_avg"].shape == slots["exp_avg_sq"].shape == shape):
            raise ValueError(f"optimiser slot {index}.exp_avg does not have its parameter's shape {tuple(shape or ())}")
    for loaded, own in zip(state["param_groups"], optimiser.param_groups, strict=True):
        if loaded.keys() != own.keys():
            raise ValueError("optimiser settings do not fit this version of PyTorch")
    optimiser.load_state_dict(state)
