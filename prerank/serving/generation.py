"""A generation: everything that answers a request, in one immutable, numbered folder.

    generations/
      current.json            {"generation": "gen-000003"}: which one is in force, replaced atomically
      gen-000003/
        meta.json             number, schema, model, sizes, head groups, calibrators, and every file's length and checksum
        weights.safetensors   of the whole model
        items.npy             [N, padded] item rows (index/rows.py), item_bias.npy [N, T], item_scales.npy [N] (int8)
        items/FEATURE.npy     of a ranker instead: one column an item-side feature, which it reads with the user's
        item_ids.parquet      raw ids of the rows, column `id`;  user_ids.parquet likewise
        users/FEATURE.npy     one column a user-side feature, so that a request may name a user by id alone
        user_vectors.npy      [users, sum Hu K] and user_bias.npy [users, T], where export was asked for them
        encoders/             raw values -> rows, the very objects that encoded the training log

A folder is written under a temporary name and renamed whole, so a half-written one is never seen. Nothing is pickled.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from prerank.data.columns import file_of, open_column
from prerank.data.encoder import Encoder
from prerank.data.encoder import load as load_encoders
from prerank.data.errors import DataError, writing
from prerank.index import IdError, Ids, ItemMatrix
from prerank.schema import Schema
from prerank.serving import calibration
from prerank.serving.calibration import CalibrationError, Calibrator
from prerank.serving.catalogue import Catalogue
from prerank.serving.meta import GenerationError, Meta, read

PREFIX, CURRENT, TEMPORARY = "gen-", "current.json", ".tmp-"
WANTED = "wanted.json"  # a server that cannot go on by deltas asks for a whole generation by it
T = TypeVar("T")


class Generation:
    """One generation, opened; arrays are memory-mapped.

    meta, schema
    identity     16 hex digits that tell it from any other of its number
    weights      {name: tensor} of the whole model
    sequence     deltas that were applied to it (change.py, delta.py); 0: as it lies in the folder
    posts        changes by POST and DELETE that were applied, counted from the folder's first (posts.py)
    items        ItemMatrix [N], which answers by itself where meta.scoring is maxsim; a ranker has one of no width
    columns      {feature: column [N, ...]} of items, a ranker's; else {}
    item_ids, user_ids   raw id -> row
    users        {feature: column [users, ...]}
    user_vectors, user_bias   [users, sum Hu K], [users, T], or None
    encoders     {feature: Encoder}
    calibrators  {objective: Calibrator}
    """

    sequence = posts = 0

    def __init__(self, folder: str | Path) -> None:
        """Raises GenerationError when anything is missing, cut short, or does not fit together."""
        self.folder = Path(folder)
        self.meta = read(self.folder)
        _check_files(self.folder, self.meta)
        try:
            self.identity = identity(self.folder)
            self.schema = Schema.model_validate(self.meta.schema)
            if self.schema.fingerprint() != self.meta.fingerprint:
                raise GenerationError(
                    f"generation '{self.folder}': schema fingerprint must be {self.meta.fingerprint}, it is {self.schema.fingerprint()}: "
                    "written by another version, export it again"
                )
            self.weights: dict[str, torch.Tensor] = load_file(self.folder / "weights.safetensors")
            self.items = self._items()
            self.columns = {f.name: self._column("items", f.name) for f in self.schema.on("item")} if self.meta.ranker else {}
            self.item_ids: Ids | Catalogue = Ids(self._ids("item_ids"))
            self.user_ids: Ids | Catalogue = Ids(self._ids("user_ids"))
            self.users = {f.name: self._column("users", f.name) for f in self.schema.on("user") if f.side == "user"}
            self.user_vectors = self._array("user_vectors") if self.meta.user_vectors else None
            self.user_bias = self._array("user_bias") if self.meta.user_vectors else None
            self.encoders: dict[str, Encoder] = load_encoders(self.folder / "encoders")
            self.calibrators: dict[str, Calibrator] = {t: calibration.load(c) for t, c in self.meta.calibrators.items()}
        except (OSError, EOFError, SafetensorError, pl.exceptions.PolarsError, DataError, IdError, CalibrationError) as error:
            raise GenerationError(f"generation '{self.folder}': {str(error).splitlines()[0]}") from None
        except ValueError as error:
            if isinstance(error, GenerationError):
                raise
            raise GenerationError(f"generation '{self.folder}': {str(error).splitlines()[0]}") from None
        self._check_rows()

    def _items(self) -> ItemMatrix:
        if self.meta.ranker:
            return ItemMatrix.of(np.zeros((self.meta.items, 0)), np.zeros((self.meta.items, len(self.meta.objectives))), ())
        scales = self._array("item_scales") if self.meta.dtype == "int8" else None
        return ItemMatrix(self._array("items"), self._array("item_bias"), self.meta.groups, dtype=self.meta.dtype, scales=scales)

    def _column(self, side: str, feature: str) -> NDArray[Any]:
        return open_column(self.folder / side / file_of(feature))

    def _array(self, name: str) -> NDArray[Any]:
        return np.asarray(np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))

    def _ids(self, name: str) -> NDArray[np.int64] | list[str]:
        ids = pl.read_parquet(self.folder / f"{name}.parquet")["id"]
        return ids.to_numpy() if ids.dtype == pl.Int64 else ids.to_list()

    def _check_rows(self) -> None:
        for what, expected, found in (
            ("item rows", self.meta.items, len(self.items)),
            ("item ids", self.meta.items, len(self.item_ids)),
            ("user ids", self.meta.users, len(self.user_ids)),
            *((f"users' {name}", self.meta.users, len(column)) for name, column in self.users.items()),
            *((f"items' {name}", self.meta.items, len(column)) for name, column in self.columns.items()),
        ):
            if expected != found:
                raise GenerationError(f"generation '{self.folder}': {what} must be {expected}, there are {found}")
        shape = (self.meta.users, self.items.user_width)
        if self.user_vectors is not None and (self.user_vectors.shape, self.user_vectors.dtype) != (shape, np.float32):
            found_as = f"{self.user_vectors.dtype} {list(self.user_vectors.shape)}"
            raise GenerationError(f"generation '{self.folder}': user vectors must be float32 {list(shape)}, they are {found_as}")
        lacking = [f.name for f in self.schema.on("user") if f.name not in self.encoders]
        if lacking:
            raise GenerationError(f"generation '{self.folder}': feature '{lacking[0]}' must have an encoder, it has none")

    def __repr__(self) -> str:
        return f"<Generation {self.meta.number} '{self.meta.name}': {self.meta.items} items, {self.meta.users} users, {self.meta.dtype}>"


def identity(folder: Path) -> str:
    """16 hex digits of a generation's meta.json, which has every file's checksum."""
    return hashlib.sha256((folder / "meta.json").read_bytes()).hexdigest()[:16]


def current(folder: str | Path) -> Path:
    """Path of the generation in force. Raises GenerationError when there is none."""
    folder = Path(folder)
    pointer = folder / CURRENT
    try:
        named = json.loads(pointer.read_text())["generation"]
    except FileNotFoundError:
        raise GenerationError(f"generation folder '{folder}': holds no {CURRENT}; `prerank export` writes one") from None
    except (OSError, ValueError) as error:
        raise GenerationError(f"generation folder '{folder}': {CURRENT} cannot be read: {error}") from None
    except (KeyError, TypeError):
        named = None
    if not isinstance(named, str):
        raise GenerationError(f"generation folder '{folder}': {CURRENT} must name a generation: {{\"generation\": \"gen-000001\"}}")
    if not (folder / named / "meta.json").is_file():
        raise GenerationError(f"generation folder '{folder}': {CURRENT} names '{named}', which is not there")
    return folder / named


def open_current(folder: str | Path) -> Generation:
    """The generation in force; a folder that is itself a generation is opened as it is. Raises GenerationError.

    One that is swept away while it is being opened (as many newer ones were published meanwhile as are kept) is left for the one that
    is in force then.
    """
    folder = Path(folder)
    if (folder / "meta.json").is_file():
        return Generation(folder)
    while True:
        named = current(folder)
        try:
            return Generation(named)
        except GenerationError:
            if current(folder) == named:
                raise


def write(folder: str | Path, fill: Callable[[Path], Meta], *, keep: int = 3) -> Path:
    """Publish a new generation: `fill(path)` writes all files but meta.json and describes them. Returns its folder.

    The number is the last one plus 1. Two exports at once take turns. When `fill` fails, or the process is killed,
    nothing is seen of it, and the next write clears what it left. The newest `keep` generations stay, with their deltas.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        for left in folder.glob(f"{TEMPORARY}*"):
            shutil.rmtree(left, ignore_errors=True)
        number = max((int(p.name[len(PREFIX) :]) for p in generations(folder)), default=0) + 1
        final = folder / f"{PREFIX}{number:06d}"

        def described(meta: Meta, sizes: dict[str, int], checksums: dict[str, int]) -> bytes:
            meta.number, meta.created, meta.files, meta.checksums = number, time.time(), sizes, checksums
            return msgspec.json.format(msgspec.json.encode(meta), indent=1)

        seal(final, fill, "meta.json", described)
        point(folder, final.name)
        (folder / WANTED).unlink(missing_ok=True)
        for old in generations(folder)[:-keep]:
            for gone in (old, *folder.glob(f"delta-{old.name[len(PREFIX) :]}-*")):
                shutil.rmtree(gone, ignore_errors=True)
    return final


def seal(final: Path, fill: Callable[[Path], T], name: str, described: Callable[[T, dict[str, int], dict[str, int]], bytes]) -> None:
    """A folder that appears whole, or not at all: filled under a temporary name, described, synced, renamed.

    name        of the file that is written last: `described` of what `fill` returned, every file's length, and its checksum
    """
    folder = final.parent
    temporary = folder / f"{TEMPORARY}{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        with writing(folder):
            said = fill(temporary)
            written = {str(p.relative_to(temporary)): p for p in sorted(temporary.rglob("*")) if p.is_file()}
            sizes = {n: p.stat().st_size for n, p in written.items()}
            checksums = {n: checksum(p) for n, p in written.items()}
            (temporary / name).write_bytes(described(said, sizes, checksums))
            for path in temporary.rglob("*"):
                sync(path)
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(folder)


def generations(folder: str | Path) -> list[Path]:
    """Whole generations of a folder, oldest first."""
    found = [p for p in Path(folder).glob(f"{PREFIX}*") if p.name[len(PREFIX) :].isdigit() and (p / "meta.json").is_file()]
    return sorted(found, key=lambda p: int(p.name[len(PREFIX) :]))


def point(folder: Path, name: str, **more: Any) -> None:
    """Put a generation in force, in one step; `more` is written beside its name."""
    temporary = folder / f".{CURRENT}.{os.getpid()}"
    with writing(folder):
        temporary.write_text(json.dumps({"generation": name, **more}) + "\n")
        sync(temporary)
        os.replace(temporary, folder / CURRENT)
    sync(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Those who write into a folder of generations take turns."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sync(path: Path) -> None:
    """To the disk: a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_files(folder: Path, meta: Meta) -> None:
    """Every file is there as it was written: a flipped bit in a row of items would be served as a score."""
    for name, size in meta.files.items():
        try:
            found = (folder / name).stat().st_size
        except OSError:
            raise GenerationError(f"generation '{folder}': file '{name}' is missing") from None
        if found != size:
            raise GenerationError(f"generation '{folder}': file '{name}' must have {size} bytes, it has {found}")
        if checksum(folder / name) != meta.checksums.get(name):
            raise GenerationError(f"generation '{folder}': file '{name}' is not as it was written, its checksum differs; export it again")


def checksum(path: Path) -> int:
    """CRC-32 of a file, in bounded memory; about 1 GB/s."""
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found = zlib.crc32(chunk, found)
    return found
