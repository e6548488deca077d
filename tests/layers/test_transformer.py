"""The encoder layer against torch's own, with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prerank.layers import EncoderLayer

torch.manual_seed(0)


def twin(layer: EncoderLayer, width: int, heads: int, feed_forward: int) -> nn.TransformerEncoderLayer:
    """torch's layer with these weights."""
    other = nn.TransformerEncoderLayer(width, heads, feed_forward, dropout=0.0, batch_first=True, norm_first=True)
    pairs = {
        "self_attn.in_proj_weight": layer.project.weight, "self_attn.in_proj_bias": torch.zeros(3 * width),
        "self_attn.out_proj.weight": layer.out.weight, "self_attn.out_proj.bias": layer.out.bias,
        "norm1.weight": layer.before_attention.weight, "norm1.bias": layer.before_attention.bias,
        "norm2.weight": layer.before_network.weight, "norm2.bias": layer.before_network.bias,
        "linear1.weight": layer.network[0].weight, "linear1.bias": layer.network[0].bias,
        "linear2.weight": layer.network[2].weight, "linear2.bias": layer.network[2].bias,
    }  # fmt: skip
    other.load_state_dict({name: value.detach() for name, value in pairs.items()})
    return other


@pytest.mark.parametrize("heads", [1, 3])
def test_it_is_torchs_layer(heads: int) -> None:
    layer = EncoderLayer(6, heads, feed_forward=10)
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_()
    tokens, mask = torch.randn(5, 7, 6), torch.rand(5, 7) < 0.6
    mask[:, 0] = True
    expected = twin(layer, 6, heads, 10)(tokens, src_key_padding_mask=~mask)  # train mode: no fused kernel
    torch.testing.assert_close(layer(tokens, mask), expected, atol=1e-5, rtol=1e-5)


def test_nothing_reads_padding() -> None:
    layer, tokens = EncoderLayer(4, 2, feed_forward=8).eval(), torch.randn(3, 5, 4)
    mask = torch.tensor([True, True, False, True, False]).expand(3, 5)
    other = torch.where(mask.unsqueeze(2), tokens, 9.0)
    assert torch.equal(layer(tokens, mask)[mask], layer(other, mask)[mask])


def test_a_row_without_tokens_is_finite() -> None:
    assert torch.isfinite(EncoderLayer(4, 2, feed_forward=8)(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool))).all()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="attention heads: must divide the width of a token, 6; got 4"):
        EncoderLayer(6, 4, feed_forward=8)
