"""HIT: each tower first generates what it expects the other side to be, from its own features, and reads that too.

    g_u = norm(MLP(sg(x_u)))   u = MLP([x_u ; sg(g_u)])        g_v, v alike        logit = t MaxSim(u, v) + b
    where y = 1:   L = 1 - cos(g_u, sg(v))  +  1 - cos(g_v, sg(u))                  losses/mimic.py, term `generator`

Yang, Yuan, Bai, Guo, Yang, Zhou, "HIT Model: A Hierarchical Interaction-Enhanced Two-Tower Model for Pre-Ranking Systems", CIKM 2025
(arXiv 2505.19849): generators with a cosine generation loss, and multi-head representers, H heads of the last layer compared by
MaxSim. The abstract and the released code were read, not the paper's text: no eq. is cited. Where DAT holds a vector an id,
HIT has a function of the features: no state, nothing to warm up for a new id, and nothing to store.
As in the released code, generators read the fields without gradient, join the tower without gradient and learn from their
loss alone (weight .1 there). Ours: a linear last layer (the code's ReLU cannot point where our heads may), a cosine with a learned
temperature, positives alone in the loss (the code is handed the labels and does not look at them), hence no second pair of
generators for what is not clicked, and no attention after the first layer (the code's has a single key, which is a linear layer).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from prerank.batch import Group, Representation, Tower
from prerank.layers import MLP, Block, Embeddings, FullyConnected, Linear
from prerank.schema import Schema
from prerank.towers.dssm import SIDES, MLPTower, check_options
from prerank.towers.heads import MaxSim
from prerank.towers.mf import id_groups, with_id_head
from prerank.towers.two_tower import TwoTower


class Generator(nn.Module):
    """Flattened fields -> the vector that the other side is expected to be, at length 1 an objective.  # [rows, T*K]

    inputs, hidden   width of the flattened fields, widths of the layers
    objectives, width   T and K (all heads of the other side, flattened)
    """

    def __init__(self, inputs: int, hidden: Sequence[int], objectives: int, width: int, block: Block = FullyConnected) -> None:
        super().__init__()
        self.shape = (objectives, width)
        self.mlp = MLP(inputs, hidden, block)
        self.out = Linear(hidden[-1] if hidden else inputs, objectives * width)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, inputs] -> [rows, T*K]."""
        return F.normalize(self.out(self.mlp(x)).unflatten(1, self.shape), dim=2).flatten(1)


class GeneratingTower(nn.Module):
    """An MLP tower that also reads what its generator expects of the other side.  # T x [rows, H, K], guess [rows, T*H*K]"""

    needs_fields = True
    guesses = True

    def __init__(self, inner: MLPTower, generator: Generator) -> None:
        super().__init__()
        self.inner = inner
        self.generator = generator

    def forward(self, fields: Tensor | None, ids: Tensor) -> Representation:
        assert fields is not None
        guess = self.generator(fields.detach().flatten(1))  # g_u, g_v
        return Representation(self.inner.joined(fields, guess.detach()).groups, guess=guess)


def hit(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
    hidden: Sequence[int] = (300, 300, 128),
    generator: Sequence[int] = (64,),
    heads: int = 2,
    width: int = 32,
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
    """HIT; see the module's first lines. Its generators are trained by a term of the objective, `generator`, and by nothing else.

    hidden         widths of the MLP's layers, both sides
    generator      widths of a generator's layers before its last, which is as wide as the other side's heads
    heads, width   H and K of the multi-head representer; released code: 2 of 16
    similarity     'cosine' or 'dot' (the released code)
    temperature    'learnable' scales the similarity, or 'none'
    id_head        width of an id head beside the MLP, see towers/mf.py; None: no id head
    id_history     the id head also knows what the ids did, see layers/history.py
    linear_std     normal initialisation of the MLPs' weights; None: torch's
    """
    check_options(hidden, similarity, gate, heads=heads, width=width)
    if any(n < 1 for n in generator):
        raise ValueError(f"generator: widths must be at least 1; got {list(generator)}")
    objectives = len(schema.objectives)
    block = partial(FullyConnected, norm=norm, dropout=dropout, activation=activation)
    plain = partial(FullyConnected, norm=False, activation=activation)
    embeddings = Embeddings(schema, sizes, embedding_std)
    towers: list[Tower] = []
    for side in SIDES:
        fields = len(schema.fields(side))
        made = Generator(fields * schema.width, generator, objectives, heads * width, plain)
        inner = MLPTower(fields, schema.width, hidden, width, objectives, gate, block, heads=heads, extra=objectives * heads * width)
        inner.mlp.initialise(linear_std)
        towers.append(GeneratingTower(inner, made))
    user, item = towers
    groups = [Group(heads, heads, width, objective=t, cosine=similarity == "cosine") for t in range(objectives)]
    if id_head is not None:
        user, item = with_id_head(schema, sizes, user, item, id_head, embedding_std, id_history)
        groups += id_groups(id_head, objectives)
    return TwoTower(schema, embeddings, user, item, MaxSim(groups, objectives, temperature=temperature, bias=bias))
