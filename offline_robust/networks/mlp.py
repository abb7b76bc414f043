"""Multi-layer perceptrons, single and in batched ensembles, with initialisation from a passed-in generator."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


def linear(fan_in: int, fan_out: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer whose weights come from the generator alone."""
    layer = nn.utils.skip_init(nn.Linear, fan_in, fan_out)
    bound = 1.0 / math.sqrt(fan_in)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


def polyak(targets: Iterable[Tensor], sources: Iterable[Tensor], tau: float) -> None:
    """Moves targets towards sources in place: target += tau (source - target)."""
    torch._foreach_lerp_([t.data for t in targets], [s.data for s in sources], tau)


def frozen_copy(module: nn.Module) -> nn.Module:
    """A deep copy that takes no gradients (a target network)."""
    return copy.deepcopy(module).requires_grad_(False)


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
