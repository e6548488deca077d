"""What the interacting layer's equations are is in tests/rankers/test_autoint.py; here is what follows from them."""

from __future__ import annotations

import torch

from prerank.layers import Interacting


def test_permuting_fields_permutes_what_comes_out() -> None:
    layer, fields, order = Interacting(6, heads=3, head_width=4), torch.randn(5, 7, 6), torch.randperm(7)
    torch.testing.assert_close(layer(fields[:, order]), layer(fields)[:, order])


def test_a_field_alone_attends_to_itself() -> None:
    layer, fields = Interacting(6, heads=2, head_width=4, residual=False), torch.randn(5, 1, 6)
    value = layer.project[2]
    torch.testing.assert_close(layer(fields), torch.relu(value(fields)))
    assert len(layer.project) == 3
