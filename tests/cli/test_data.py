"""`prerank data`: get, list, show, and one red line when something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from prerank.cli import app
from tests.datasets import tiny
from tests.datasets.conftest import MOVIES, RATINGS, USERS


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRERANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PRERANK_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def official(tmp_path: Path) -> Path:
    folder = tmp_path / "download"
    folder.mkdir()
    for name, text in (("ratings.dat", RATINGS), ("users.dat", USERS), ("movies.dat", MOVIES)):
        (folder / name).write_bytes(text.encode("iso-8859-1"))
    return folder


def run(*args: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["data", *args])
    return result.exit_code, result.stdout, result.stderr


def test_list_says_where_things_are(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run("list")
    assert code == 0
    assert all(word in out for word in ("movielens", "kuairand", "simulated", "not found", "prerank data get movielens", "generated"))
    monkeypatch.setenv("PRERANK_DATA", str(official))
    found = next(line for line in run("list")[1].splitlines() if line.startswith("movielens"))
    assert str(official)[:8] in found  # a long path goes on below
    assert "not found" not in found


def test_get_then_show(official: Path, tmp_path: Path) -> None:
    code, out, err = run("get", "movielens", "--from", str(official))
    assert (code, out.strip()) == (0, str(tmp_path / "cache" / "raw" / "movielens"))
    assert "MovieLens-1M: research use" in err
    code, out, _ = run("show", "movielens", "-n", "1")
    assert code == 0
    for words in ("log: 6 rows", "users: 3 rows", "items: 3 rows", "978300760", "genres (item multi)", "labels: like"):
        assert words in out


def test_get_into_a_data_folder_says_how_to_find_it_there(official: Path, tmp_path: Path) -> None:
    code, out, _ = run("get", "movielens", "--from", str(official), "--to", str(tmp_path / "data"))
    assert code == 0
    assert f"export PRERANK_DATA={tmp_path / 'data'}" in out
    assert (tmp_path / "data" / "ml-1m" / "ratings.dat").exists()


def test_show_of_a_simulated_world_with_options() -> None:
    code, out, _ = run("show", "simulated", "--set", "impressions=300", "--set", "users=20", "--set", "items=30", "-n", "0")
    assert code == 0
    assert "log: 300 rows" in out
    assert "users: 20 rows" in out


def test_get_and_show_of_files_without_an_address(tmp_path: Path) -> None:
    code, out, err = run("get", "ali_ccp", "--from", str(tiny.write("ali_ccp", tmp_path / "official")))
    assert (code, out.strip()) == (0, str(tmp_path / "cache" / "raw" / "ali_ccp"))
    assert "Ali-CCP: research use" in err
    code, out, _ = run("show", "ali_ccp", "-n", "1")
    assert code == 0
    for words in ("log: 80 rows", "items: 7 rows", "conversions_without_click_dropped: 1", "labels: click, conversion"):
        assert words in out
    assert "users: " not in out  # it has no such table


def test_show_of_lists_and_of_more_rows_than_it_looks_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.write("amazon", tmp_path / "official")
    monkeypatch.setattr("prerank.cli.data.LOOKED_AT", 10)
    code, out, _ = run("show", "amazon", "--from", str(folder), "-n", "1")
    assert code == 0
    for words in ("log: 96 rows, of the first 10:", "items: 3 rows", "['Computers & Accessories', 'Cables, Wires', 'Audio']"):
        assert words in out


def test_nothing_to_get_for_a_simulated_world() -> None:
    code, out, _ = run("get", "simulated")
    assert (code, "nothing to get" in out) == (0, True)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["get", "movielense"], "unknown recipe 'movielense'; did you mean 'movielens'?"),
        (
            ["get", "movielens", "--from", "/nowhere"],
            "'/nowhere' must hold the official files; missing: ratings.dat, users.dat, movies.dat",
        ),
        (["show", "kuairand"], "prerank data get kuairand"),
        (
            ["get", "taobao_ad"],
            "cannot be fetched from here; get 'Ad Display/Click Data on Taobao.com' of Alibaba's Tianchi (a login is needed)",
        ),
        (
            ["get", "amazon"],
            "of the 'Amazon product data' by Julian McAuley, release of 2014 (freely downloadable), then `prerank data get amazon",
        ),
        (["get", "ali_ccp", "--from", "/nowhere"], "missing: sample_skeleton_train.csv, common_features_train.csv, "),
        (["show", "simulated", "--set", "impressions"], "--set 'impressions': must look like option=value"),
        (["show", "simulated", "--set", "seed=[1"], "--set 'seed=[1': the value is not valid YAML"),
        (["show", "simulated", "--set", "sead=1"], "unknown option 'sead'; did you mean 'seed'?"),
    ],
)
def test_mistakes_are_one_line(args: list[str], said: str) -> None:
    code, _, err = run(*args)
    assert code == 2
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert said in lines[0]
