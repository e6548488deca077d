"""Finding official files, converting them once, and filling in settings: what the user wrote wins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from prerank import config, datasets
from prerank.config import ConfigError, Data
from prerank.data import DataError, prepare
from prerank.datasets import RECIPES, resolve
from prerank.schema import Feature
from tests.datasets import tiny


def test_settings_without_a_recipe_come_back_as_they_are() -> None:
    data = Data(log="x.csv")
    assert resolve(data) is data


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown recipe 'movielense'; did you mean 'movielens'"):
        resolve(Data(recipe="movielense"))


def test_an_unknown_option_names_the_nearest(ml1m: Path) -> None:
    with pytest.raises(ConfigError, match="recipe 'movielens': unknown option 'protocoll'; did you mean 'protocol'"):
        resolve(Data(recipe="movielens", options={"from": str(ml1m), "protocoll": "honest"}))


def test_a_wrong_option_value_says_what_came(ml1m: Path) -> None:
    with pytest.raises(ConfigError, match=r"option protocol: .*'honest' or 'inttower-official'; got 'fair'"):
        resolve(Data(recipe="movielens", options={"from": str(ml1m), "protocol": "fair"}))


def test_data_that_is_nowhere_names_the_three_ways() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(Data(recipe="movielens"))
    for way in ("prerank data get movielens", "--from DIR", "PRERANK_DATA", "ratings.dat"):
        assert way in str(caught.value)


def test_data_that_cannot_be_fetched_names_its_official_source() -> None:
    with pytest.raises(
        ConfigError, match=r"not found; get 'User Behavior Data .*' of Alibaba's Tianchi \(a login is needed\), then"
    ) as caught:
        resolve(Data(recipe="taobao_behavior"))
    for way in ("prerank data get taobao_behavior --from DIR", "PRERANK_DATA", "taobao-behavior/", "UserBehavior.csv"):
        assert way in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_recipe_with_files_says_how_to_get_them() -> None:
    for recipe in RECIPES.values():
        assert (recipe.url is not None) + (recipe.obtain is not None) == bool(recipe.files), recipe.name
        assert "://" not in (recipe.obtain or "")


def test_a_given_folder_must_hold_the_files(ml1m: Path) -> None:
    (ml1m / "users.dat").unlink()
    with pytest.raises(ConfigError, match=r"option from: .* missing: users.dat$"):
        resolve(Data(recipe="movielens", options={"from": str(ml1m)}))


@pytest.mark.parametrize("place", ["from", "data folder", "data folder itself", "cache"])
def test_where_files_are_looked_for(ml1m: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"from": str(ml1m)} if place == "from" else {}
    if place.startswith("data folder"):
        monkeypatch.setenv("PRERANK_DATA", str(ml1m if "itself" in place else ml1m.parent))
    if place == "cache":
        (tmp_path / "cache" / "raw").mkdir(parents=True)
        ml1m.rename(tmp_path / "cache" / "raw" / "movielens")
    assert pl.read_parquet(resolve(Data(recipe="movielens", options=options)).log or "").height == 6


def test_the_given_folder_comes_first(ml1m: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRERANK_DATA", str(tmp_path / "elsewhere"))
    assert RECIPES["movielens"].locate({"from": str(ml1m)}) == ml1m
    assert RECIPES["movielens"].locate({}) is None


def test_what_the_user_wrote_wins(ml1m: Path) -> None:
    mine = Feature(name="movie_id", side="item")
    data = Data(recipe="movielens", options={"from": str(ml1m)}, width=8, features=(mine,), drop=None, items="mine.parquet")
    resolved = resolve(data)
    assert (resolved.width, resolved.features, resolved.drop, resolved.items) == (8, (mine,), None, "mine.parquet")
    assert (resolved.item_id, resolved.time, list(resolved.labels)) == ("movie_id", "ts", ["like"])
    assert resolve(resolved) is resolved  # nothing of the recipe is left


def test_a_part_of_the_split_keeps_the_recipe_s_kind(kuairand: Path) -> None:
    options = {"from": str(kuairand)}
    later = resolve(Data(recipe="kuairand", options=options, split={"kind": "time", "test": "2022-05-07"})).split
    assert (later.kind, later.test, later.validation, later.timezone) == ("time", "2022-05-07", "2022-05-05 00:00:00", "Asia/Shanghai")
    other = resolve(Data(recipe="kuairand", options=options, split={"kind": "random", "seed": 3})).split
    assert other == config.Split(kind="random", seed=3)


def test_a_written_default_survives_the_run_folder(kuairand: Path, tmp_path: Path) -> None:
    """`kind: random` equals config's default, and still overrides the recipe after a round trip through config.yaml."""
    written = config.parse({"data": {"recipe": "kuairand", "options": {"from": str(kuairand)}, "split": {"kind": "random"}}})
    (tmp_path / "config.yaml").write_text(config.dump(written))
    again = config.load(tmp_path / "config.yaml")
    assert again == written
    assert resolve(again.data).split == resolve(written.data).split == config.Split(kind="random")


def test_it_is_converted_once(ml1m: Path) -> None:
    data = Data(recipe="movielens", options={"from": str(ml1m)})
    first = Path(resolve(data).log or "")
    before = first.stat().st_mtime_ns
    assert Path(resolve(data).log or "") == first
    assert first.stat().st_mtime_ns == before


@pytest.mark.parametrize("change", ["content", "time", "options", "version"])
def test_what_makes_it_convert_again(ml1m: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, str] = {"from": str(ml1m)}
    first = resolve(Data(recipe="movielens", options=options)).log
    if change == "content":
        (ml1m / "users.dat").write_text("1::F::1::10::48067\n")
    if change == "time":
        os.utime(ml1m / "users.dat", ns=(1, 1))
    if change == "options":
        options["protocol"] = "inttower-official"
    if change == "version":
        monkeypatch.setattr(datasets, "RECIPES", {"movielens": type(RECIPES["movielens"])(**{**vars(RECIPES["movielens"]), "version": 99})})
    assert resolve(Data(recipe="movielens", options=options)).log != first


def test_a_table_may_come_in_parts(ml1m: Path, tmp_path: Path) -> None:
    """It is written before the next is asked for, so that what the walk found may be noted."""
    walked: list[int] = []

    def parts() -> Iterator[pl.DataFrame]:
        for i in range(3):
            walked.append(i)
            yield pl.DataFrame({"i": [i, i], "tags": [["a"], []]}, schema={"i": pl.Int8, "tags": pl.List(pl.String)})

    def tables(raw: Path, parsed: object) -> datasets.recipe.Tables:
        yield "log", parts()
        yield "notes", pl.DataFrame({"walked": [len(walked)]})

    streamed = type(RECIPES["movielens"])(**{**vars(RECIPES["movielens"]), "tables": tables})
    folder = streamed.convert(ml1m, tmp_path / "out", {"from": str(ml1m)})
    assert pl.read_parquet(folder / "log.parquet")["i"].to_list() == [0, 0, 1, 1, 2, 2]
    said = datasets.notes(folder)
    assert (said["rows"], said["walked"]) == ({"log": 6}, 3)


def test_a_moved_folder_is_not_converted_again(ml1m: Path, tmp_path: Path) -> None:
    first = resolve(Data(recipe="movielens", options={"from": str(ml1m)})).log
    moved = ml1m.rename(tmp_path / "moved")
    assert resolve(Data(recipe="movielens", options={"from": str(moved)})).log == first


def test_a_failed_conversion_leaves_nothing(ml1m: Path, tmp_path: Path) -> None:
    (ml1m / "movies.dat").write_text("10::Toy Story (1995)\n")
    with pytest.raises(DataError):
        resolve(Data(recipe="movielens", options={"from": str(ml1m)}))
    assert list((tmp_path / "cache" / "converted").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_one_line(ml1m: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cache folder '.*file/converted': cannot be written: "):
        resolve(Data(recipe="movielens", options={"from": str(ml1m)}, cache=str(tmp_path / "file")))


def test_another_process_may_be_first(ml1m: Path, tmp_path: Path) -> None:
    recipe, options = RECIPES["movielens"], {"from": str(ml1m)}
    out = tmp_path / "out"
    final = out / f"movielens-{recipe.fingerprint(ml1m, options)}"

    def tables(raw: Path, parsed: object) -> datasets.recipe.Tables:
        final.mkdir()
        (final / "theirs").write_text("")
        yield "log", pl.DataFrame({"a": [1]})

    slow = type(recipe)(**{**vars(recipe), "tables": tables})
    assert slow.convert(ml1m, out, options) == final
    assert [p.name for p in out.iterdir()] == [final.name]
    assert [p.name for p in final.iterdir()] == ["theirs"]


@pytest.mark.parametrize("name", ["movielens", "kuairand", "simulated", *tiny.WRITERS])
def test_defaults_are_settings_that_fit_the_tables(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Every column the defaults name exists: the data room prepares them."""
    options: dict[str, object]
    if name == "simulated":
        options = {"impressions": 500, "users": 40, "items": 30}
    elif name in tiny.WRITERS:
        options = {"from": str(tiny.write(name, tmp_path / "tiny")), **tiny.OPTIONS.get(name, {})}
    else:
        options = {"from": str(request.getfixturevalue("ml1m" if name == "movielens" else name))}
    dataset = prepare(resolve(Data(recipe=name, options=options)))
    assert len(dataset.schema.features) >= 3
    for split in ("train", "test"):
        dataset.columns("user", dataset.rows(split))
        dataset.columns("item", dataset.rows(split))
