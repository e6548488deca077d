"""The same fields as a table that is refreshed in place, or as lines."""

from __future__ import annotations

import doctest
import io
import math
from typing import Any

from rich.console import Console

from prerank.online import Told, view
from prerank.online.view import live, of_system, of_trainer

TOLD = Told(rows=12_345, rate=1000.0, lag=3, delay=0.25, published=4, sequence=2, update_delay=1.25,
            metrics={"click": {"auc": 0.75, "logloss": 0.5, "calibration": 1.01, "rate": 0.2}})  # fmt: skip
INTERVAL: dict[str, Any] = {"at": 65.0, "requests": 250, "failed": 0, "generation": 4, "sequence": 2,
                            "online": 0.3, "frozen": 0.25, "best": 0.5,
            "p50_ms": 1.5, "p99_ms": 9.0}
INTERVAL["trainer"] = {"rows": 12_345, "rate": 1000.0, "lag": 3, "update_delay": None,
                       "click": {"auc": 0.75, "logloss": None, "calibration": 1.01, "rate": 0.2}}  # fmt: skip


def console(terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=100, color_system=None, _environ={"TERM": "xterm"}), out


def test_lines_where_there_is_no_terminal() -> None:
    to, out = console(False)
    with live(to, "prerank online") as show:
        show(of_trainer(TOLD))
        show(of_trainer(Told(skipped=2)))
    first, second = out.getvalue().splitlines()
    assert first == ("rows 12,345  rows/s 1,000  waiting 3  click AUC 0.7500  click LogLoss 0.5000  click calibration 1.0100  "
                     "label delay 0.2 s  generation 4+2  fresh after 1.2 s")  # fmt: skip
    assert second == "rows 0  rows/s 0  waiting 0  label delay –  skipped 2"


def test_a_table_in_place_on_a_terminal() -> None:
    to, out = console(True)
    with live(to, "prerank up") as show:
        for online in (0.25, 0.3, 0.35):
            show(of_system(INTERVAL | {"online": online}))
            to.print("a line of another")
    text = out.getvalue()
    assert text.count("\x1b[1A") > 20  # the cursor goes up over what is replaced
    last = text[text.rindex("prerank up") :]
    assert "+40.0%" in last
    assert "▁▅█" in last  # as it went
    assert "a line of another" in text


def test_quiet_is_quiet() -> None:
    for terminal in (False, True):
        to, out = console(terminal)
        with live(to, "prerank up", quiet=True) as show:
            show(of_trainer(TOLD))
        assert out.getvalue() == ""


def test_what_is_not_known_is_a_dash() -> None:
    said = {f.name: f.text for f in of_system(INTERVAL | {"p50_ms": math.nan, "frozen": 0.0})}
    assert (said["fresh after"], said["click LogLoss"], said["gain over frozen"]) == ("–", "–", "–")
    assert said["generation"] == "4+2"
    assert "failed" not in said
    assert {f.name: f.text for f in of_system(INTERVAL | {"failed": 2})}["failed"] == "2"


def test_examples() -> None:
    assert doctest.testmod(view).failed == 0
