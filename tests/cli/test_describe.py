import numpy as np
import polars as pl
import pytest

from prerank.cli.describe import describe

RNG = np.random.default_rng(0)


def settings(values, name="x"):
    found = describe(pl.Series(values), name)
    return found if isinstance(found, str) else {k: v for k, v in found.items() if k != "why"}


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        (["m", "f", None] * 50, "gender", {}),
        (RNG.integers(0, 20, 500), "kind", {}),
        (RNG.integers(0, 9000, 5000), "author_id", {}),
        (RNG.integers(0, 9000, 5000), "followers", {"kind": "numeric", "bins": 32}),
        (RNG.normal(size=500), "price", {"kind": "numeric", "bins": 32}),
        (RNG.integers(0, 5, 500).astype(float), "grade", {}),
        ([True, False] * 9, "x", {}),
        (["Action|Comedy", "Drama", "Drama|Action|War"] * 40, "genres", {"kind": "multi", "max_length": 3}),
        (["3,12", "3", "12"] * 40, "tag", {"kind": "multi", "max_length": 2, "separator": ","}),
        (["1 2 3", "3 1", "2"] * 40, "clicked_hist", {"kind": "sequence", "max_length": 3, "separator": " "}),
        ([[1, 2], [3], [1]] * 9, "tags", {"kind": "multi", "max_length": 2}),
        ([["a", "b"], ["a"]] * 9, "recent_brands", {"kind": "sequence", "max_length": 2}),
        ([[0.1, 0.2, 0.3]] * 9, "embedding", {"kind": "vector", "dim": 3}),
        ([[0.1], [0.1, 0.2]] * 9, "embedding", "lists of numbers of different lengths"),
        (["(0,10]", "(10,50]", "0"] * 40, "follow_range", {}),
        ([f"Film, The ({i})" for i in range(300)], "title", "text, nearly every value is different"),
        ([f"sku-{i}" for i in range(300)], "product_code", {}),
        ([None, None], "x", "always missing"),
        ([3, 3, 3], "x", "always the same value"),
        (pl.Series(["2024-01-01", "2024-01-02"]).str.to_date(), "x", "a date"),
        ([{"a": 1}, {"a": 2}], "x", "a struct"),
    ],
)
def test_what_a_column_is(values, name, expected):
    assert settings(values, name) == expected


def test_the_longest_lists_do_not_set_the_length():
    lists = [[1, 2]] * 300 + [list(range(400))]
    assert settings(lists)["max_length"] == 2
    assert settings([list(range(400))] * 3)["max_length"] == 50
