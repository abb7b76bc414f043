"""The state of a d3rlpy algorithm as plain tensors and numbers, and back from a file that is not trusted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_SECOND_MOMENTS = ("exp_avg_sq", "max_exp_avg_sq", "square_avg")
_SLOTS = ("step", "exp_avg", "momentum_buffer", "grad_avg", *_SECOND_MOMENTS)
_SCHEDULE = ("last_epoch", "_step_count", "_last_lr")


def networks_of(implementation: Any) -> dict[str, nn.Module]:
    """Every network and parameter of an implementation by name, targets included."""
    return {name: part for name, part in _parts(implementation) if isinstance(part, nn.Module)}


def optimisers_of(implementation: Any) -> dict[str, Any]:
    """Every optimiser with its learning-rate schedule."""
    return {name: part for name, part in _parts(implementation) if hasattr(part, "optim")}


def optimiser_state(wrapper: Any) -> dict[str, Any]:
    """Slots, learning rates and the schedule's place; everything else follows from the configuration."""
    schedule = wrapper._lr_scheduler
    return {
        "slots": {index: dict(slots) for index, slots in wrapper.optim.state_dict()["state"].items()},
        "rates": [float(group["lr"]) for group in wrapper.optim.param_groups],
        "schedule": {} if schedule is None else {key: schedule.state_dict()[key] for key in _SCHEDULE},
    }


def load_optimiser_state(wrapper: Any, state: Any) -> None:
    """Restores what `optimiser_state` gave, after checks that PyTorch does not make.

    Raises:
        ValueError: a slot does not fit its parameter, or a number is none.
    """
    optimiser, groups = wrapper.optim, wrapper.optim.param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    slots, rates = state["slots"], state["rates"]
    if not isinstance(slots, Mapping) or not set(slots) <= set(range(len(parameters))):
        raise ValueError(f"the optimiser's slots are not those of its {len(parameters)} parameters")
    for index, found in slots.items():
        _check_slots(index, found, parameters[index])
    if len(rates) != len(groups) or not all(_number(rate) and rate >= 0 for rate in rates):
        raise ValueError("the optimiser's learning rates are not one number for each group")
    _load_schedule(wrapper._lr_scheduler, state["schedule"])
    optimiser.load_state_dict({"state": dict(slots), "param_groups": optimiser.state_dict()["param_groups"]})
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = float(rate)


def _check_slots(index: int, slots: Any, parameter: Tensor) -> None:
    if not isinstance(slots, Mapping) or not set(slots) <= set(_SLOTS):
        raise ValueError(f"optimiser slot {index} is not of a kind that d3rlpy's optimisers keep")
    for name, slot in slots.items():
        if slot is None and name == "momentum_buffer":
            continue
        shape = torch.Size() if name == "step" else parameter.shape
        if not isinstance(slot, Tensor) or slot.shape != shape or slot.dtype != torch.float32:
            raise ValueError(f"optimiser slot {index}.{name} is not float32 of shape {tuple(shape)}")
        signed = name != "step" and name not in _SECOND_MOMENTS
        if not bool(slot.isfinite().all()) or not (signed or bool((slot >= 0).all())):
            raise ValueError(f"optimiser slot {index}.{name} holds negative or infinite numbers")


def _load_schedule(schedule: Any, state: Any) -> None:
    if not isinstance(state, Mapping) or set(state) != (set() if schedule is None else set(_SCHEDULE)):
        raise ValueError("the learning-rate schedule is not the configuration's")
    if schedule is None:
        return
    numbers = [state["last_epoch"], state["_step_count"], *state["_last_lr"]]
    if not all(_number(number) and number >= 0 for number in numbers):
        raise ValueError("the learning-rate schedule holds something other than numbers")
    schedule.load_state_dict(dict(state))


def _parts(implementation: Any) -> list[tuple[str, Any]]:
    modules = implementation.modules
    return [(field.name, getattr(modules, field.name)) for field in dataclasses.fields(modules)]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
