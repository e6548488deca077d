"""Gates that say how much each field matters, so that weak fields can be left out: one number a field, in (0, 1).

A gate is fields [P, m, D] -> weights [P, m] (or [1, m], the same for every row). `cut` makes it the gate of fewer fields.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from prerank.layers.linear import Linear


class SEGate(nn.Module):
    """COLD's gate: s = sigmoid(W [e_1; ..; e_m] + b), so each row weighs its own fields.  # [P, m, D] -> [P, m]"""

    def __init__(self, fields: int, width: int) -> None:
        super().__init__()
        self.excite = Linear(fields * width, fields)

    def forward(self, fields: Tensor) -> Tensor:
        """[P, m, D] -> [P, m]."""
        return torch.sigmoid(self.excite(fields.flatten(1)))

    @torch.no_grad()
    def cut(self, whole: SEGate, kept: Tensor, mean: Tensor) -> None:
        """Become `whole` for its fields `kept` [m']; what the others said on average, mean [m, D], goes into b."""
        weight = whole.excite.weight.unflatten(1, mean.shape)[kept]  # [m', m, D]
        self.excite.weight.copy_(weight[:, kept].flatten(1))
        self.excite.bias.copy_(whole.excite.bias[kept] + _dropped(weight, mean, kept))


class ConcreteGate(nn.Module):
    """FSCD's gate: a field is kept with a learned probability delta, relaxed so that it has a gradient.  # [P, m, D] -> [P, m]

        z = sigmoid((logit delta + logit u) / t),  u ~ U(0, 1)       in training, for every row and field (drawn a row: our choice)
        z = delta                                                    in eval mode (our choice)

    temperature   t; at .1 z is nearly 0 or 1
    initial       delta at the start

    Maddison et al., "The Concrete Distribution", ICLR 2017 (Binary Concrete).
    """

    def __init__(self, fields: int, temperature: float, initial: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.full((fields,), math.log(initial / (1 - initial))))
        self.temperature = temperature

    def probabilities(self) -> Tensor:
        """delta [m]."""
        return torch.sigmoid(self.logits)

    def forward(self, fields: Tensor) -> Tensor:
        """[P, m, D] -> [P, m]; in eval mode [1, m]."""
        if not self.training:
            return self.probabilities().unsqueeze(0)
        u = torch.rand(fields.shape[:2], device=fields.device).clamp(1e-6, 1 - 1e-6)
        return torch.sigmoid((self.logits + torch.logit(u)) / self.temperature)


def _dropped(weight: Tensor, mean: Tensor, kept: Tensor) -> Tensor:
    """What the fields outside `kept` add on average: weight [n, m, D], mean [m, D] -> [n]."""
    gone = torch.ones(len(mean), dtype=torch.bool, device=mean.device).index_fill(0, kept, False)
    return torch.einsum("nfd,fd->n", weight[:, gone], mean[gone])


@torch.no_grad()
def cut_linear(small: nn.Linear, whole: nn.Linear, kept: Tensor, mean: Tensor, scale: Tensor | None = None) -> None:
    """A linear layer over flattened fields [m D] becomes one over the `kept` ones; the others' mean [m, D] goes into its bias.

    scale   [m] multiplies the kept fields' weights: a gate that is no longer there
    """
    weight = whole.weight.unflatten(1, mean.shape)  # [n, m, D]
    own = weight if scale is None else weight * scale.unsqueeze(1)
    small.weight.copy_(own[:, kept].flatten(1))
    small.bias.copy_(whole.bias + _dropped(weight, mean, kept))
