"""The user's files to encoded, memory-mapped columns, and columns to batches.

Two lines from settings to batches:

    dataset = prepare(config.data)
    loader = Loader(dataset, dataset.rows("train"), batch_size=8192)

Every wrong file, setting or value is a `DataError` that names it.
"""

from prerank.data.dataset import ALL, IMPRESSIONS, Dataset
from prerank.data.encoder import ENCODERS, Encoder
from prerank.data.errors import DataError
from prerank.data.list_loader import ListLoader, check_lists
from prerank.data.loader import Loader
from prerank.data.lookup import Lookup
from prerank.data.prepare import prepare
from prerank.data.table import Table

__all__ = [
    "ALL",
    "ENCODERS",
    "IMPRESSIONS",
    "DataError",
    "Dataset",
    "Encoder",
    "ListLoader",
    "Loader",
    "Lookup",
    "Table",
    "check_lists",
    "prepare",
]
