"""A store named by an address, opened when it is first needed: a model that is built, copied or described touches no server.

    Outside("lmdb:memory.lmdb", "cms of user", width=64, space="3f2a..")        lmdb:PATH, redis://host:port/db, unix://path
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor

from prerank.store.contract import Memory, Store, StoreError
from prerank.store.history import History, check_history
from prerank.store.lmdb import LmdbFile
from prerank.store.redis import RedisStore
from prerank.store.stamp import Done, Stamp

_FILES: WeakValueDictionary[Path, LmdbFile] = WeakValueDictionary()  # a process may open a file only once


class Outside:
    """See the module's first lines; one of the contract's stores.

    address   where it lies
    name      of the store there
    width     K
    space     what its ids and vectors mean; a store of another space is refused when it is opened
    history   how far back it can be read; None: as far as the store that is there

    timeout: seconds after which a server that does not answer counts as away, set before it is opened; None: the store's own
    """

    timeout: float | None = None

    def __init__(self, address: str, name: str, width: int, space: str, history: History | None = None) -> None:
        check_history(history)
        self.address, self.name, self.width, self.space, self.history = address, name, width, space, history
        self._store: Store | None = None

    def begin(self) -> None:
        """Open it, made where there is none. Raises StoreError."""
        self.opened(make=True)

    def get(self, ids: Tensor, asof: int | None = None) -> Memory:
        """[n] -> what is held of them, or was known at a time. Raises StoreError when it cannot be reached, is not there, or is of
        another space."""
        return self.opened().get(ids, asof)

    def put(self, ids: Tensor, memory: Memory) -> None:
        """As given. Raises StoreError."""
        self.opened(make=True).put(ids, memory)

    def blend(self, ids: Tensor, vectors: Tensor, decay: float | None, ts: Tensor, stamp: Stamp | None = None) -> None:
        """See store/contract.py. Raises StoreError."""
        self.opened(make=True).blend(ids, vectors, decay, ts, stamp)

    def done(self, writer: str) -> Done:
        """How far a writer has come. Raises StoreError."""
        return self.opened().done(writer)

    def clear(self) -> None:
        """Forget everything. Raises StoreError."""
        self.opened(make=True).clear()

    def __len__(self) -> int:
        return len(self.opened())

    def __deepcopy__(self, memo: dict[int, Any]) -> Outside:
        """A copied model reads the same store."""
        return self

    def __repr__(self) -> str:
        return f"<Outside {self.address}, {self.name} x {self.width}>"

    def opened(self, make: bool = False) -> Store:
        """The store itself. make: where there is none, it is made. Raises StoreError."""
        if self._store is None:
            if self.address.startswith("lmdb:"):
                file = _file(Path(self.address.removeprefix("lmdb:")), make)
                self._store = file.store(self.name, self.width, self.space, self.history)
            else:
                patience = {} if self.timeout is None else {"timeout": self.timeout}
                self._store = RedisStore(self.address, self.name, self.width, self.space, self.history, **patience)
        return self._store


def _file(path: Path, make: bool) -> LmdbFile:
    path = path.resolve()
    found = _FILES.get(path)
    if found is None or not found.there:
        if not make and not path.exists():
            raise StoreError(f"store '{path}': is not there")
        if found is not None:
            found.close()  # it was removed, and another lies in its place
        found = _FILES[path] = LmdbFile(path)
    return found
