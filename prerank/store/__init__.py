"""Vectors by id that change while others read them: what the caches of CTS and CMS lie in. Knows ids and vectors, nothing else."""

from prerank.store.contract import Memory, SpaceError, Store, StoreError, averaged, check_decay, check_width
from prerank.store.ema import EmaCache
from prerank.store.history import History, check_history
from prerank.store.lmdb import LmdbFile, LmdbStore
from prerank.store.memory import MemoryStore
from prerank.store.moment import Moment
from prerank.store.outside import Outside
from prerank.store.redis import RedisStore
from prerank.store.stamp import Done, Stamp
from prerank.store.together import Request, gather

__all__ = [
    "Done", "EmaCache", "History", "LmdbFile", "LmdbStore", "Memory", "MemoryStore", "Moment", "Outside", "RedisStore", "Request",
    "SpaceError", "Stamp", "Store", "StoreError", "averaged", "check_decay", "check_history", "check_width", "gather",
]  # fmt: skip
