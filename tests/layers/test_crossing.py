"""What the cross layers' equations are is in tests/rankers/test_dcn.py; here is what follows from them."""

from __future__ import annotations

import pytest
import torch

from prerank.layers import Cross, CrossMatrix, CrossMixture, CrossVector


@pytest.mark.parametrize("make", [CrossVector, CrossMatrix, lambda n: CrossMixture(n, 2, 3)])
def test_a_layer_of_zeros_passes_its_input_on(make) -> None:
    layer, x0, x = make(5), torch.randn(4, 5), torch.randn(4, 5)
    for name, p in layer.named_parameters():
        if name in ("weight", "linear.weight", "u.weight") or name.endswith("bias"):
            p.data.zero_()
    torch.testing.assert_close(layer(x0, x), x)


def test_a_vector_is_a_matrix_of_equal_rows() -> None:
    vector, matrix, x = Cross(2, lambda: CrossVector(5)), Cross(2, lambda: CrossMatrix(5)), torch.randn(4, 5)
    for one, full in zip(vector.layers, matrix.layers, strict=True):
        full.linear.weight.data.copy_(one.weight.expand(5, 5))
        full.linear.bias.data.zero_()
    torch.testing.assert_close(vector(x), matrix(x))


def test_equal_experts_are_one() -> None:
    one, three = CrossMixture(5, 2), CrossMixture(5, 2, 3)
    three.c.data.copy_(one.c.expand(3, 2, 2))
    three.v.weight.data.copy_(one.v.weight.repeat(3, 1))
    three.u.weight.data.copy_(one.u.weight.repeat(1, 3))
    three.u.bias.data.copy_(one.u.bias)
    x0, x = torch.randn(4, 5), torch.randn(4, 5)
    torch.testing.assert_close(three(x0, x), one(x0, x))
