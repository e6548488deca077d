"""Numbers -> fields: a line through the number, or AutoDis's soft bins. Hard bins are rows of a table, see embedding.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prerank.schema import Feature

SKIP = 0.1  # alpha, of the paper's order (our choice)
FAR = 1e4  # deviations from the mean beyond which numbers are alike: a sum of larger ones could leave float32


class AutoDis(nn.Module):
    """Automatic discretisation: a number says how much of each meta-embedding it is made of.

        h = leaky_relu(w x);   s = W h + alpha h;   e = sum_k softmax(s / t)_k m_k

    Guo et al., "An Embedding Learning Framework for Numerical Features in CTR Prediction", KDD 2021 (eq. 5-8): neighbouring numbers
    get neighbouring fields, as behind a line, and far ones may differ in any way, as behind bins. A missing value is the mean, 0,
    and so the plain average of the meta-embeddings.

    meta          how many meta-embeddings, H
    temperature   t; small ones make the bins hard. The paper tunes it; 1 suits standardised numbers (our choice)

    >>> AutoDis(meta=4, width=3)(torch.zeros(2, 1)).shape
    torch.Size([2, 3])
    """

    def __init__(self, meta: int, width: int, temperature: float = 1.0, std: float = 0.05) -> None:
        super().__init__()
        self.project = nn.Linear(1, meta, bias=False)
        self.mix = nn.Linear(meta, meta, bias=False)
        self.meta = nn.Parameter(torch.randn(meta, width) * std)
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        """[rows, 1] -> [rows, D]."""
        h = F.leaky_relu(self.project(x.clamp(-FAR, FAR)))
        shares = torch.softmax((self.mix(h) + SKIP * h) / self.temperature, dim=1)  # [rows, H]
        return shares @ self.meta


def dense(feature: Feature, width: int, std: float) -> nn.Module:
    """What makes a field of a float column: [rows, 1 or dim] -> [rows, D].

    std   of the meta-embeddings' initialisation, that of the tables
    """
    if feature.encoding == "autodis":
        return AutoDis(feature.meta_embeddings, width, feature.temperature, std)
    return nn.Linear(feature.dim or 1, width)
