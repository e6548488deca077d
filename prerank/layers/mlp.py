"""Fully connected layers, and the one argument through which a tower lets its layers be replaced."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prerank.layers.dropout import Dropout
from prerank.layers.linear import Linear
from prerank.layers.normed import fits, normed_relu

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU, "tanh": nn.Tanh, "leaky_relu": nn.LeakyReLU}


class Block(Protocol):
    """Builds one layer of a tower: (inputs, outputs) -> module [.., inputs] -> [.., outputs]."""

    def __call__(self, inputs: int, outputs: int) -> nn.Module: ...


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm of rows; one row alone has no variance, so it is normalised by the running statistics, as in eval mode.

    Such a batch is no mistake: it is the last of an epoch, or one in which all rows are of the same user.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[rows, width] -> the same."""
        if self.training and x.shape[0] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps)
        return super().forward(x)


class FullyConnected(nn.Module):
    """Linear, then BatchNorm (optional), activation and dropout: the papers' FC layer.

    >>> import torch
    >>> FullyConnected(4, 3)(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """

    def __init__(self, inputs: int, outputs: int, *, norm: bool = True, dropout: float = 0.0, activation: str = "relu") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: must be one of {', '.join(sorted(ACTIVATIONS))}; got '{activation}'")
        self.linear = Linear(inputs, outputs)
        # A bias before BatchNorm is subtracted again by it; it stays so that export can fold the two into one.
        self.norm: nn.Module = BatchNorm(outputs) if norm else nn.Identity()
        self.activation = ACTIVATIONS[activation]()
        self.dropout: nn.Module = Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[.., inputs] -> [.., outputs]."""
        return self.behind(self.linear(x))

    def behind(self, x: Tensor) -> Tensor:
        """What comes behind the linear layer: [.., outputs] -> the same."""
        if self.training and isinstance(self.norm, nn.BatchNorm1d) and isinstance(self.activation, nn.ReLU):
            if fits(x, self.norm):
                dropped = self.dropout.dropped if isinstance(self.dropout, Dropout) and self.dropout.training else 0
                return normed_relu(x, self.norm, dropped)
            return self.dropout(self.norm(x).relu_())  # BatchNorm's backward reads its input, never its output: it may be overwritten
        return self.dropout(self.activation(self.norm(x)))


class MLP(nn.Module):
    """A chain of blocks that can also say what every layer put out."""

    def __init__(self, inputs: int, hidden: Sequence[int], block: Block) -> None:
        super().__init__()
        if any(n < 1 for n in hidden):
            raise ValueError(f"hidden: widths must be at least 1; got {list(hidden)}")
        widths = [inputs, *hidden]
        self.layers = nn.ModuleList(block(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """[rows, inputs] -> [rows, hidden[-1]]."""
        for layer in self.layers:
            x = layer(x)
        return x

    @torch.no_grad()
    def initialise(self, std: float | None) -> None:
        """Draw the linear layers' weights from N(0, std^2); None keeps torch's own initialisation."""
        for layer in self.modules():
            if std is not None and isinstance(layer, nn.Linear):
                layer.weight.normal_(0.0, std)

    def outputs(self, x: Tensor) -> list[Tensor]:
        """[rows, inputs] -> the output of every layer, first to last."""
        outputs = []
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
        return outputs
