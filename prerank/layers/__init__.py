"""Building blocks of towers: tensors in, tensors out, no knowledge of features or files."""

from prerank.layers.embedding import Embeddings, IdTable, IdVectors
from prerank.layers.gating import GATES, LightSE, SENet
from prerank.layers.linear import Linear
from prerank.layers.mlp import MLP, Block, FullyConnected

__all__ = ["GATES", "MLP", "Block", "Embeddings", "FullyConnected", "IdTable", "IdVectors", "LightSE", "Linear", "SENet"]
