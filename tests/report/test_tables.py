import io
import math
import statistics

import pytest
from rich.console import Console

from prerank.report import Column, Spread, Table, spread


def results():
    table = Table("ML-1M", [Column("model"), Column("AUC", best="max"), Column("LogLoss", best="min", digits=3), Column("rows", unit="k")])
    table.add({"model": "DSSM", "AUC": spread([0.8791, 0.8795]), "LogLoss": 0.34, "rows": 12345})
    table.add({"model": "a|b", "AUC": 0.8837, "LogLoss": 0.35, "rows": None})
    table.add({"model": "Old", "AUC": 0.9, "LogLoss": math.nan}, leaky="it saw [test] rows")
    return table


def test_spread_is_the_sample_deviation():
    assert spread([1.0, 2.0, 4.0]) == Spread(7 / 3, statistics.stdev([1, 2, 4]), 3)
    assert spread([5.0]) == Spread(5.0, 0.0, 1)
    with pytest.raises(ValueError, match="spread: needs at least one value, got none"):
        spread([])


def test_markdown_to_the_letter():
    assert results().markdown() == (
        "**ML-1M**\n"
        "\n"
        "| model         |             AUC |   LogLoss | rows (k) |\n"
        "| ------------- | --------------: | --------: | -------: |\n"
        "| DSSM          | 0.8793 ± 0.0003 | **0.340** |   12,345 |\n"
        "| a\\|b          |      **0.8837** |     0.350 |        – |\n"
        "| Old **LEAKY** |          0.9000 |         – |        – |\n"
        "\n"
        "LEAKY: it saw [test] rows\n"
    )


def test_terminal_shows_the_same():
    out = io.StringIO()
    Console(file=out, width=120).print(results().rich())
    text = out.getvalue()
    for piece in ("ML-1M", "0.8793 ± 0.0003", "0.8837", "12,345", "Old LEAKY", "LEAKY: it saw [test] rows", "rows (k)"):
        assert piece in text
    aucs = [line.index(v) + len(v) for v in ("0.8793 ± 0.0003", "0.8837", "0.9000") for line in text.splitlines() if v in line]
    assert len(set(aucs)) == 1  # flush right


def test_a_leaky_row_is_never_best():
    assert "**0.9000**" not in results().markdown()


def test_ties_to_the_digits_shown_are_all_best():
    table = Table("t", [Column("m"), Column("AUC", best="max")])
    for value in (0.88001, 0.88004, 0.5):
        table.add({"m": "x", "AUC": value})
    assert table.markdown().count("**0.8800**") == 2


def test_one_honest_row_has_nobody_to_beat():
    table = Table("t", [Column("m"), Column("AUC", best="max")])
    table.add({"m": "x", "AUC": 0.5})
    assert "**0.5000**" not in table.markdown()


def test_an_empty_table_prints():
    table = Table("t", [Column("m")])
    assert table.markdown().splitlines()[2:] == ["| m   |", "| --- |"]
    Console(file=io.StringIO()).print(table.rich())


def test_an_unknown_column_is_named():
    with pytest.raises(ValueError, match="table 't': no column 'auc'; columns: m, AUC"):
        Table("t", [Column("m"), Column("AUC")]).add({"auc": 1.0})
