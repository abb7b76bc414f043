"""AdamW as every network here is trained with it, and restoring it from untrusted state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_SLOTS = {"step", "exp_avg", "exp_avg_sq"}


def adamw(
    groups: Iterable[tuple[Iterable[nn.Parameter], float]], weight_decay: float, eps: float = 1e-8
) -> torch.optim.AdamW:
    """A fused AdamW over (parameters, learning rate) groups; without decay it is Adam."""
    return torch.optim.AdamW(
        [{"params": list(parameters), "lr": rate} for parameters, rate in groups],
        weight_decay=weight_decay,
        eps=eps,
        fused=True,
    )


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down a loss (), from fresh gradients."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restores the slots of a state, and nothing else of it, after checks that PyTorch does not make.

    Learning rates, decay and the order of the parameters stay the optimiser's own: a permuted order in the file would
    lay slots of another size beside a parameter, and the fused kernel would read and write past their end.

    Raises:
        ValueError: a slot does not fit its parameter.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    loaded = state.get("state") if isinstance(state, dict) else None
    if not isinstance(loaded, dict) or loaded.keys() not in (set(), set(range(len(parameters)))):
        raise ValueError(f"the optimiser's state has not one slot for each of its {len(parameters)} parameters")
    for index, slots in loaded.items():
        if not isinstance(slots, dict) or slots.keys() != _SLOTS:
            raise ValueError(f"optimiser slot {index} does not hold {', '.join(sorted(_SLOTS))}")
        for name, slot in slots.items():
            shape = torch.Size() if name == "step" else parameters[index].shape
            if not isinstance(slot, Tensor) or slot.shape != shape or slot.dtype != torch.float32:
                raise ValueError(f"optimiser slot {index}.{name} is not float32 of shape {tuple(shape)}")
            if not bool(slot.isfinite().all()) or (name != "exp_avg" and bool((slot < 0).any())):
                raise ValueError(f"optimiser slot {index}.{name} holds negative or infinite numbers")
    optimiser.load_state_dict({"state": loaded, "param_groups": optimiser.state_dict()["param_groups"]})
