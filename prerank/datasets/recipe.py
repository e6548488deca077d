"""A recipe: what the house knows about one public data set, and the walk every recipe takes.

A recipe says where the official files come from, how they become three clean Parquet tables, and which
settings suit them. It never lists columns twice: `tables` makes them, `defaults` names them.

    found = recipe.locate(options)                  folder of official files, or None
    folder = recipe.convert(found, cache, options)  log.parquet, users.parquet, items.parquet, recipe.json
    settings = recipe.defaults(options)             fields of config.Data, as plain values
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prerank.config import ConfigError, nearest
from prerank.data.errors import DataError

NOTES = "recipe.json"  # beside the tables: what was read, what was dropped, how many rows
Frames = pl.DataFrame | Iterator[pl.DataFrame]  # a table whole, or as a stream of its parts when memory may not hold it
Tables = Iterable[tuple[str, Frames]]


class Options(BaseModel):
    """Options that every recipe takes; a recipe with more of them derives from it."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    source: str | None = Field(None, alias="from", description="folder with the official files")


@dataclass(frozen=True)
class Recipe:
    """One data set.

    folders     where the files lie inside a data folder, in order of preference; the first is the house's own name for it
    files       official files that must be there; `optional` are read or refused when they are
    tables      (official folder, options) -> (table name, frame or stream of frames) pairs and, last, what is worth noting as
                ("notes", frame of one row); a stream is written to its end before the next pair is asked for
    obtain      without a url: where the official files come from, as the end of "get ..."
    refused     column -> why no feature may read it
    version     raised whenever `tables` would give something else for the same files
    """

    name: str
    title: str
    licence: str
    citation: str
    rows: str
    folders: tuple[str, ...]
    files: tuple[str, ...]
    tables: Callable[[Path, Any], Tables]
    settings: Callable[[Any], dict[str, Any]]
    url: str | None = None
    md5: str | None = None
    obtain: str | None = None
    optional: tuple[str, ...] = ()
    options: type[Options] = Options
    refused: Mapping[str, str] = field(default_factory=dict)
    version: int = 1

    def parse(self, options: Mapping[str, Any]) -> Options:
        """Plain options -> checked ones. Raises ConfigError naming each wrong one."""
        try:
            return self.options.model_validate(dict(options))
        except ValidationError as error:
            valid = {f.alias or n for n, f in self.options.model_fields.items()}
            raise ConfigError("\n".join(_sentence(self.name, e, valid) for e in error.errors())) from None

    def defaults(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of `config.Data` that the recipe fills in."""
        return self.settings(self.parse(options))

    def locate(self, options: Mapping[str, Any]) -> Path | None:
        """Folder that holds all official files: option `from`, else $PRERANK_DATA, else what `prerank data get` fetched; None when nowhere.

        Raises ConfigError when `from` is given and a file is not in it.
        """
        source = self.parse(options).source
        if source is not None:
            base = Path(source).expanduser()
            found = self.within(base)
            if found is None:
                missing = ", ".join(f for f in self.files if not (base / f).is_file())
                raise ConfigError(f"recipe '{self.name}': option from: '{source}' must hold the official files; missing: {missing}")
            return found
        if not self.files:
            return Path(self.name)
        bases = [Path(os.environ["PRERANK_DATA"]).expanduser()] if os.environ.get("PRERANK_DATA") else []
        return next((f for base in [*bases, cache_folder() / "raw"] if (f := self.within(base)) is not None), None)

    def within(self, base: Path) -> Path | None:
        """The folder in or below `base` that holds all official files, or None."""
        for inner in (*self.folders, self.name, "."):
            if all((base / inner / f).is_file() for f in self.files):
                return base / inner
        return None

    def require(self, options: Mapping[str, Any]) -> Path:
        """`locate`, or ConfigError with the ways to get the data."""
        found = self.locate(options)
        if found is None:
            raise ConfigError(f"recipe '{self.name}': {', '.join(self.files)} not found; {self.ways}")
        return found

    @property
    def ways(self) -> str:
        """The ways to get the official files, in one line."""
        get = f"`prerank data get {self.name}"
        fetch = f"run {get}`, or copy them with {get} --from DIR`" if self.url else f"get {self.obtain}, then {get} --from DIR`"
        return f"{fetch}, or set PRERANK_DATA to a folder that holds {self.folders[0]}/"

    def fingerprint(self, raw: Path, options: Mapping[str, Any]) -> str:
        """16 hex digits of the official files' sizes and times, the options and the recipe's version."""
        said = self.parse(options).model_dump(mode="json", exclude={"source"})
        stats = [(f, s.st_size, s.st_mtime_ns) for f in (*self.files, *self.optional) if (s := _stat(raw / f)) is not None]
        text = json.dumps([self.name, self.version, said, stats], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def convert(self, raw: Path, out: Path, options: Mapping[str, Any]) -> Path:
        """Official files -> a folder of Parquet tables below `out`; a folder that is there already is not made again.

        Raises DataError for files that are not what the recipe's page says they are.
        """
        final = out / f"{self.name}-{self.fingerprint(raw, options)}"
        if final.is_dir():
            return final
        try:
            out.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=out))
        except OSError as error:
            raise DataError(f"cache folder '{out}': cannot be written: {error.strerror}") from None
        try:
            self._write(raw, temporary, options)
            os.chmod(temporary, 0o755)
            _rename(temporary, final)
        except OSError as error:
            raise DataError(f"recipe '{self.name}': cannot be converted into '{out}': {error.strerror or error}") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return final

    def _write(self, raw: Path, folder: Path, options: Mapping[str, Any]) -> None:
        parsed = self.parse(options)
        notes: dict[str, Any] = {"recipe": self.name, "options": parsed.model_dump(mode="json", exclude={"source"}), "rows": {}}
        for table, frames in self.tables(raw, parsed):
            if table == "notes":
                assert isinstance(frames, pl.DataFrame)
                notes |= frames.row(0, named=True)
                continue
            notes["rows"][table] = _store(folder / f"{table}.parquet", frames)
        (folder / NOTES).write_text(json.dumps(notes, indent=2) + "\n")


def cache_folder() -> Path:
    """$PRERANK_CACHE, else ~/.cache/prerank."""
    return Path(os.environ.get("PRERANK_CACHE") or "~/.cache/prerank").expanduser()


def notes(folder: Path) -> dict[str, Any]:
    """What `convert` wrote down beside the tables: recipe, options, rows of each table, rows dropped."""
    return dict(json.loads((folder / NOTES).read_text()))


def _store(path: Path, frames: Frames) -> int:
    """Write a table, part by part when it comes as a stream; its rows. Raises DataError when a stream holds none."""
    if isinstance(frames, pl.DataFrame):
        frames.write_parquet(path)
        return frames.height
    rows, writer = 0, None
    try:
        for frame in frames:
            part = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            writer = writer or pq.ParquetWriter(path, part.schema, compression="zstd")
            writer.write_table(part)
            rows += frame.height
    finally:
        if writer is not None:
            writer.close()
    if not rows:
        raise DataError(f"table '{path.stem}': no row of the official files is kept")
    return rows


def _stat(path: Path) -> os.stat_result | None:
    return path.stat() if path.is_file() else None


def _rename(temporary: Path, final: Path) -> None:
    """Another process may have been first with the same content: then its folder stays."""
    try:
        temporary.rename(final)
    except OSError:
        if not final.is_dir():
            raise


def _sentence(recipe: str, error: Any, valid: set[str]) -> str:
    name = ".".join(str(p) for p in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"recipe '{recipe}': unknown option '{name}'{nearest(name, valid)}"
    message = error["msg"].removeprefix("Value error, ")
    got = "" if error["type"] == "value_error" else f"; got {error['input']!r}"
    return f"recipe '{recipe}': {'option ' + name + ': ' if name else ''}{message}{got}"
