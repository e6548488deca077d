"""What `prerank up` has to show: a table of the end, pictures of all the time, and a page of both.

    write(report, Path("up"))      report.html, up.png, freshness.png
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from prerank.report import Column, Table, html
from prerank.report.plots import legend_below
from prerank.report.style import INK, MUTED, canvas, colour, save
from prerank.training.checkpoint import write_text

Report = Mapping[str, Any]
NAMES = {"online": "learning online", "retrained": "retrained from scratch at the end", "frozen": "frozen at the start",
         "best": "best possible", "blind": "blind"}  # fmt: skip
CURVES = ("online", "frozen", "best", "blind")


def write(report: Report, folder: Path) -> list[Path]:
    """The page and its pictures; returns the paths."""
    drawn = [utility(report, folder / "up.png")]
    if report["freshness"]:
        drawn.append(freshness(report["freshness"], folder / "freshness.png"))
    captions = ["What is shown, in true click probability, over time", "From an event to the first answer that knows of it"]
    figures = [html.picture(path, caption) for path, caption in zip(drawn, captions, strict=False)]
    title = f"A drifting world, {report['minutes']:g} minutes"
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="lead">{escape(_lead(report))}</p>', html.table(table(report)), html.pictures(figures),
             "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in said(report)) + "</ul>"]  # fmt: skip
    page = folder / "report.html"
    write_text(page, html.page(title, parts))
    return [page, *drawn]


def table(report: Report) -> Table:
    """True click probability of what each would have shown, in the last fifth of the time."""
    found = Table("The last fifth of the time", [Column("what is shown"), Column("true click probability"), Column("against frozen")])
    last = dict(report["last"])
    if "retrained" in report:
        last["retrained"] = report["retrained"]["utility"]
    for name, text in NAMES.items():
        if name in last:
            found.add({"what is shown": text, "true click probability": last[name],
                       "against frozen": f"{100 * (last[name] / last['frozen'] - 1):+.1f} %"})  # fmt: skip
    return found


def said(report: Report) -> list[str]:
    """What else is to be known, in sentences."""
    trainer, found = report.get("trainer", {}), []
    if report["freshness"]:
        p50, p99 = np.quantile(report["freshness"], (0.5, 0.99))
        found.append(f"Fresh after {p50:.1f} s (median) and {p99:.1f} s (p99): from the oldest event that a published state is the first "
                     f"to know of, until an answer came of it; {len(report['freshness']):,} states.")  # fmt: skip
    milliseconds = [i["p99_ms"] for i in report["intervals"] if i["requests"]]
    if milliseconds:
        p50 = np.median([i["p50_ms"] for i in report["intervals"] if i["requests"]])
        found.append(f"Answers took {p50:.1f} ms (the median of intervals), {np.median(milliseconds):.1f} ms at p99; "
                     f"{report['failed']:,} requests failed.")  # fmt: skip
    if "test" in report:
        t = report["test"]
        found.append(f"A/B test: cs3 against its backbone {t['relative']['value']:+.1%} clicks ({t['relative']['low']:+.1%} .. "
                     f"{t['relative']['high']:+.1%}, p {t['relative']['p']:.3f}); the page lies in abtest/.")  # fmt: skip
    if trainer:
        found.append(f"Learned from {trainer['rows']:,} rows in {trainer['batches']:,} batches; {trainer['skipped']:,} could not be read.")
    if "retrained" in report:
        r = report["retrained"]
        found.append(f"The retrained model had {r['rows']:,} rows and {r['seconds']:,.0f} s, after the end, and was asked the same "
                     f"{r['requests']:,} requests; what it learned of them is among its rows.")  # fmt: skip
    return found


def utility(report: Report, path: Path) -> Path:
    """The curves over time; the retrained model over the requests that it was asked."""
    figure, axes = canvas("True click probability of what is shown", subtitle=f"while tastes turn by {90 * report['drift']:g} degrees")
    intervals = [i for i in report["intervals"] if i["requests"]]
    end = 60 * report["minutes"]
    ends = [*(i["at"] for i in intervals[1:]), end]
    middle = [(i["at"] + e) / 2 for i, e in zip(intervals, ends, strict=True)]
    for n, name in enumerate(CURVES):
        axes.plot(middle, [i[name] for i in intervals], color=colour(n), linewidth=2, label=NAMES[name])
    if "retrained" in report:
        axes.hlines(report["retrained"]["utility"], report["last"]["from"], end, color=INK, linewidth=2, linestyle=(0, (2, 1)),
                    label=NAMES["retrained"])  # fmt: skip
    axes.set_xlabel("seconds")
    axes.set_ylim(bottom=0)
    legend_below(axes, 3)
    return save(figure, path)


def freshness(seconds: Sequence[float], path: Path) -> Path:
    """A histogram, with median and p99."""
    figure, axes = canvas("From an event to its effect", subtitle="the oldest event that a state is the first to know of, until it answers")
    axes.hist(seconds, bins=min(40, max(5, len(seconds) // 4)), color=colour(0), alpha=0.88)
    for q, name in ((0.5, "median"), (0.99, "p99")):
        at = float(np.quantile(seconds, q))
        axes.axvline(at, color=MUTED, linestyle=":", linewidth=1.4)
        axes.annotate(f"{name} {at:.1f} s", (at, 1), xycoords=("data", "axes fraction"), xytext=(4, -4 if q < 0.9 else -18),
                      textcoords="offset points", va="top", fontsize=9, color=MUTED)  # fmt: skip
    axes.set_xlim(0, 1.2 * max(seconds))
    axes.set_xlabel("seconds")
    axes.set_ylabel("published states")
    return save(figure, path)


def _lead(report: Report) -> str:
    gain = report["last"]["gain"]
    return (f"{report['users']:,} users, {report['items']:,} items, {report['rate']:g} requests a second. In the last fifth of the time, "
            f"learning online shows {gain:+.1%} true clicks against the model that stayed as it was.")  # fmt: skip
