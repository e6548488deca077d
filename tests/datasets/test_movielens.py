"""MovieLens: official files to tables; a wrong line is named."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from prerank.config import ConfigError, Data
from prerank.data import DataError, prepare
from prerank.datasets import resolve
from prerank.schema import Feature


def settings(folder: Path, **more: object) -> Data:
    return Data.model_validate({"recipe": "movielens", "options": {"from": str(folder)}, **more})


def test_tables(ml1m: Path) -> None:
    data = resolve(settings(ml1m))
    log, users, items = (pl.read_parquet(p or "") for p in (data.log, data.users, data.items))
    assert log.rows()[0] == (1, 10, 5, 978300760)
    assert (log.height, log["ts"].dtype, log["user_id"].dtype) == (6, pl.Int64, pl.Int32)
    assert users.rows(named=True)[2] == {"user_id": 3, "gender": "M", "age": 25, "occupation": 15, "zip": "55117-1234"}
    assert items["title"].to_list()[1:] == ["Star Wars: Episode IV (1977)", "Cité des enfants perdus, La (1995)"]  # colons, ISO-8859-1
    assert items["year"].to_list() == [1995, 1977, 1995]
    assert items["genres"][0] == "Animation|Children's|Comedy"


def test_prepared_as_its_page_says(ml1m: Path) -> None:
    """Threes dropped, positive above 3; genres split into values."""
    dataset = prepare(resolve(settings(ml1m)))
    assert dataset.labels[:, 0].tolist() == [1, 0, 1, 0, 1]
    assert (dataset.items["genres"] > 0).sum(1).tolist()[0] == 3


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("ratings.dat", "1::10::5", r"line 3: must be user_id::movie_id::rating::ts \(4 columns\), got 3: '1::10::5'"),
        ("ratings.dat", "1::10::5::9::9", r"line 3: .*got 5"),
        ("ratings.dat", "1::10::five::978300760", "line 3: rating must be .*, got 'five'"),
        ("ratings.dat", "1::10::4.5::978300760", r"line 3: rating must be .*, got '4.5'"),
        ("ratings.dat", "1::10::500::978300760", "line 3: rating must be .*, got '500'"),
        ("ratings.dat", "99999999999::10::5::978300760", "line 3: user_id must be .*, got '99999999999'"),
        ("ratings.dat", "", r"line 3: .*got 1: ''"),
        ("users.dat", "1::F::1::10::", "line 3: zip must be text, got 'nothing'"),
        ("movies.dat", "1,Toy Story,Comedy", "line 3: must be movie_id::title::genres"),
    ],
)
def test_a_wrong_line_is_named(ml1m: Path, name: str, line: str, said: str) -> None:
    lines = (ml1m / name).read_bytes().split(b"\n")
    lines.insert(2, line.encode())
    (ml1m / name).write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=f"file '.*{name}' {said}") as caught:
        resolve(settings(ml1m))
    assert "\n" not in str(caught.value)


def test_an_empty_file(ml1m: Path) -> None:
    (ml1m / "ratings.dat").write_text("")
    with pytest.raises(DataError, match=r"ratings.dat': is empty"):
        resolve(settings(ml1m))


def test_windows_line_ends(ml1m: Path) -> None:
    (ml1m / "users.dat").write_bytes((ml1m / "users.dat").read_bytes().replace(b"\n", b"\r\n"))
    assert pl.read_parquet(resolve(settings(ml1m)).users or "")["zip"].to_list() == ["48067", "70072", "55117-1234"]


def test_the_rating_is_no_feature(ml1m: Path) -> None:
    features = (Feature(name="stars", column="rating", side="user", kind="numeric"),)
    with pytest.raises(ConfigError, match="feature 'stars': column 'rating' cannot be a feature: the label is made from it"):
        resolve(settings(ml1m, features=features))
