"""interpretation: the source is not public. RCG as we read "transformer-based": an encoder over what is known of the user.

    tokens   one for every field of the user and the request, one for every value of a list (the items of a history)
    user     x = tokens + places;  transformer encoder;  mean over tokens;  linear -> u           (Vaswani et al., 2017, eq. 1)
    item     MLP, as DSSM's -> v                                       logit = t <u, v> / (|u| |v|) + b

RCG is named as a backbone by CS3 (arXiv 2604.19269, 2026), "transformer-based", without an equation or a reference; no public
description was found. Everything here is ours, and no number of ours is to be read as theirs. A history is a sequence feature
that shares the item id's vocabulary: its tokens are then the item tower's own id vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from prerank.batch import Group, Representation, TokenTower, Tower
from prerank.layers import Embeddings, EncoderLayer, FullyConnected, Linear
from prerank.layers.embedding import masked_mean
from prerank.schema import Schema
from prerank.towers.dssm import MLPTower, check_options
from prerank.towers.heads import MaxSim
from prerank.towers.mf import id_groups, with_id_head
from prerank.towers.two_tower import TwoTower


class EncoderTower(nn.Module):
    """Tokens -> transformer encoder -> mean -> one vector an objective.  # T x [rows, 1, K]

    places   L, tokens of a row; each place has a vector of its own, which says which field it is and how far back it lies
    """

    needs_fields = False
    reads_tokens = True

    def __init__(self, places: int, token_width: int, layers: int, heads: int, feed_forward: int, width: int, objectives: int = 1,
                 dropout: float = 0.0, std: float = 0.05) -> None:  # fmt: skip
        super().__init__()
        self.shape = (objectives, 1, width)
        self.places = nn.Parameter(torch.randn(places, token_width) * std)
        self.layers = nn.ModuleList(EncoderLayer(token_width, heads, feed_forward, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(token_width)
        self.project = Linear(token_width, objectives * width)

    def forward(self, tokens: Tensor, ids: Tensor, mask: Tensor) -> Representation:
        x = tokens + self.places  # [rows, L, D]
        for layer in self.layers:
            x = layer(x, mask)
        vector = self.project(masked_mean(self.norm(x), mask))  # [rows, T*K]
        return Representation(vector.unflatten(1, self.shape).unbind(dim=1))


def rcg(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
    layers: int = 2,
    attention_heads: int = 2,
    feed_forward: int = 128,
    hidden: Sequence[int] = (300, 300, 128),
    width: int = 64,
    similarity: str = "cosine",
    temperature: str = "learnable",
    bias: bool = True,
    norm: bool = True,
    dropout: float = 0.0,
    activation: str = "relu",
    gate: str | None = None,
    id_head: int | None = None,
    id_history: bool = False,
    embedding_std: float = 0.05,
    linear_std: float | None = None,
) -> TwoTower:
    """interpretation: the source is not public. A transformer for the user, an MLP for the item; see the module's first lines.

    layers, attention_heads, feed_forward   the encoder's; the heads share the field width, feed_forward is its hidden layer
    hidden, norm, activation, gate, linear_std   the item's MLP, as in dssm
    width         K of both sides' vectors
    similarity    'cosine' or 'dot'
    temperature   'learnable' scales the similarity, or 'none'
    dropout       of both sides
    id_head       width of an id head beside the towers, see towers/mf.py; None: no id head
    id_history    the id head also knows what the ids did, see layers/history.py
    """
    check_options(hidden, similarity, gate, layers=layers, attention_heads=attention_heads, feed_forward=feed_forward, width=width)
    objectives = len(schema.objectives)
    block = partial(FullyConnected, norm=norm, dropout=dropout, activation=activation)
    embeddings = Embeddings(schema, sizes, embedding_std, unpooled=("user",))
    places = sum(f.max_length if f.many else 1 for f in schema.fields("user"))
    encoder = EncoderTower(places, schema.width, layers, attention_heads, feed_forward, width, objectives, dropout, embedding_std)
    mlp = MLPTower(len(schema.fields("item")), schema.width, hidden, width, objectives, gate, block)
    mlp.mlp.initialise(linear_std)
    user: Tower | TokenTower = encoder
    item: Tower | TokenTower = mlp
    groups = [Group(1, 1, width, objective=t, cosine=similarity == "cosine") for t in range(objectives)]
    if id_head is not None:
        user, item = with_id_head(schema, sizes, user, item, id_head, embedding_std, id_history)
        groups += id_groups(id_head, objectives)
    return TwoTower(schema, embeddings, user, item, MaxSim(groups, objectives, temperature=temperature, bias=bias))
