"""Vectors by id that change while others read them: what the caches of CTS and CMS lie in. Knows ids and vectors, nothing else."""

from prerank.store.contract import Memory, SpaceError, Store, StoreError, averaged, check_decay, check_width
from prerank.store.ema import EmaCache
from prerank.store.lmdb import LmdbFile, LmdbStore
from prerank.store.memory import MemoryStore
from prerank.store.outside import Outside
from prerank.store.redis import RedisStore

__all__ = [
    "EmaCache", "LmdbFile", "LmdbStore", "Memory", "MemoryStore", "Outside", "RedisStore", "SpaceError", "Store", "StoreError", "averaged",
    "check_decay", "check_width",
]  # fmt: skip
