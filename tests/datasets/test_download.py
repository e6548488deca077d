"""Fetching an archive from a server that misbehaves; nothing here leaves 127.0.0.1."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import resource
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from prerank.config import ConfigError, Data
from prerank.data import DataError
from prerank.datasets import RECIPES, download, get, resolve
from prerank.datasets.recipe import Recipe
from tests.datasets.server import Archive

Serve = Callable[..., tuple[Archive, Recipe]]


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, content in files.items():
            z.writestr(name, content)
    return out.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as t:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def official(ml1m: Path) -> dict[str, bytes]:
    """Official files with a large README, so that an archive has several chunks."""
    noise = np.random.default_rng(0).bytes(3 * download.CHUNK)
    return {f"ml-1m/{f.name}": f.read_bytes() for f in sorted(ml1m.iterdir())} | {"ml-1m/README": noise, "ml-1m/": b""}


@pytest.fixture
def serve(official: dict[str, bytes]) -> Iterator[Serve]:
    servers = []

    def start(body: bytes | None = None, *, md5: str | None = None, **how: object) -> tuple[Archive, Recipe]:
        archive = Archive(zipped(official) if body is None else body, **how)  # type: ignore[arg-type]
        server, url = archive.serve()
        servers.append(server)
        return archive, dataclasses.replace(RECIPES["movielens"], url=url, md5=md5)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def fetched(recipe: Recipe, to: Path, progress: download.Progress | None = None) -> Path:
    return download.get(recipe, destination=to, progress=progress)


def test_a_zip_becomes_a_flat_folder(serve: Serve, tmp_path: Path, official: dict[str, bytes]) -> None:
    _, recipe = serve()
    heard: list[tuple[int, int | None]] = []
    folder = fetched(recipe, tmp_path / "new" / "ml-1m", lambda done, total: heard.append((done, total)))
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == {Path(n).name: c for n, c in official.items() if c}
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["ml-1m"]  # no leftovers
    assert heard[-1] == (len(zipped(official)), len(zipped(official)))
    assert [d for d, _ in heard] == sorted(d for d, _ in heard)


def test_a_tar_gz_too_and_its_log_can_be_used(kuairand: Path, serve: Serve, tmp_path: Path) -> None:
    files = {f"KuaiRand-Pure/data/{f.name}": f.read_bytes() for f in kuairand.iterdir()}
    archive, _ = serve(tarred(files), content_type="application/octet-stream")
    server, url = archive.serve()
    download.get(dataclasses.replace(RECIPES["kuairand"], url=url), destination=tmp_path / "cache" / "raw" / "kuairand")
    server.shutdown()
    server.server_close()
    shutil.rmtree(kuairand)
    assert resolve(Data(recipe="kuairand")).log


def test_what_is_there_is_left_alone(ml1m: Path, serve: Serve) -> None:
    archive, recipe = serve()
    assert fetched(recipe, ml1m) == ml1m
    assert archive.asked == []


def test_a_cut_connection_is_taken_up_where_it_was(serve: Serve, tmp_path: Path) -> None:
    archive, recipe = serve(cut_after=[100_000, 200_000])
    fetched(recipe, tmp_path / "ml-1m")
    assert archive.asked == [None, "bytes=100000-", "bytes=300000-"]


def test_an_interrupted_download_goes_on_next_time(serve: Serve, tmp_path: Path) -> None:
    archive, recipe = serve()

    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetched(recipe, tmp_path / "ml-1m", interrupt)
    assert not (tmp_path / "ml-1m").exists()
    part = (tmp_path / ".ml-1m.part").stat().st_size
    assert part > 0
    fetched(recipe, tmp_path / "ml-1m")
    assert archive.asked == [None, f"bytes={part}-"]
    assert (tmp_path / "ml-1m" / "ratings.dat").exists()


def test_a_whole_part_is_not_downloaded_again(serve: Serve, tmp_path: Path) -> None:
    """Interrupted after the last byte: the server says 416, the part is whole."""
    archive, recipe = serve()
    (tmp_path / ".ml-1m.part").write_bytes(archive.body)
    (tmp_path / ".ml-1m.part.mark").write_text(archive.etag)
    fetched(recipe, tmp_path / "ml-1m")
    assert archive.asked == [f"bytes={len(archive.body)}-"]


@pytest.mark.parametrize("how", ["changed file", "no ranges", "no mark", "part too long"])
def test_a_part_that_cannot_go_on_starts_afresh(serve: Serve, tmp_path: Path, how: str) -> None:
    archive, recipe = serve(ranges=how != "no ranges")
    part = b"x" * (len(archive.body) + 5 if how == "part too long" else 1000)
    (tmp_path / ".ml-1m.part").write_bytes(part)
    if how != "no mark":
        (tmp_path / ".ml-1m.part.mark").write_text('"0"' if how == "changed file" else archive.etag)
    fetched(recipe, tmp_path / "ml-1m")
    assert (tmp_path / "ml-1m" / "ratings.dat").exists()


def test_a_server_that_does_not_say_how_much(serve: Serve, tmp_path: Path) -> None:
    _, recipe = serve(length=False)
    heard: list[int | None] = []
    fetched(recipe, tmp_path / "ml-1m", lambda _, total: heard.append(total))
    assert set(heard) == {None}


def test_a_server_that_always_cuts_ends_in_one_line_and_keeps_what_came(serve: Serve, tmp_path: Path) -> None:
    archive, recipe = serve(cut_after=[50_000] + [0] * 20)
    with pytest.raises(DataError, match=r"'http://127.*': the connection was cut; 50,000 bytes are kept, run it again to go on"):
        fetched(recipe, tmp_path / "ml-1m")
    archive.cut_after.clear()
    fetched(recipe, tmp_path / "ml-1m")
    assert archive.asked[-1] == "bytes=50000-"


@pytest.mark.parametrize(("status", "said"), [(404, "404 Not Found"), (503, "503 Service Unavailable")])
def test_a_refusal_is_one_line(serve: Serve, tmp_path: Path, status: int, said: str) -> None:
    _, recipe = serve(status=status)
    with pytest.raises(DataError, match=f"the server answered {said}"):
        fetched(recipe, tmp_path / "ml-1m")
    assert list(tmp_path.glob("*ml-1m*")) == []


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    archive = Archive(b"")
    server, url = archive.serve()
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=r"Connection refused$"):
        fetched(dataclasses.replace(RECIPES["movielens"], url=url), tmp_path / "ml-1m")


def test_a_web_page_is_no_archive(serve: Serve, tmp_path: Path) -> None:
    _, recipe = serve(b"<html>please log in</html>", content_type="text/html; charset=utf-8")
    with pytest.raises(DataError, match="a web page, not an archive"):
        fetched(recipe, tmp_path / "ml-1m")


@pytest.mark.parametrize("damage", ["text", "cut zip", "cut tar", "wrong member"])
def test_a_damaged_archive_is_one_line_and_not_kept(serve: Serve, tmp_path: Path, official: dict[str, bytes], damage: str) -> None:
    whole = zipped(official)
    body = {
        "text": b"sorry",
        "cut zip": whole[: len(whole) // 2],
        "cut tar": tarred(official)[: len(whole) // 2],
        "wrong member": whole.replace(official["ml-1m/ratings.dat"][:40], b"!" * 40),
    }[damage]
    _, recipe = serve(body)
    with pytest.raises(DataError, match=r"no whole archive.*nothing was kept") as caught:
        fetched(recipe, tmp_path / "ml-1m")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.glob("*ml-1m*")) == []


def test_the_checksum_counts(serve: Serve, tmp_path: Path, official: dict[str, bytes]) -> None:
    good = hashlib.md5(zipped(official)).hexdigest()
    _, recipe = serve(md5="0" * 32)
    with pytest.raises(DataError, match=f"checksum {good}, the official archive has {'0' * 32}; nothing was kept"):
        fetched(recipe, tmp_path / "ml-1m")
    assert list(tmp_path.glob("*ml-1m*")) == []
    _, recipe = serve(md5=good)
    fetched(recipe, tmp_path / "ml-1m")


@pytest.mark.parametrize(("change", "said"), [("missing", "'users.dat' is missing"), ("empty", "'users.dat' is empty")])
def test_an_archive_without_its_files(serve: Serve, tmp_path: Path, official: dict[str, bytes], change: str, said: str) -> None:
    files = dict(official)
    del files["ml-1m/users.dat"]
    _, recipe = serve(zipped(files if change == "missing" else {**files, "ml-1m/users.dat": b""}))
    with pytest.raises(DataError, match=f"the archive: {said}"):
        fetched(recipe, tmp_path / "ml-1m")
    assert not (tmp_path / "ml-1m").exists()


def test_paths_in_an_archive_lead_nowhere_else(serve: Serve, tmp_path: Path, official: dict[str, bytes]) -> None:
    files = {f"../../{Path(n).name}": c for n, c in official.items() if c}
    _, recipe = serve(zipped({**files, "../evil.txt": b"x"}))
    folder = fetched(recipe, tmp_path / "a" / "b" / "ml-1m")
    assert sorted(str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*") if p.is_file()) == sorted(
        str((folder / Path(n).name).relative_to(tmp_path / "a")) for n in files
    )


def test_too_little_room_is_said_before_anything_is_written(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, recipe = serve()
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 93, 7))
    with pytest.raises(DataError, match="bytes are needed, 7 are free"):
        fetched(recipe, tmp_path / "ml-1m")


def test_a_write_that_fails_is_one_line(serve: Serve, tmp_path: Path) -> None:
    """A real one: files may not grow beyond 100 kB."""
    _, recipe = serve()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(DataError, match=r"recipe 'movielens': cannot write to '.*': File too large"):
            fetched(recipe, tmp_path / "ml-1m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "ml-1m").exists()
    fetched(recipe, tmp_path / "ml-1m")  # and once there is room it goes on


def test_incomplete_files_of_other_making_are_replaced(serve: Serve, ml1m: Path) -> None:
    (ml1m / "users.dat").unlink()
    (ml1m / "mine.txt").write_text("kept")
    _, recipe = serve()
    fetched(recipe, ml1m)
    assert (ml1m / "users.dat").stat().st_size > 0
    assert (ml1m / "mine.txt").read_text() == "kept"


def test_copied_from_a_folder(ml1m: Path, tmp_path: Path) -> None:
    (ml1m / "README").write_text("licence")
    (ml1m / "other.zip").write_text("")
    heard: list[tuple[int, int | None]] = []
    folder = get("movielens", source=ml1m.parent, progress=lambda done, total: heard.append((done, total)))
    assert folder == tmp_path / "cache" / "raw" / "movielens"
    assert sorted(p.name for p in folder.iterdir()) == ["README", "movies.dat", "ratings.dat", "users.dat"]
    assert heard[-1][0] == heard[-1][1] == sum(f.stat().st_size for f in folder.iterdir())
    assert resolve(Data(recipe="movielens")).log


@pytest.mark.parametrize(("change", "said"), [("missing", "missing: users.dat"), ("empty", "'users.dat' is empty")])
def test_a_folder_without_its_files(ml1m: Path, tmp_path: Path, change: str, said: str) -> None:
    (ml1m / "users.dat").unlink()
    if change == "empty":
        (ml1m / "users.dat").write_text("")
    with pytest.raises((ConfigError, DataError), match=said):
        get("movielens", source=ml1m, destination=tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_nothing_to_get() -> None:
    with pytest.raises(ConfigError, match="recipe 'simulated': is generated"):
        get("simulated")
    with pytest.raises(ConfigError, match="unknown recipe 'kuairnd'; did you mean 'kuairand'"):
        get("kuairnd")
