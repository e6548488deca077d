"""A transformer encoder's layer over tokens of which some are padding.

    x = x + Attention(LayerNorm(x));   x = x + FFN(LayerNorm(x));   Attention = softmax(Q K' / sqrt d) V   (eq. 1)

Vaswani et al., "Attention Is All You Need", NeurIPS 2017; the norm before each part, where it needs no warm-up, is that of Xiong
et al., "On Layer Normalization in the Transformer Architecture", ICML 2020. Attention is written out, so that serving can
record it; rows are short (fields and a history), and a fused kernel gains nothing on them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from prerank.layers.dropout import Dropout
from prerank.layers.linear import Linear


class EncoderLayer(nn.Module):
    """Self-attention and a two-layer network a token, both added to what came in.

    width          D of a token;  heads   attention heads, which share it
    feed_forward   width of the hidden layer

    >>> EncoderLayer(4, heads=2, feed_forward=8)(torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)).shape
    torch.Size([2, 3, 4])
    """

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"attention heads: must divide the width of a token, {width}; got {heads}")
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.project = Linear(width, 3 * width, bias=False)  # Q, K, V
        self.out = Linear(width, width)
        self.before_network = nn.LayerNorm(width)
        self.network = nn.Sequential(Linear(width, feed_forward), nn.ReLU(), Linear(feed_forward, width))
        self.dropout: nn.Module = Dropout(dropout) if dropout else nn.Identity()

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """[rows, L, D], [rows, L] -> [rows, L, D]; no token reads one that is False in the mask."""
        rows, length, width = tokens.shape
        x = tokens.flatten(0, 1)  # [rows * L, D]: the layers are told of rows
        x = x + self.dropout(self.out(self._attended(self.before_attention(x), rows, length, mask)))
        x = x + self.dropout(self.network(self.before_network(x)))
        return x.view(rows, length, width)

    def _attended(self, x: Tensor, rows: int, length: int, mask: Tensor) -> Tensor:
        """[rows * L, D] -> what each token read, the heads side by side.  # [rows * L, D]"""
        q, k, v = self.project(x).view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)  # [rows, heads, L, d]
        scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(q.shape[3])  # [rows, heads, L, L]
        weights = torch.softmax(scores.masked_fill(~mask[:, None, None, :], -1e9), dim=3)
        return torch.matmul(weights, v).transpose(1, 2).reshape(rows * length, -1)
