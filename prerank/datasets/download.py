"""Fetch a data set's official archive, or copy its official files: resumable, checked, and never half there under the final name.

    get(recipe, source=None, destination=folder, progress=bar)

The archive grows beside the destination as `.NAME.part`, with the server's version mark in `.NAME.part.mark`; an interrupted download
goes on from there (HTTP Range, If-Range), unless the server's file has changed. Only the recipe's own files are taken out of it.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from prerank.config import ConfigError
from prerank.data.errors import DataError
from prerank.datasets.recipe import Recipe

Progress = Callable[[int, int | None], None]
CHUNK = 1 << 18
TIMEOUT = 30.0  # seconds without a byte
KEPT_BESIDE = ("README", "README.txt", "README.md", "LICENSE")


def get(recipe: Recipe, *, source: Path | None = None, destination: Path, progress: Progress | None = None) -> Path:
    """The official files in `destination`, from `source` (a folder) or the official archive. Returns the destination.

    Files that are there already, all of them, are left alone. `progress` hears (bytes so far, bytes in all or None).
    Raises ConfigError when the recipe has nothing to fetch or `source` lacks a file, DataError for everything the world does wrong.
    """
    if not recipe.files:
        raise ConfigError(f"recipe '{recipe.name}': is generated, there is nothing to get")
    if all((destination / f).is_file() for f in recipe.files):
        return destination
    if recipe.url is None and source is None:
        raise ConfigError(f"recipe '{recipe.name}': its official files cannot be fetched from here; {recipe.ways}")
    with _problems(recipe, destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        if source is not None:
            with _staged(destination) as stage:
                _copy(recipe, recipe.require({"from": str(source)}), stage, progress)
            return destination
        assert recipe.url is not None
        part = destination.parent / f".{destination.name}.part"
        fetch(recipe.url, part, progress)
        with _staged(destination) as stage:
            _verify(recipe, part)
            _extract(recipe, part, stage)
        _forget(part)
    return destination


def fetch(url: str, part: Path, progress: Progress | None = None) -> None:
    """Download `url` into `part`, going on from what is there and again when the connection is cut, as long as each try brings something.

    Raises DataError; what was received stays for the next time.
    """
    while True:
        before, reason = _size(part), "the connection was cut"
        try:
            if _fetch_once(url, part, progress):
                return
        except urllib.error.HTTPError as error:
            raise DataError(f"'{url}': the server answered {error.code} {error.reason}") from None
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = _reason(error)
        if _size(part) <= before:
            kept = f"; {before:,} bytes are kept, run it again to go on" if before else ""
            raise DataError(f"'{url}': {reason}{kept}")


def _fetch_once(url: str, part: Path, progress: Progress | None) -> bool:
    """One connection; True when the archive is whole."""
    mark_file = part.with_name(part.name + ".mark")
    have, mark = _size(part), mark_file.read_text() if mark_file.is_file() else ""
    headers = {"User-Agent": "prerank", "Accept-Encoding": "identity"}
    if have and mark:
        headers |= {"Range": f"bytes={have}-", "If-Range": mark}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{have}":
            return True
        if error.code == 416:  # more is here than there: not the same file
            _forget(part)
            return _fetch_once(url, part, progress)
        raise
    with answer:
        if "html" in answer.headers.get("Content-Type", ""):
            raise DataError(f"'{url}': the server answered with a web page, not an archive")
        start, total = _extent(answer, have)
        _room(part, total - start if total is not None else 0)
        mark_file.write_text(_mark(answer))
        with part.open("r+b" if start else "wb") as out:
            out.seek(start)
            done = start
            while block := answer.read(CHUNK):
                out.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, total)
    return total is None or done == total


def _extent(answer: Any, have: int) -> tuple[int, int | None]:
    """First byte of an answer within the file, and the file's size (None when the server does not say)."""
    length = answer.headers.get("Content-Length")
    if answer.status != 206:
        return 0, int(length) if length is not None else None
    unit, _, rest = answer.headers.get("Content-Range", "").partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or first != str(have):
        raise DataError(f"'{answer.url}': asked for bytes from {have}, the server sent '{rest}'")
    return have, int(total) if total.isdigit() else None


def _mark(answer: Any) -> str:
    """What If-Range may compare: a strong ETag, else the date of the last change, else nothing (then no resume)."""
    etag = answer.headers.get("ETag", "")
    return etag if etag.startswith('"') else answer.headers.get("Last-Modified", "")


def _verify(recipe: Recipe, part: Path) -> None:
    if recipe.md5 is None:
        return
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != recipe.md5:
        size = _size(part)
        _forget(part)
        raise DataError(f"'{recipe.url}': {size:,} bytes with checksum {found}, the official archive has {recipe.md5}; nothing was kept")


def _extract(recipe: Recipe, archive: Path, folder: Path) -> None:
    """The recipe's files, wherever they lie inside the archive, by name alone: a path in an archive cannot lead out of the folder."""
    wanted = {*recipe.files, *recipe.optional, *KEPT_BESIDE}
    try:
        for name, file in _members(archive):
            if name in wanted:
                with file, (folder / name).open("wb") as out:
                    shutil.copyfileobj(file, out, CHUNK)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        size, reason = _size(archive), str(error).splitlines()[0].rstrip(":")
        _forget(archive)
        raise DataError(f"'{recipe.url}': {size:,} bytes that are no whole archive ({reason}); nothing was kept") from None
    _complete(recipe, folder, f"'{recipe.url}': the archive")


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """(file name, open file) of a zip or tar archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as z:
            for info in z.infolist():
                if not info.is_dir():
                    yield Path(info.filename).name, z.open(info)
        return
    with tarfile.open(archive) as t:
        for member in t:
            if member.isfile() and (file := t.extractfile(member)) is not None:
                yield Path(member.name).name, file


def _copy(recipe: Recipe, source: Path, folder: Path, progress: Progress | None) -> None:
    files = [source / f for f in (*recipe.files, *recipe.optional, *KEPT_BESIDE) if (source / f).is_file()]
    total, done = sum(_size(f) for f in files), 0
    _room(folder, total)
    for file in files:
        shutil.copyfile(file, folder / file.name)
        done += _size(file)
        if progress is not None:
            progress(done, total)
    _complete(recipe, folder, f"folder '{source}'")


def _complete(recipe: Recipe, folder: Path, what: str) -> None:
    for name in recipe.files:
        if not _size(folder / name):
            raise DataError(f"{what}: '{name}' is {'empty' if (folder / name).is_file() else 'missing'}")


@contextmanager
def _staged(destination: Path) -> Iterator[Path]:
    """A folder beside the destination that takes its name when all went well, and vanishes when not."""
    stage = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    try:
        yield stage
        stage.chmod(0o755)
        if destination.is_dir():  # incomplete files of other making: replaced one by one
            for file in stage.iterdir():
                os.replace(file, destination / file.name)
        else:
            stage.rename(destination)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def _problems(recipe: Recipe, destination: Path) -> Iterator[None]:
    """A full or forbidden disk, in one line."""
    try:
        yield
    except OSError as error:
        raise DataError(f"recipe '{recipe.name}': cannot write to '{destination.parent}': {error.strerror or error}") from None


def _room(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise DataError(f"folder '{path.parent}': {needed:,} bytes are needed, {free:,} are free")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(part.name + ".mark").unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return getattr(reason, "strerror", None) or str(reason) or type(error).__name__
