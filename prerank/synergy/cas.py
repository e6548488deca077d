"""CAS, cycle-adaptive structure: a fully connected layer looks at what it made, weighs its input by it and runs once more.

    z   = FC(x)                       [rows, d_out]
    e   = sigmoid(W_e z + b_e)        [rows, d_in]: the only new parameters
    x~  = x * (2 e)                   the 2 keeps the mean near 1
    out = FC(x~)                      the SAME layer

CS3, arXiv 2604.19269 (2026), section on CAS, read second-hand (no eq. number is cited). Our choices: W_e and b_e start at zero, so
that CAS starts as the identity; with several cycles each weighs the first input anew by the same W_e; no dropout in the passes that
only make weights. BatchNorm would see two distributions in one step and keep running statistics of neither: it stands in the last
pass alone (norm 'second'), or the passes before it have one of their own ('two').
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prerank.config import Cas
from prerank.layers import MLP, EncoderLayer, FullyConnected, Linear
from prerank.layers.mlp import BatchNorm
from prerank.synergy.twice import Twice


class CycleAdaptive(nn.Module):
    """A fully connected layer in its cycle; see the module's first lines.

    layer    the layer that is replaced; its parameters go on being used

    >>> layer = FullyConnected(4, 3, norm=False)
    >>> x = torch.randn(2, 4)
    >>> torch.equal(CycleAdaptive(layer, Cas())(x), layer(x))
    True
    """

    def __init__(self, layer: FullyConnected, settings: Cas) -> None:
        super().__init__()
        self.cycles, self.detach, self.gate_after = settings.cycles, settings.detach, settings.gate == "after"
        inputs, outputs = layer.linear.in_features, layer.linear.out_features
        self.layer = layer
        normed = settings.norm == "two" and not isinstance(layer.norm, nn.Identity)
        self.first_norm: nn.Module = BatchNorm(outputs) if normed else nn.Identity()
        self.excite = Linear(outputs, inputs)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, d_in] -> [rows, d_out]."""
        if self._at_once(x):
            linear, excite = self.layer.linear, self.excite
            return self.layer.behind(Twice.apply(x, linear.weight, linear.bias, excite.weight, excite.bias, self.gate_after, self.detach))
        weighed = x
        for _ in range(self.cycles):
            z = self.first_norm(self.layer.linear(weighed))
            z = self.layer.activation(z) if self.gate_after else z
            weighed = x * (2 * torch.sigmoid(self.excite(z.detach() if self.detach else z)))
        out: Tensor = self.layer(weighed)
        return out

    def _at_once(self, x: Tensor) -> bool:
        """Whether this is what `Twice` does: training on a CPU, one cycle, and nothing but a ReLU between the products."""
        plain = self.cycles == 1 and isinstance(self.first_norm, nn.Identity)
        known = not self.gate_after or isinstance(self.layer.activation, nn.ReLU)
        return plain and known and self.training and torch.is_grad_enabled() and x.dim() == 2 and x.device.type == "cpu"

    def for_serving(self) -> None:
        """BatchNorm becomes a scale and a shift of what the linear layer says: folded into its weights, it would make a second copy of
        them, and at batch 1 reading weights is what a layer costs."""
        for owner, name in ((self, "first_norm"), (self.layer, "norm")):
            if isinstance(norm := getattr(owner, name), nn.BatchNorm1d):
                setattr(owner, name, Affine(norm))


class Affine(nn.Module):
    """BatchNorm of a model that no longer learns: x s + t."""

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        self.scale = nn.Parameter(norm.weight * torch.rsqrt(norm.running_var + norm.eps), requires_grad=False)  # [width]
        self.shift = nn.Parameter(norm.bias - norm.running_mean * self.scale, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, width] -> the same."""
        return x * self.scale + self.shift


def cycle(tower: nn.Module, settings: Cas) -> int:
    """Replace the fully connected layers of a tower. How many were.

    In a transformer encoder the first layer of each token's network is one, too. The input layer of an MLP is left out where the
    settings say so.
    """
    if settings.cycles == 0:
        return 0
    replaced = 0
    for module in list(tower.modules()):
        if isinstance(module, MLP):
            for i, layer in enumerate(module.layers):
                if isinstance(layer, FullyConnected) and (i > 0 or not settings.skip_input):
                    module.layers[i] = CycleAdaptive(layer, settings)
                    replaced += 1
        elif isinstance(module, EncoderLayer):
            layer = FullyConnected(module.network[0].in_features, module.network[0].out_features, norm=False)  # type: ignore[arg-type]
            layer.linear = module.network[0]  # type: ignore[assignment]
            module.network[0], module.network[1] = CycleAdaptive(layer, settings), nn.Identity()
            replaced += 1
    return replaced
