"""A store in one file, for many processes of one machine: LMDB, crash-safe, readers never wait (extra `lmdb`).

    file = LmdbFile("memory.lmdb")
    users = file.store("cms of user", width=64, space="encoders 0f3a..")

A call of `blend` is one transaction: processes that blend at once wait for each other and lose nothing. 10^7 ids of K = 64
took 326 bytes an id on disk (16 + 4 K of them the value), so that 10^8 want 33 GB; reading 8,192 of them took 113 ms, blending 246.
Older states and how far a writer has come are written in the transaction that blends: what was killed has blended a call or has not.
Of 1,024 ids, with ticks of a minute of which 15 are kept and a batch every 5 s (`benchmarks/store_history.py`): blending took 8 ms (4
without history), reading 1.6, as of a time 3; an id that is blended all the time takes 17 states.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from prerank.store.claim import agreed, claim, ticks
from prerank.store.contract import Memory, StoreError, averaged, blended, check_decay, check_width
from prerank.store.history import History, check_history, ticked
from prerank.store.packed import chained, pack, unpack
from prerank.store.stamp import Done, Marker, Stamp


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
            self.writers = self.env.open_db(b"writers")
            self._inode = self.path.stat().st_ino
        except (self._lmdb.Error, OSError) as error:
            raise StoreError(f"store '{path}': cannot be opened: {error}") from None

    @property
    def there(self) -> bool:
        """Whether the file still lies where it was opened: one that was removed can be written for ever, and is lost with the process."""
        try:
            return self.path.stat().st_ino == self._inode
        except OSError:
            return False

    def store(self, name: str, width: int, space: str, history: History | None = None) -> LmdbStore:
        """The store of a name. Raises StoreError when what the file holds under it is of another width, space or history.

        space     what its ids and vectors mean: a fingerprint of vocabulary and model
        history   how far back it can be read; None: as whoever made it said
        """
        check_width(width)
        check_history(history)
        said, of_time = claim(width, space), ticks(history)
        with self.env.begin(db=self._meta, write=True) as transaction:
            held, kept = (transaction.get(key) for key in (name.encode(), f"{name}\0history".encode()))
            found = agreed(f"{self.path}', '{name}", said, held, history, kept)
            transaction.put(name.encode(), said)
            if of_time is not None:
                transaction.put(f"{name}\0history".encode(), of_time)
        return LmdbStore(self, name, width, found)

    def close(self) -> None:
        """Stores of it are of no use afterwards."""
        self.env.close()


class LmdbStore:
    """See the module's first lines; made by `LmdbFile.store`. Ids are any int64."""

    def __init__(self, file: LmdbFile, name: str, width: int, history: History | None) -> None:
        self.width, self.history, self.name = width, history, f"{file.path}, {name}"
        self._env, self._lmdb, self._file = file.env, file._lmdb, file  # which stays open as long as its stores are used
        self._db, self._writers = file.env.open_db(name.encode()), file.writers
        self._prefix = name.encode() + b"\0"

    def get(self, ids: Tensor, asof: int | None = None) -> Memory:
        """[n] -> what is held of them, or was known at a time, on the ids' device. Raises ValueError for a time without a history."""
        tick = ticked(self.history, asof)
        with self._env.begin(db=self._db, buffers=True) as transaction:
            values = [transaction.get(key) for key in _keys(ids)]  # views, which end with the transaction
            found = unpack(values, self.width, self.name, tick)
            del values
        return Memory(*(part.to(ids.device) for part in found))

    def put(self, ids: Tensor, memory: Memory) -> None:
        """As given. Raises StoreError when the file is full."""
        self._write(list(zip(_keys(ids), pack(memory), strict=True)))

    def blend(self, ids: Tensor, vectors: Tensor, decay: float | None, ts: Tensor, stamp: Stamp | None = None) -> None:
        """See store/contract.py. Raises StoreError when the file is full, ValueError for a decay outside (0, 1)."""
        check_decay(decay)
        if len(ids) == 0:
            return
        ids, vectors, ts = ids.cpu(), vectors.detach().float().cpu(), ts.cpu()
        try:
            with self._env.begin(db=self._db, write=True) as transaction:
                if stamp is not None:
                    marker = self._marker(transaction, stamp.writer)
                    fresh = marker.fresh(stamp.offsets.cpu(), ids)
                    ids, vectors, ts = ids[fresh], vectors[fresh], ts[fresh]
                    moved = marker.moved(int(stamp.offsets.max()))
                    transaction.put(self._prefix + stamp.writer.encode(), moved.pack(), db=self._writers)
                if len(ids):
                    self._blend(transaction, *averaged(ids, vectors, ts), decay, None if stamp is None else stamp.known)
        except self._lmdb.Error as error:
            raise StoreError(f"store '{self.name}': cannot be written: {error}") from None

    def done(self, writer: str) -> Done:
        """How far a writer has come. Raises StoreError when the file was removed."""
        if not self._file.there:
            raise StoreError(f"store '{self.name}': its file is not there any more")
        with self._env.begin() as transaction:
            return self._marker(transaction, writer).done

    def clear(self) -> None:
        """Forget everything."""
        with self._env.begin(write=True) as transaction:
            transaction.drop(self._db, delete=False)
            cursor = transaction.cursor(db=self._writers)
            while cursor.set_range(self._prefix) and cursor.key().startswith(self._prefix):
                cursor.delete()

    def __len__(self) -> int:
        with self._env.begin(db=self._db) as transaction:
            return int(transaction.stat(self._db)["entries"])

    def __repr__(self) -> str:
        return f"<LmdbStore {self.name}: {len(self):,} ids x {self.width}>"

    def _marker(self, transaction: Any, writer: str) -> Marker:
        return Marker.unpack(transaction.get(self._prefix + writer.encode(), db=self._writers))

    def _blend(self, transaction: Any, ids: Tensor, new: Memory, decay: float | None, known: int | None) -> None:
        keys = _keys(ids)
        held = [transaction.get(key) for key in keys]
        states = pack(blended(unpack(held, self.width, self.name), new, decay))
        tick = None if self.history is None or known is None else self.history.at(known)
        for key, value, state in zip(keys, held, states, strict=True):
            transaction.put(key, chained(value, state, tick, self.history))

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
