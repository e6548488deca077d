"""What `prerank up` has to show: a table of the end, and the curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prerank.report import Column, Table
from prerank.report.plots import legend_below
from prerank.report.style import canvas, colour, save

NAMES = {"online": "learning online", "frozen": "frozen at the start", "best": "best possible", "blind": "blind"}


def table(report: Mapping[str, Any]) -> Table:
    """True click probability of what each would have shown, in the last fifth of the time."""
    found = Table("The last fifth of the time", [Column("what is shown"), Column("true click probability"), Column("against frozen")])
    last = report["last"]
    for name, said in NAMES.items():
        found.add({"what is shown": said, "true click probability": last[name],
                   "against frozen": f"{100 * (last[name] / last['frozen'] - 1):+.1f} %"})  # fmt: skip
    return found


def pictures(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """The curves over time."""
    figure, axes = canvas("True click probability of what is shown", subtitle=f"tastes turn by {report['drift']:g} quarter turns")
    intervals = [i for i in report["intervals"] if i["requests"]]
    for n, (name, said) in enumerate(NAMES.items()):
        axes.plot([i["at"] for i in intervals], [i[name] for i in intervals], color=colour(n), linewidth=2, label=said)
    axes.set_xlabel("seconds")
    axes.set_ylim(bottom=0)
    legend_below(axes, len(NAMES))
    return [save(figure, folder / "up.png")]
