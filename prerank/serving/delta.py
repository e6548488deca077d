"""A delta: what a small folder beside the generations adds to one of them.

    generations/
      gen-000012/
      delta-000012-000003/      the third delta of generation 12; it applies to gen-000012 with deltas 1 and 2, and to nothing else
        delta.json              base, its identity, sequence number, and every file's length and checksum
        tensors.safetensors     dense/WEIGHT whole;  rows/WEIGHT and values/WEIGHT touched rows;  items/.. and users/.. vectors and columns
        items.parquet           ids of the items whose vectors are among the tensors; users.parquet likewise; removed.parquet
        vocabularies/NAME.parquet    value, row: what a growing vocabulary gained; rows without a value are released

Written under a temporary name, synced, renamed whole, like a generation. `live.scorer_at` gives the state (generation, sequence) again, bit
for bit: answers carry both numbers. Vectors of items that a delta does not name stay as they were last encoded, though weights moved on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import msgspec
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from prerank.serving.change import Changes, Entities, Grown, IdsGiven
from prerank.serving.generation import Generation, checksum, generations, identity, locked, seal
from prerank.serving.meta import GenerationError

PREFIX, FORMAT = "delta-", 1


class Described(msgspec.Struct, kw_only=True):
    """delta.json."""

    base: int
    base_identity: str
    sequence: int
    created: float
    files: dict[str, int]
    checksums: dict[str, int]
    format: int = FORMAT


def name_of(base: int, sequence: int) -> str:
    return f"{PREFIX}{base:06d}-{sequence:06d}"


def deltas(folder: Path, base: int) -> dict[int, Path]:
    """{sequence: folder} of the whole deltas of a generation, ascending."""
    found = {}
    for path in folder.glob(f"{PREFIX}{base:06d}-*"):
        number = path.name.rpartition("-")[2]
        if number.isdigit() and (path / "delta.json").is_file():
            found[int(number)] = path
    return dict(sorted(found.items()))


def write_delta(folder: str | Path, changes: Changes, *, base: int | None = None, sequence: int | None = None) -> Path:
    """Publish changes to a generation, the newest if none is named. Returns the delta's folder.

    sequence   default: the next one. Raises GenerationError when there is no such generation, or the number is not the next.
    """
    folder = Path(folder)
    with locked(folder):
        there = {int(p.name.rpartition("-")[2]): p for p in generations(folder)}
        if not there or (base is not None and base not in there):
            raise GenerationError(f"generation folder '{folder}': a delta needs its base; generation {base or 1} is not there")
        base = max(there) if base is None else base
        expected = max(deltas(folder, base), default=0) + 1
        if sequence is not None and sequence != expected:
            raise GenerationError(f"generation folder '{folder}': the next delta of generation {base} is {expected}; got {sequence}")
        final = folder / name_of(base, expected)

        def described(_: None, sizes: dict[str, int], checksums: dict[str, int]) -> bytes:
            return msgspec.json.encode(Described(base=base, base_identity=identity(there[base]), sequence=expected, created=time.time(),
                                                 files=sizes, checksums=checksums))  # fmt: skip

        seal(final, lambda path: _fill(path, changes), "delta.json", described)
    return final


def read_delta(path: Path, base: Generation, sequence: int) -> Changes:
    """What a delta changes. Raises GenerationError when it is not whole, or not the delta `sequence` of that very generation."""
    where = f"delta '{path.name}'"
    try:
        said = msgspec.json.decode((path / "delta.json").read_bytes(), type=Described)
        if said.format > FORMAT:
            raise GenerationError(f"{where}: its format must be at most {FORMAT}, it is {said.format}: written by a newer version")
        if (said.base, said.sequence) != (base.meta.number, sequence) or said.base_identity != base.identity:
            raise GenerationError(f"{where}: must be delta {sequence} of generation {base.meta.number} ({base.identity}), it is "
                                  f"delta {said.sequence} of {said.base} ({said.base_identity})")  # fmt: skip
        for name, size in said.files.items():
            found = (path / name).stat().st_size
            if found != size:
                raise GenerationError(f"{where}: file '{name}' must have {size} bytes, it has {found}")
            if checksum(path / name) != said.checksums.get(name):
                raise GenerationError(f"{where}: file '{name}' is not as it was written, its checksum differs")
        return _open(path)
    except (OSError, KeyError, msgspec.MsgspecError, SafetensorError, pl.exceptions.PolarsError) as error:
        raise GenerationError(f"{where}: cannot be read: {str(error).splitlines()[0]}") from None


def _fill(folder: Path, changes: Changes) -> None:
    tensors = dict(_tensors(changes))
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, folder / "tensors.safetensors")
    for kind, given in (("items", changes.items), ("users", changes.users), ("removed", Entities(changes.removed))):
        if given is not None and len(given.ids):
            pl.DataFrame({"id": pl.Series(given.ids)}).write_parquet(folder / f"{kind}.parquet")
    (folder / "vocabularies").mkdir()
    for name, grown in changes.vocabularies.items():
        values = grown.values.extend_constant(None, len(grown.released))
        rows = np.concatenate([grown.rows, grown.released]).astype(np.int32)
        pl.DataFrame({"value": values, "row": rows}).write_parquet(folder / "vocabularies" / f"{quote(name, safe='')}.parquet")


def _tensors(changes: Changes) -> Iterator[tuple[str, Tensor]]:
    for name, whole in changes.dense.items():
        yield f"dense/{name}", whole
    for name, (rows, values) in changes.rows.items():
        yield f"rows/{name}", rows.long()
        yield f"values/{name}", values
    for kind, given in (("items", changes.items), ("users", changes.users)):
        if given is not None:
            for feature, column in given.columns.items():
                yield f"{kind}/column/{feature}", torch.from_numpy(np.ascontiguousarray(column))
            for part, array in (("flat", given.flat), ("bias", given.bias)):
                if array is not None:
                    yield f"{kind}/{part}", torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _open(path: Path) -> Changes:
    tensors: Mapping[str, Tensor] = load_file(path / "tensors.safetensors")

    def below(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    def ids(kind: str) -> IdsGiven | None:
        file = path / f"{kind}.parquet"
        if not file.exists():
            return None
        found = pl.read_parquet(file)["id"]
        return found.to_list() if found.dtype == pl.String else found.to_numpy()

    def entities(kind: str) -> Entities | None:
        known = ids(kind)
        if known is None:
            return None
        columns: dict[str, NDArray[Any]] = {k: v.numpy() for k, v in below(f"{kind}/column/").items()}
        flat, bias = (None if (t := tensors.get(f"{kind}/{part}")) is None else t.numpy() for part in ("flat", "bias"))
        return Entities(known, columns, flat, bias)

    rows = below("rows/")
    grown = {}
    for file in sorted((path / "vocabularies").glob("*.parquet")):
        table = pl.read_parquet(file)
        came, gone = (table.filter(pl.col("value").is_not_null() == there) for there in (True, False))
        grown[unquote(file.stem)] = Grown(came["value"], came["row"].to_numpy(), gone["row"].to_numpy())
    removed = ids("removed")
    return Changes(below("dense/"), {name: (r, tensors[f"values/{name}"]) for name, r in rows.items()}, grown, entities("items"),
                   entities("users"), () if removed is None else removed)  # fmt: skip
