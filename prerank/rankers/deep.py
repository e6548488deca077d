"""The deep part of a ranker, under the names that the towers have for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from prerank.layers import MLP, FullyConnected


def deep(inputs: int, hidden: Sequence[int], *, norm: bool, dropout: float, activation: str, linear_std: float | None) -> MLP:
    """Fully connected layers over the concatenated fields.  # [P, inputs] -> [P, hidden[-1]]

    hidden       widths of the layers
    norm         BatchNorm before each activation
    dropout      share of each layer's outputs that training drops
    activation   'relu', 'silu', 'gelu', 'tanh' or 'leaky_relu'
    linear_std   normal initialisation of the weights; None: torch's
    """
    if not hidden:
        raise ValueError("hidden: must name the width of at least one layer; got none")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: must be at least 0 and below 1; got {dropout}")
    mlp = MLP(inputs, hidden, partial(FullyConnected, norm=norm, dropout=dropout, activation=activation))
    mlp.initialise(linear_std)
    return mlp
