"""What a running system looks like: on a terminal a table that is refreshed in place, elsewhere a line each time.

    with live(console, "prerank online") as show:
        show(of_trainer(told))

A field's name, number and words are the same in both; the table adds how each number went, the last ones as bars.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from rich.console import Console
from rich.live import Live
from rich.table import Table

from prerank.online.told import Told

BARS, KEPT = "▁▂▃▄▅▆▇█", 40


class Field(NamedTuple):
    """A number with its name, and as it is said."""

    name: str
    value: float
    text: str


Show = Callable[[Sequence[Field]], None]


@contextmanager
def live(console: Console, title: str, *, quiet: bool = False) -> Iterator[Show]:
    """What shows fields, unless it is to be quiet; other lines of the same console stand above the table."""
    if quiet:
        yield lambda fields: None
        return
    if not console.is_terminal:
        yield lambda fields: console.print("  ".join(f"{f.name} {f.text}" for f in fields), highlight=False, soft_wrap=True)
        return
    went: dict[str, deque[float]] = {}
    with Live(console=console, auto_refresh=False) as shown:

        def show(fields: Sequence[Field]) -> None:
            for f in fields:
                went.setdefault(f.name, deque(maxlen=KEPT)).append(f.value)
            shown.update(_table(title, fields, went), refresh=True)

        yield show


def of_trainer(told: Told) -> list[Field]:
    """Fields of `prerank online`."""
    found = [_count("rows", told.rows), _count("rows/s", told.rate), _count("waiting", told.lag)]
    for label, numbers in (told.metrics or {}).items():
        found += [_number(f"{label} {said}", numbers[name]) for name, said in QUALITY.items()]
    found.append(_seconds("label delay", told.delay))
    if told.published:
        found += [_state(told.published, told.sequence), _seconds("fresh after", told.update_delay)]
    return found + [_count(name, n) for name, n in (("skipped", told.skipped), ("too late", told.late), ("drift alarms", told.alarms)) if n]


def of_system(interval: Mapping[str, Any]) -> list[Field]:
    """Fields of `prerank up`: an interval of the world, with the trainer's last line."""
    trainer = interval.get("trainer", {})
    shown = [_number(name, interval.get(name)) for name in ("online", "frozen", "best")]
    gain = _ratio(interval.get("online"), interval.get("frozen"))
    found = [_seconds("time", interval["at"]), *shown, Field("gain over frozen", gain, "–" if math.isnan(gain) else f"{gain:+.1%}")]
    found += [_state(interval["generation"], interval.get("sequence", 0)), _count("rows", trainer.get("rows", 0)),
              _count("rows/s", trainer.get("rate", 0)), _count("waiting", trainer.get("lag", 0))]  # fmt: skip
    for label, numbers in trainer.items():
        if isinstance(numbers, dict):
            found += [_number(f"{label} {said}", numbers[name]) for name, said in QUALITY.items()]
    found += [_seconds("fresh after", trainer.get("update_delay")), _count("requests", interval["requests"])]
    found += [Field(name, interval[key], f"{interval[key]:.1f} ms") for name, key in (("p50", "p50_ms"), ("p99", "p99_ms"))]
    return found + [_count("failed", interval["failed"])] * bool(interval["failed"])


QUALITY = {"auc": "AUC", "logloss": "LogLoss", "calibration": "calibration"}


def bars(values: Sequence[float]) -> str:
    """The last values as bars between their least and their greatest; what is not known is a space.

    >>> bars([1.0, 2.0, math.nan, 3.0])
    '▁▅ █'
    """
    known = [v for v in values if not math.isnan(v)]
    if not known or min(known) == max(known):
        return ""
    low, reach = min(known), max(known) - min(known)
    return "".join(" " if math.isnan(v) else BARS[round((v - low) / reach * (len(BARS) - 1))] for v in values)


def _table(title: str, fields: Sequence[Field], went: Mapping[str, Sequence[float]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column(style="cyan")
    for f in fields:
        table.add_row(f.name, f.text, bars(went[f.name]))
    return table


def _count(name: str, n: float) -> Field:
    return Field(name, n, f"{n:,.0f}")


def _number(name: str, value: float | None) -> Field:
    known = math.nan if value is None else value
    return Field(name, known, "–" if math.isnan(known) else f"{known:.4f}")


def _seconds(name: str, value: float | None) -> Field:
    known = math.nan if value is None else value
    return Field(name, known, "–" if math.isnan(known) else f"{known:.1f} s")


def _state(generation: int, sequence: int) -> Field:
    return Field("generation", generation + sequence / 1000, f"{generation}+{sequence}" if sequence else str(generation))


def _ratio(new: float | None, old: float | None) -> float:
    return new / old - 1 if new is not None and old else math.nan
