"""Second-order factorisation: what every pair of fields says together, in time linear in the fields.

Rendle, "Factorization Machines", ICDM 2010 (lemma 3.1):

    sum_{i<j} v_i * v_j  =  1/2 [ (sum_i v_i)^2 - sum_i v_i^2 ]        elementwise; its sum over K is FM's second-order term
"""

from __future__ import annotations

from torch import Tensor


def pairwise_products(vectors: Tensor) -> Tensor:
    """Sum of the elementwise products of all pairs of fields.  # [.., F, K] -> [.., K]

    >>> import torch
    >>> pairwise_products(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))  # 1*3 + 1*5 + 3*5, 2*4 + 2*6 + 4*6
    tensor([23., 44.])
    """
    return (vectors.sum(dim=-2).square() - vectors.square().sum(dim=-2)) / 2
