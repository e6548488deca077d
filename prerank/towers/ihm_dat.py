"""interpretation: the source is not public. IHM-DAT as we read its name: DAT that learns from the hardest items of the batch.

    DAT (towers/dat.py, DLP-KDD 2021) with its two losses, `mimic` and `category_alignment`, and two more (losses/hard.py):
    hard negatives   in-batch softmax of u against the items of the batch that are mistaken for its positives   `hard_negatives`
    implicit mimic   a_u must find its positive among the same items; it is not told where it lies              `hard_mimic`

IHM-DAT is named as a backbone by CS3 (arXiv 2604.19269, 2026), without an equation (no eq. to cite) or a reference; no public
description was found. Everything beyond DAT is ours, and no number of ours is to be read as theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prerank.schema import Schema
from prerank.towers.dat import dat
from prerank.towers.two_tower import TwoTower


def ihm_dat(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
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
    """interpretation: the source is not public. DAT's towers and options; what differs is the objective, see the module's first lines.

    hidden        widths of the MLP's layers, both sides
    width         K of the towers' vectors, and so of the augmented vectors
    similarity    'cosine' or 'dot'
    temperature   'learnable' scales the similarity, or 'none'
    id_head       width of an id head beside the MLP, see towers/mf.py; None: no id head
    id_history    the id head also knows what the ids did, see layers/history.py
    linear_std    normal initialisation of the MLPs' weights; None: torch's
    """
    return dat(
        schema, sizes, hidden=hidden, width=width, similarity=similarity, temperature=temperature, bias=bias, norm=norm, dropout=dropout,
        activation=activation, gate=gate, id_head=id_head, id_history=id_history, embedding_std=embedding_std,
        linear_std=linear_std,
    )  # fmt: skip
