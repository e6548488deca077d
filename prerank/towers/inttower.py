"""IntTower: user heads from every layer meet the item's heads, while both towers stay apart.

Li et al., "IntTower: the Next Generation of Two-Tower Model for Pre-Ranking System", CIKM 2022:

    Light-SE   e~_i = k_i e_i,  k = softmax(W z + b)                    (eq. 3-5)  layers/gating.py
    FE-Block   M_u^l = Linear_l(h_u^l) -> [H, K] for every user layer;  M_v = Linear(h_v^L) -> [H, K]  (6-7)
    Score      sum over layers, user heads of max over item heads of <m_u, m_v>                        (8-9)
    CIR        losses/contrastive.py                                                                  (10)

The text says cosine, the released code takes raw dot products; `similarity` chooses. The default is the text's,
with a learned temperature (ours): it trains faster and ends better than the raw product (docs/results.md).
The score is MaxSim of L*H user heads against H item heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from prerank.batch import Group, Representation, Tower
from prerank.layers import GATES, MLP, Block, Embeddings, FullyConnected, Linear
from prerank.schema import Schema
from prerank.towers.heads import MaxSim
from prerank.towers.mf import id_groups, with_id_head
from prerank.towers.two_tower import TwoTower

PLACEMENTS = ("outputs", "inputs")
INTERACTIONS = ("fe", "fc")


class IntTowerUser(nn.Module):
    """Gate, MLP, and heads at every level.  # T x [rows, L*H, K]

    placement     'outputs': the heads read what each layer puts out, h^1..h^L (the paper);
                  'inputs': what each layer takes in, x, h^1..h^{L-1} (the released code; its last layer then feeds
                  nothing and is not built)
    levels        which layers the heads read, from 1 to L; None: all. Layers above the last one read are not built
    interaction   'fe': a linear layer a level makes H heads; 'fc': one makes H heads of all levels side by side
    """

    needs_fields = True

    def __init__(self, fields: int, field_width: int, hidden: Sequence[int], heads: int, width: int, objectives: int = 1,
                 gate: str | None = "light_se", gate_residual: bool = True, placement: str = "outputs",
                 block: Block = FullyConnected, levels: Sequence[int] | None = None, interaction: str = "fe") -> None:  # fmt: skip
        super().__init__()
        if placement not in PLACEMENTS:
            raise ValueError(f"placement: must be one of {', '.join(PLACEMENTS)}; got '{placement}'")
        if interaction not in INTERACTIONS:
            raise ValueError(f"interaction: must be one of {', '.join(INTERACTIONS)}; got '{interaction}'")
        self.shape = (objectives, heads, width)
        self.inputs, self.joined = placement == "inputs", interaction == "fc"
        self.levels = _levels(levels, len(hidden))
        inputs = fields * field_width
        self.gate = GATES[gate](fields, residual=gate_residual) if gate else nn.Identity()
        self.mlp = MLP(inputs, hidden[: self.levels[-1] - self.inputs], block)
        all_widths = [inputs, *hidden] if self.inputs else hidden
        widths = [all_widths[level - 1] for level in self.levels]
        self.heads = nn.ModuleList(Linear(n, objectives * heads * width) for n in ([sum(widths)] if self.joined else widths))

    def forward(self, fields: Tensor | None, ids: Tensor) -> Representation:
        assert fields is not None
        x = self.gate(fields).flatten(1)
        levels = self.mlp.outputs(x)  # h^1 .. h^L
        if self.inputs:
            levels = [x, *levels]
        levels = [levels[level - 1] for level in self.levels]
        if self.joined:
            levels = [torch.cat(levels, dim=1)]
        heads = [head(h).unflatten(1, self.shape) for head, h in zip(self.heads, levels, strict=True)]
        stacked = torch.cat(heads, dim=2)  # [rows, T, L*H, K]
        return Representation(stacked.unbind(dim=1))


class IntTowerItem(nn.Module):
    """Gate, MLP, and heads of the last layer only.  # T x [rows, H, K]"""

    needs_fields = True

    def __init__(self, fields: int, field_width: int, hidden: Sequence[int], heads: int, width: int, objectives: int = 1,
                 gate: str | None = "light_se", gate_residual: bool = True, block: Block = FullyConnected) -> None:  # fmt: skip
        super().__init__()
        self.shape = (objectives, heads, width)
        self.gate = GATES[gate](fields, residual=gate_residual) if gate else nn.Identity()
        self.mlp = MLP(fields * field_width, hidden, block)
        self.heads = Linear(hidden[-1], objectives * heads * width)

    def forward(self, fields: Tensor | None, ids: Tensor) -> Representation:
        assert fields is not None
        h = self.mlp(self.gate(fields).flatten(1))
        return Representation(self.heads(h).unflatten(1, self.shape).unbind(dim=1))


def inttower(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
    hidden: Sequence[int] = (300, 300, 128),
    heads: int = 2,
    item_heads: int | None = None,
    head_width: int = 64,
    gate: str | None = "light_se",
    gate_residual: bool = True,
    placement: str = "outputs",
    levels: Sequence[int] | None = None,
    interaction: str = "fe",
    similarity: str = "cosine",
    temperature: str = "learnable",
    bias: bool = True,
    norm: bool = True,
    dropout: float = 0.0,
    activation: str = "relu",
    id_head: int | None = None,
    id_history: bool = False,
    embedding_std: float = 0.05,
    linear_std: float | None = None,
) -> TwoTower:
    """IntTower; see the module's first lines.

    heads, item_heads   H of a user level and of the item; item_heads defaults to heads
    head_width          K; 64 is the paper's best (figure 8)
    gate                'light_se', 'senet' (the ablation of figure 6) or None
    placement           where FE-Block reads: 'outputs' (the paper) or 'inputs' (the released code)
    levels              user layers that FE-Block reads, [1, .., L] (figure 7); None: all. [L] with heads 1 is a tower without FE-Block
    interaction         'fe', or 'fc': one layer makes the user's heads of all levels side by side (our reading of figure 6's
                        'FC for FE-Block', which the text does not spell out)
    similarity          'cosine' (the text) or 'dot' (the released code)
    temperature         'learnable' scale of each group's products (ours: a bare cosine cannot be calibrated), or 'none'
    id_head             width of an id head beside the towers, see towers/mf.py; None: no id head
    id_history          the id head also knows what the ids did, see layers/history.py
    linear_std          normal initialisation of the MLPs' weights (released code: 1e-4); None: torch's
    """
    if similarity not in ("cosine", "dot"):
        raise ValueError(f"similarity: must be cosine or dot; got '{similarity}'")
    for name, value in (("heads", heads), ("item_heads", item_heads), ("head_width", head_width)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: must be at least 1; got {value}")
    if not hidden:
        raise ValueError("hidden: must name the width of at least one layer; got none")
    if gate is not None and gate not in GATES:
        raise ValueError(f"gate: must be one of {', '.join(GATES)} or null; got '{gate}'")
    objectives, item_heads = len(schema.objectives), item_heads or heads
    block = partial(FullyConnected, norm=norm, dropout=dropout, activation=activation)
    embeddings = Embeddings(schema, sizes, embedding_std)
    user_fields, item_fields = len(schema.fields("user")), len(schema.fields("item"))
    inner_user = IntTowerUser(user_fields, schema.width, hidden, heads, head_width, objectives, gate, gate_residual, placement, block,
                              levels, interaction)  # fmt: skip
    inner_item = IntTowerItem(item_fields, schema.width, hidden, item_heads, head_width, objectives, gate, gate_residual, block)
    inner_user.mlp.initialise(linear_std)
    inner_item.mlp.initialise(linear_std)
    user: Tower = inner_user
    item: Tower = inner_item
    read = len(inner_user.heads)
    groups = [
        Group(read * heads, item_heads, head_width, objective=t, levels=read, cosine=similarity == "cosine") for t in range(objectives)
    ]
    if id_head is not None:
        user, item = with_id_head(schema, sizes, user, item, id_head, embedding_std, id_history)
        groups += id_groups(id_head, objectives)
    head = MaxSim(groups, objectives, temperature=temperature, bias=bias)
    return TwoTower(schema, embeddings, user, item, head)


def _levels(levels: Sequence[int] | None, layers: int) -> tuple[int, ...]:
    """The layers that are read, in order. Raises ValueError."""
    if levels is None:
        return tuple(range(1, layers + 1))
    if not levels or len(set(levels)) < len(levels) or not all(1 <= level <= layers for level in levels):
        raise ValueError(f"levels: must be different layers from 1 to {layers}; got {list(levels)}")
    return tuple(sorted(levels))
