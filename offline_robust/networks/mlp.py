"""Multi-layer perceptrons, single and in batched ensembles, with initialisation from a passed-in generator."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_M = TypeVar("_M", bound=nn.Module)


class MLP(nn.Module):
    """Linear layers with ReLU between them and none after the last.

    Args:
        sizes: widths from input to output, for example ``[3, 256, 256, 1]``.
        generator: draws the weights (PyTorch's default law: uniform within 1/sqrt(fan-in)).
    """

    def __init__(self, sizes: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.layers = nn.ModuleList(linear(a, b, generator) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """(..., sizes[0]) to (..., sizes[-1])."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x), inplace=True)
        out: Tensor = self.layers[-1](x)
        return out

    @property
    def linears(self) -> list[nn.Linear]:
        """The layers, in order."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def frozen(self) -> Layers:
        """The layers' tensors, without gradient; they share the network's memory."""
        return [(layer.weight.detach(), layer.bias.detach()) for layer in self.linears]


Layers = Sequence[tuple[Tensor, Tensor]]
"""Weight (out, in) and bias (out,) of each linear layer of a network, without gradient."""

Buffers = dict[tuple[int, int, torch.dtype], Tensor]
"""Scratch memory by (place, width, type)."""


class InferenceTail:
    """The layers of an MLP after its first, frozen for fast inference without gradient.

    Products between hidden layers, which are nearly all of the work, run in `dtype`; the last layer runs in float32,
    so that only hidden activations are rounded. Weights are converted once, here, and intermediate results go to
    buffers that are kept from call to call: fresh megabytes at every layer cost a third of the time in page faults.

    Args:
        network: the network, or the layers of one; the first is left to the caller, who writes its output into
            `workspace`.
        dtype: float32, or bfloat16 where the hardware multiplies it faster (`fast_inference_dtype`).
        buffers: kept by the caller to outlive this object; never saved.
    """

    def __init__(self, network: MLP | Layers, dtype: torch.dtype, buffers: Buffers | None = None) -> None:
        self.dtype = dtype
        *hidden, last = (network.frozen() if isinstance(network, MLP) else network)[1:]
        self._hidden = [(weight.to(dtype).t(), bias.to(dtype)) for weight, bias in hidden]
        self._last = last
        self._buffers = {} if buffers is None else buffers

    def workspace(self, rows: int) -> Tensor:
        """(rows, H), of the weights' own type, for the first layer's output before its activation."""
        return self._buffer(0, rows, self._last[0].shape[1] if not self._hidden else len(self._hidden[0][0]), None)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """From the first layer's output (R, H), which is overwritten, to the network's output (R, out)."""
        for place, (weight, bias) in enumerate(self._hidden):
            rows, (fan_in, fan_out) = len(x), weight.shape
            reduced = x.clamp_min_(0.0)
            if self.dtype != x.dtype:
                reduced = self._buffer(1, rows, fan_in, self.dtype).copy_(x)
            product = torch.addmm(bias, reduced, weight, out=self._buffer(2 + place % 2, rows, fan_out, self.dtype))
            x = product if self.dtype == x.dtype else self._buffer(0, rows, fan_out, None).copy_(product)
        return F.linear(x.clamp_min_(0.0), *self._last)

    def _buffer(self, place: int, rows: int, width: int, dtype: torch.dtype | None) -> Tensor:
        dtype = dtype or self._last[0].dtype
        held = self._buffers.get((place, width, dtype))
        if held is None or len(held) < rows:
            held = torch.empty((rows, width), dtype=dtype, device=self._last[0].device)
            self._buffers[place, width, dtype] = held
        return held[:rows]


def fast_inference_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it faster than float32, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if device.type == "cpu" and supported else torch.float32


class EnsembleMLP(nn.Module):
    """N independent MLPs evaluated as batched matrix products.

    Parameters have shape (N, in, out) and (N, 1, out).
    """

    def __init__(self, members: int, sizes: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            bound = 1.0 / math.sqrt(fan_in)
            self.weights.append(_uniform((members, fan_in, fan_out), bound, generator))
            self.biases.append(_uniform((members, 1, fan_out), bound, generator))

    def forward(self, x: Tensor) -> Tensor:
        """(B, sizes[0]) to (N, B, sizes[-1]): every member sees the same input."""
        x = x.expand(len(self.weights[0]), *x.shape)
        last = len(self.weights) - 1
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if index < last:
                x = F.relu(x, inplace=True)
        return x

    def member(self, index: int) -> Layers:
        """The layers' tensors of one member, without gradient; they share the ensemble's memory."""
        pairs = zip(self.weights, self.biases, strict=True)
        return [(weight.detach()[index].t(), bias.detach()[index, 0]) for weight, bias in pairs]


class PairInference:
    """A network of (s, x) at many x for each s, without gradient: what s adds to the first layer is computed once.

    Args:
        network: an MLP or its layers, the first of which takes s and x side by side.
        width: of s.
        dtype: see `InferenceTail`.
        buffers: see `InferenceTail`.
    """

    def __init__(self, network: MLP | Layers, width: int, dtype: torch.dtype, buffers: Buffers) -> None:
        layers = network.frozen() if isinstance(network, MLP) else network
        weight, self._bias = layers[0]
        self._first, self._second = weight[:, :width], weight[:, width:]
        self._tail = InferenceTail(layers, dtype, buffers)

    @torch.no_grad()
    def __call__(self, s: Tensor, x: Tensor) -> Tensor:
        """The outputs (R * m, out) at s (R, width) and x: (R * m, X) in the order of s, or (1, m, X) for all alike."""
        share = F.linear(s, self._first, self._bias).unsqueeze(1)
        if x.ndim == 3:
            own = x @ self._second.t()
            hidden = self._tail.workspace(len(s) * x.shape[1])
            torch.add(share, own, out=hidden.view(len(s), x.shape[1], -1))
        else:
            hidden = torch.mm(x, self._second.t(), out=self._tail.workspace(len(x)))
            hidden.view(len(s), -1, hidden.shape[1]).add_(share)
        return self._tail(hidden)


def linear(fan_in: int, fan_out: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer whose weights come from the generator alone."""
    # Allocated without PyTorch's own draw: that would touch the global stream.
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, fan_in, fan_out)  # type: ignore[no-untyped-call]
    bound = 1.0 / math.sqrt(fan_in)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


def polyak(targets: Iterable[Tensor], sources: Iterable[Tensor], tau: float) -> None:
    """Moves targets towards sources in place: target += tau (source - target)."""
    torch._foreach_lerp_([t.data for t in targets], [s.data for s in sources], tau)


def frozen_copy(module: _M) -> _M:
    """A deep copy that takes no gradients (a target network)."""
    return copy.deepcopy(module).requires_grad_(False)


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
