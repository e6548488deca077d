"""Generations and deltas from elsewhere: an object store (by fsspec) or Redis, brought into a local folder that `Live` follows.

    Mirror(open_source("s3://bucket/ctr"), Path("/var/cache/ctr")).pull()         on a server: what is new, then current.json
    push(Path("runs/shop/generations"), open_source("redis://store:6379/0?prefix=ctr"))     beside a trainer: the same, the other way

Both sides keep the layout of the folder. A name is copied whole under a temporary name and renamed; what says that it is whole (meta.json,
delta.json) goes up last; current.json comes after what it names.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

from prerank.serving.generation import CURRENT, TEMPORARY, WANTED
from prerank.serving.meta import GenerationError

WHOLE = ("meta.json", "delta.json")  # the file of a name that is written last


class Source(Protocol):
    """Where generations and deltas lie, by name."""

    def names(self) -> list[str]:
        """Of whole generations and deltas."""
        ...

    def files(self, name: str) -> list[str]:
        """Relative paths."""
        ...

    def read(self, path: str) -> bytes | None:
        """A file 'name/file', or one of the top; None: it is not there."""
        ...

    def write(self, name: str, folder: Path) -> None:
        """Put a generation or a delta there."""
        ...

    def put(self, path: str, content: bytes) -> None:
        """Replace a file of the top."""
        ...

    def remove(self, name: str) -> None: ...

    def ask(self, wanted: bytes) -> None:
        """Ask whoever publishes for a whole generation."""
        ...


class Mirror:
    """A local folder that follows a source."""

    def __init__(self, source: Source, folder: Path) -> None:
        self.source, self.folder = source, folder
        folder.mkdir(parents=True, exist_ok=True)

    def pull(self) -> None:
        """Copy what is new, then current.json. Raises GenerationError when the source cannot be reached."""
        try:
            self._pull()
        except GenerationError:
            raise
        except Exception as error:  # every object store has errors of its own
            raise GenerationError(f"source {self.source!r}: cannot be read: {(str(error) or repr(error)).splitlines()[0]}") from None

    def _pull(self) -> None:
        there = self.source.names()
        for name in there:
            if not (self.folder / name).exists():
                self._fetch(name)
        said = self.source.read(CURRENT)
        pointer = self.folder / CURRENT
        if said is not None and (not pointer.exists() or pointer.read_bytes() != said):
            temporary = self.folder / f".{CURRENT}.{os.getpid()}"
            temporary.write_bytes(said)
            temporary.replace(pointer)
        for old in self.folder.iterdir():
            if old.name.startswith(("gen-", "delta-")) and old.name not in there:
                shutil.rmtree(old, ignore_errors=True)

    def _fetch(self, name: str) -> None:
        temporary = self.folder / f"{TEMPORARY}{name}-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            for file in self.source.files(name):
                content = self.source.read(f"{name}/{file}")
                if content is None:
                    return  # it is being removed
                path = temporary / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            if any((temporary / last).is_file() for last in WHOLE):
                with suppress(OSError):  # another worker was first
                    temporary.rename(self.folder / name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def push(folder: Path, source: Source) -> None:
    """Put what a folder has and the source has not, then current.json; remove what the folder no longer keeps."""
    there = set(source.names())
    own = sorted(p.name for p in folder.iterdir() if p.name.startswith(("gen-", "delta-")) and any((p / w).is_file() for w in WHOLE))
    for name in sorted(own, key=lambda n: n.startswith("delta-")):
        if name not in there:
            source.write(name, folder / name)
    if (folder / CURRENT).exists():
        source.put(CURRENT, (folder / CURRENT).read_bytes())
    for old in there - set(own):
        source.remove(old)


class Files:
    """A folder of any fsspec file system.

    url   as fsspec has it: s3://bucket/ctr, gs://.., file:///..
    """

    def __init__(self, url: str) -> None:
        """Raises GenerationError when fsspec, or its part for this kind of url, is not installed."""
        try:
            import fsspec
        except ImportError:
            raise GenerationError(f"source '{url}': needs the package fsspec (pip install 'prerank[remote]')") from None
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise GenerationError(f"source '{url}': {str(error).splitlines()[0]}") from None
        self._url = url

    def names(self) -> list[str]:
        self._fs.invalidate_cache()
        if not self._fs.exists(self._root):
            return []
        found = [str(p).rstrip("/").rpartition("/")[2] for p in self._fs.ls(self._root, detail=False)]
        return [n for n in found if n.startswith(("gen-", "delta-")) and any(self._fs.exists(f"{self._root}/{n}/{w}") for w in WHOLE)]

    def files(self, name: str) -> list[str]:
        top = f"{self._root}/{name}"
        return [str(p)[str(p).index(f"/{name}/") + len(name) + 2 :] for p in self._fs.find(top)]

    def read(self, path: str) -> bytes | None:
        try:
            content: bytes = self._fs.cat_file(f"{self._root}/{path}")
        except FileNotFoundError:
            return None
        return content

    def write(self, name: str, folder: Path) -> None:
        files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
        for path in sorted(files, key=lambda p: p.name in WHOLE):
            self.put(f"{name}/{path.relative_to(folder)}", path.read_bytes())

    def put(self, path: str, content: bytes) -> None:
        target = f"{self._root}/{path}"
        self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(target, content)

    def remove(self, name: str) -> None:
        self._fs.rm(f"{self._root}/{name}", recursive=True)

    def ask(self, wanted: bytes) -> None:
        self.put(WANTED, wanted)

    def __repr__(self) -> str:
        return f"'{self._url}'"


class RedisSource:
    """Generations in Redis: one hash a name, {relative path: content}, which is there whole or not at all.

    url   redis://host:6379/0?prefix=ctr, or unix:///path?prefix=ctr
    """

    def __init__(self, url: str) -> None:
        """Raises GenerationError without the package redis."""
        try:
            import redis
        except ImportError:
            raise GenerationError(f"source '{url}': needs the package redis (pip install 'prerank[redis]')") from None
        where, _, query = url.partition("?")
        options = dict(parse_qsl(query))
        self._prefix = options.pop("prefix", "prerank")
        self._client: Any = redis.Redis.from_url(f"{where}?{urlencode(options)}" if options else where)
        self._where = f"{where.rpartition('@')[2].rpartition('//')[2]}, prefix {self._prefix}"  # without a password

    def names(self) -> list[str]:
        return sorted(n.decode() for n in self._client.smembers(self._key("names")))

    def files(self, name: str) -> list[str]:
        return [n.decode() for n in self._client.hkeys(self._key(name))]

    def read(self, path: str) -> bytes | None:
        name, _, file = path.partition("/")
        found: bytes | None = self._client.hget(self._key(name), file) if file else self._client.get(self._key(name))
        return found

    def write(self, name: str, folder: Path) -> None:
        content = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        with self._client.pipeline(transaction=True) as pipe:
            pipe.delete(self._key(name))
            pipe.hset(self._key(name), mapping=content)
            pipe.sadd(self._key("names"), name)
            pipe.execute()

    def put(self, path: str, content: bytes) -> None:
        self._client.set(self._key(path), content)

    def remove(self, name: str) -> None:
        with self._client.pipeline(transaction=True) as pipe:
            pipe.srem(self._key("names"), name)
            pipe.delete(self._key(name))
            pipe.execute()

    def ask(self, wanted: bytes) -> None:
        self.put(WANTED, wanted)

    def _key(self, name: str) -> str:
        return f"{self._prefix}:generations:{name}"

    def __repr__(self) -> str:
        return f"redis at {self._where}"


def open_source(url: str) -> Source:
    """redis://, rediss:// and unix:// are Redis; all others fsspec's. Raises GenerationError."""
    return RedisSource(url) if urlsplit(url).scheme in ("redis", "rediss", "unix") else Files(url)


def wanted(folder: str | Path) -> dict[str, Any] | None:
    """What a server asks for, or None: for whoever publishes into the folder."""
    try:
        found: dict[str, Any] = json.loads((Path(folder) / WANTED).read_text())
    except (OSError, ValueError):
        return None
    return found
