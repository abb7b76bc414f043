"""d3rlpy draws from PyTorch's global generators: a stream of its own, swapped in around its calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class PrivateStream:
    """The global generators' states as d3rlpy shall see them; the caller's are put back after every use.

    Args:
        seed: where the stream starts.
        device: the device of the networks, beside the CPU.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._generators = [torch.default_generator]
        if device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]
            self._generators.append(torch.cuda.default_generators[device.index or torch.cuda.current_device()])
        self._states = [torch.Generator(each.device).manual_seed(seed).get_state() for each in self._generators]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, global draws come from this stream."""
        before = [generator.get_state() for generator in self._generators]
        try:
            for generator, state in zip(self._generators, self._states, strict=True):
                generator.set_state(state)
            yield
            self._states = [generator.get_state() for generator in self._generators]
        finally:
            for generator, state in zip(self._generators, before, strict=True):
                generator.set_state(state)

    def state(self) -> dict[str, Tensor]:
        """The states by kind of device."""
        return {each.device.type: state for each, state in zip(self._generators, self._states, strict=True)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `state` gave.

        Raises:
            RuntimeError: not the state of such a generator.
        """
        found = [state[each.device.type] for each in self._generators]
        for generator, each in zip(self._generators, found, strict=True):
            torch.Generator(generator.device).set_state(each)  # refused here, not at the next update
        self._states = found
