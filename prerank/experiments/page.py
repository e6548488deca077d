"""The record for people: tables, a picture a metric over time, and one HTML page.

    write(record, "report")     report/abtest.json, abtest.md, abtest.html
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from prerank.report import Column, Table, files, html
from prerank.report.plots import not_empty
from prerank.report.style import MUTED, canvas, colour, legend, save

Record = Mapping[str, Any]
HOW = (
    "Units are users: rows of one user are not independent. Variances of ratios by the delta method, intervals and p-values normal.",
    "An interval or p-value is right for one look at the end; whoever looks every day and stops at the first good one is wrong more often.",
)


def write(record: Record, folder: str | Path) -> list[Path]:
    """JSON, Markdown and HTML; returns the paths."""
    return files.write(folder, "abtest", {"json": json.dumps(record, indent=1), "md": markdown(record), "html": page(record)})


def markdown(record: Record) -> str:
    parts = [f"# {_title(record)}", verdict(record), *(t.markdown() for t in tables(record)),
             "\n".join(f"* {line}" for line in (*record["said"], *HOW))]  # fmt: skip
    return "\n\n".join(part.strip() for part in parts) + "\n"


def page(record: Record) -> str:
    """A whole HTML document."""
    parts = [f"<h1>{escape(_title(record))}</h1>", f'<p class="lead">{escape(verdict(record))}</p>']
    parts += [html.table(t) for t in tables(record)]
    with tempfile.TemporaryDirectory() as folder:
        metrics = list(record["over_time"] or {})
        drawn = [html.picture(picture(record, metric, Path(folder) / f"{n}.png"), metric) for n, metric in enumerate(metrics)]
    if drawn:
        parts += ["<h2>Over time</h2>", html.pictures(drawn)]
    parts.append("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in (*record["said"], *HOW)) + "</ul>")
    return html.page(_title(record), parts)


def verdict(record: Record) -> str:
    """Whether users were dealt as configured, in a sentence."""
    users, p = record["users"], record["sample_ratio"]["p"]
    dealt = ", ".join(f"{name} {n:,}" for name, n in users.items())
    if record["sample_ratio"]["suspect"]:
        return (f"Sample-ratio mismatch (p = {p:.2g}): {dealt} users are not dealt as configured, so differences may be of the users and "
                "not of the arms. Find out why before anything else is read.")  # fmt: skip
    return f"Users are dealt as configured: {dealt} (p = {p:.2g})."


def tables(record: Record) -> list[Table]:
    """Metrics and, where told, latencies."""
    level = f"{record['level']:.0%}"
    columns = [Column("metric"), Column("arm"), Column("value"), Column("relative"), Column(f"{level} of it"), Column("p")]
    found = Table(f"Arms against {record['control']}", columns)
    for metric, told in record["metrics"].items():
        for name, arm in told["arms"].items():
            row: dict[str, Any] = {"metric": metric, "arm": name, "value": arm["value"]}
            if "relative" in arm:
                r = arm["relative"]
                row |= {"relative": _percent(r["value"]), f"{level} of it": f"{_percent(r['low'])} .. {_percent(r['high'])}",
                        "p": "–" if r["p"] is None else f"{r['p']:.2g}"}  # fmt: skip
            found.add(row)
    return [found] if record["latency"] is None else [found, _latencies(record["latency"], level)]


def picture(record: Record, metric: str, path: Path) -> Path:
    """Relative difference of everything until each moment, with its interval, an arm a colour."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

    figure, axes = canvas(metric, subtitle=f"cumulative, relative to {record['control']}, with {record['level']:.0%} intervals")
    for i, (name, points) in enumerate(not_empty("abtest", record["over_time"][metric]).items()):
        known: Sequence[Mapping[str, float]] = [p for p in points if p["low"] is not None]
        when = [float(date2num(datetime.fromtimestamp(p["ts"] / 1000, UTC))) for p in known]
        axes.fill_between(when, [100 * p["low"] for p in known], [100 * p["high"] for p in known], color=colour(i), alpha=0.18, linewidth=0)
        axes.plot(when, [100 * p["value"] for p in known], color=colour(i), linewidth=2, label=name)
    axes.axhline(0, color=MUTED, linewidth=1, linestyle=":")
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_ylabel("difference (%)")
    legend(axes, "lower right")
    return save(figure, path)


def _latencies(latency: Mapping[str, Any], level: str) -> Table:
    found = Table("Latency", [Column("arm"), Column("requests"), Column("p50", 3), Column(f"{level} of p50"), Column("p99", 3),
                              Column(f"{level} of p99")])  # fmt: skip
    for name, told in latency.items():
        row: dict[str, Any] = {"arm": name, "requests": told["requests"]}
        for q in ("p50", "p99"):
            bounds = told[q]
            row |= {q: bounds["value"], f"{level} of {q}": "–" if bounds["low"] is None else f"{bounds['low']:.3f} .. {bounds['high']:.3f}"}
        found.add(row)
    return found


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.2f} %"


def _title(record: Record) -> str:
    others = ", ".join(name for name in record["arms"] if name != record["control"])
    return f"A/B test: {others} against {record['control']}"
