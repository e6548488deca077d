"""A store in one file, for many processes of one machine: LMDB, crash-safe, readers never wait (extra `lmdb`).

    file = LmdbFile("memory.lmdb")
    users = file.store("cms of user", width=64, space="encoders 0f3a..")

A call of `blend` is one transaction: processes that blend at once wait for each other and lose nothing. 10^7 ids of K = 64
took 326 bytes an id on disk (16 + 4 K of them the value), so that 10^8 want 33 GB; reading 8,192 of them took 113 ms, blending 246.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from prerank.store.contract import Memory, SpaceError, StoreError, averaged, blended, check_decay, check_width
from prerank.store.packed import pack, unpack


class LmdbFile:
    """An open file of stores. A process opens a file once.

    path       the file; made when it is not there
    map_size   how large it may grow, in bytes; disk is taken as it is needed
    sync       a write that returned survives a power cut; without, it survives the process's own crash only, and is quicker
    """

    def __init__(self, path: str | Path, map_size: int = 1 << 36, sync: bool = True) -> None:
        """Raises StoreError when it cannot be opened."""
        self.path = Path(path)
        self._lmdb = _lmdb()
        try:
            self.env: Any = self._lmdb.open(os.fspath(path), map_size=map_size, subdir=False, max_dbs=64, sync=sync, metasync=sync)
            self._meta = self.env.open_db(b"spaces")
        except (self._lmdb.Error, OSError) as error:
            raise StoreError(f"store '{path}': cannot be opened: {error}") from None

    def store(self, name: str, width: int, space: str) -> LmdbStore:
        """The store of a name. Raises StoreError when what the file holds under it is of another width or space.

        space   what its ids and vectors mean: a fingerprint of vocabulary and model
        """
        check_width(width)
        claim = f"{width} {space}".encode()
        with self.env.begin(write=True) as transaction:
            held = transaction.get(name.encode(), db=self._meta)
            if held is None:
                transaction.put(name.encode(), claim, db=self._meta)
        if held not in (None, claim):
            raise SpaceError(f"store '{self.path}', '{name}': must be of width and space '{claim.decode()}'; it holds '{held.decode()}'")
        return LmdbStore(self, name, width)

    def close(self) -> None:
        """Stores of it are of no use afterwards."""
        self.env.close()


class LmdbStore:
    """See the module's first lines; made by `LmdbFile.store`. Ids are any int64."""

    def __init__(self, file: LmdbFile, name: str, width: int) -> None:
        self.width, self.name = width, f"{file.path}, {name}"
        self._env, self._lmdb, self._file = file.env, file._lmdb, file  # which stays open as long as its stores are used
        self._db = file.env.open_db(name.encode())

    def get(self, ids: Tensor) -> Memory:
        """[n] -> what is held of them, on the ids' device."""
        with self._env.begin(db=self._db) as transaction:
            values = [transaction.get(key) for key in _keys(ids)]
        return Memory(*(part.to(ids.device) for part in unpack(values, self.width, self.name)))

    def put(self, ids: Tensor, memory: Memory) -> None:
        """As given. Raises StoreError when the file is full."""
        self._write(list(zip(_keys(ids), pack(memory), strict=True)))

    def blend(self, ids: Tensor, vectors: Tensor, decay: float | None, ts: Tensor) -> None:
        """See store/contract.py. Raises StoreError when the file is full, ValueError for a decay outside (0, 1)."""
        check_decay(decay)
        if len(ids) == 0:
            return
        distinct, new = averaged(ids.cpu(), vectors.detach().float().cpu(), ts.cpu())
        keys = _keys(distinct)
        try:
            with self._env.begin(db=self._db, write=True) as transaction:
                old = unpack([transaction.get(key) for key in keys], self.width, self.name)
                for key, value in zip(keys, pack(blended(old, new, decay)), strict=True):
                    transaction.put(key, value)
        except self._lmdb.Error as error:
            raise StoreError(f"store '{self.name}': cannot be written: {error}") from None

    def clear(self) -> None:
        """Forget everything."""
        with self._env.begin(write=True) as transaction:
            transaction.drop(self._db, delete=False)

    def __len__(self) -> int:
        with self._env.begin(db=self._db) as transaction:
            return int(transaction.stat(self._db)["entries"])

    def __repr__(self) -> str:
        return f"<LmdbStore {self.name}: {len(self):,} ids x {self.width}>"

    def _write(self, items: list[tuple[bytes, bytes]]) -> None:
        try:
            with self._env.begin(db=self._db, write=True) as transaction:
                transaction.cursor().putmulti(items)
        except self._lmdb.Error as error:
            raise StoreError(f"store '{self.name}': cannot be written: {error}") from None


def _keys(ids: Tensor) -> list[bytes]:
    """Big-endian, so that neighbouring ids lie beside each other."""
    return [struct.pack(">q", one) for one in ids.tolist()]


def _lmdb() -> ModuleType:
    try:
        import lmdb
    except ImportError:
        raise StoreError("store: LMDB is not installed; pip install 'prerank[lmdb]'") from None
    found: ModuleType = lmdb
    return found
