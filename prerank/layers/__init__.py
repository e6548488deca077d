"""Building blocks of towers: tensors in, tensors out, no knowledge of features or files."""

from prerank.layers.attention import Interacting
from prerank.layers.crossing import Cross, CrossMatrix, CrossMixture, CrossVector
from prerank.layers.embedding import Embeddings, IdTable, IdVectors
from prerank.layers.factorization import pairwise_products
from prerank.layers.gating import GATES, LightSE, SENet
from prerank.layers.history import Histories, HistoryTable, id_tables
from prerank.layers.linear import Linear
from prerank.layers.mlp import MLP, Block, FullyConnected
from prerank.layers.transformer import EncoderLayer

__all__ = [
    "GATES",
    "MLP",
    "Block",
    "Cross",
    "CrossMatrix",
    "CrossMixture",
    "CrossVector",
    "Embeddings",
    "EncoderLayer",
    "FullyConnected",
    "Histories",
    "HistoryTable",
    "IdTable",
    "IdVectors",
    "Interacting",
    "LightSE",
    "Linear",
    "SENet",
    "id_tables",
    "pairwise_products",
]
