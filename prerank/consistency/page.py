"""The record for people: Markdown, and one HTML page with its pictures inside.

    write(record, "report")     report/consistency.json, consistency.md, consistency.html
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from prerank.consistency.drawn import draw
from prerank.consistency.words import meaning
from prerank.report import Column, Table, files, html

Record = Mapping[str, Any]
SAYS = "what it says"


def write(record: Record, folder: str | Path) -> list[Path]:
    """JSON, Markdown and HTML; returns the paths."""
    return files.write(folder, "consistency", {"json": json.dumps(record, indent=1), "md": markdown(record), "html": page(record)})


def markdown(record: Record) -> str:
    parts = [f"# {_title(record)}", _lead(record)]
    tested = record.get("thresholds")
    if tested is not None:
        parts.append("\n".join([_verdict(record), *(f"* {t['said']}" for t in tested if not t["held"])]))
    parts += [t.markdown() for t in (metrics(record), *slices(record), *thresholds(record))]
    parts.append("\n".join(f"* {line}" for line in (*record["said"], *_how(record))))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def page(record: Record) -> str:
    """A whole HTML document."""
    parts = [f"<h1>{escape(_title(record))}</h1>", f'<p class="lead">{escape(_lead(record))}</p>', *_box(record)]
    with tempfile.TemporaryDirectory() as folder:
        drawn = draw(record, Path(folder))
        figures = {name: html.picture(path, caption) for name, (path, caption) in drawn.items()}
    parts += ["<h2>Metrics</h2>", html.table(metrics(record, words=False), under=[meaning(m) for m in record["metrics"]])]
    parts += [html.pictures([f for n, f in figures.items() if n.partition(" ")[0] not in ("slices", "difference")])]
    if "difference" in figures:
        parts += ["<h2>Difference</h2>", f'<div class="one">{figures["difference"]}</div>']
    if record["slices"]:
        parts.append("<h2>Slices</h2>")
        parts += [html.pictures([f for n, f in figures.items() if n.startswith("slices")])]
        for table in slices(record):
            parts += [f"<p><b>{escape(table.title)}</b></p>", html.table(table)]
    for table in thresholds(record):
        parts += ["<h2>Thresholds</h2>", html.table(table)]
    parts.append("<h2>How it was measured</h2>")
    parts.append("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in (*record["said"], *_how(record))) + "</ul>")
    return html.page(_title(record), parts)


def metrics(record: Record, *, words: bool = True) -> Table:
    """Every metric, with the other pre-ranker and the difference where there is one; `words`: and what it says."""
    name, level, other = record["pre_ranker"], f"{record['settings']['level']:.0%}", record.get("against")
    columns = [Column("metric"), Column(name), Column(level)]
    if other:
        columns += [Column(other["name"]), Column("difference"), Column(f"{level} of it"), Column("p", digits=3)]
    table = Table(_title(record), [*columns, Column("requests"), *([Column(SAYS)] if words else [])])
    for metric, m in record["metrics"].items():
        row: dict[str, Any] = {"metric": metric, name: m["value"], level: span(m), "requests": m["requests"]}
        if words:
            row[SAYS] = meaning(metric)
        if other:
            d = other["difference"].get(metric)
            row |= {other["name"]: other["metrics"][metric]["value"], "difference": d and d["value"],
                    f"{level} of it": d and span(d, sign=True), "p": d and d["p"]}  # fmt: skip
        table.add(row)
    return table


def slices(record: Record) -> list[Table]:
    """Slices with the same metrics share a table."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for name, found in record["slices"].items():
        kinds.setdefault(tuple(found["metrics"]), []).append(name)
    return [_of_slices(record, names, list(shown)) for shown, names in kinds.items()]


def _of_slices(record: Record, names: list[str], shown: list[str]) -> Table:
    of_items = any(n.startswith("wanted") for n in shown)
    what = "stages' negatives beside the impressions" if shown[0] == "auc" else "items" if of_items else "users"
    table = Table(f"Slices: {what}", [Column("slice"), Column("requests"), Column("candidates"), *(Column(n) for n in shown)])
    for name in names:
        found = record["slices"][name]
        table.add({"slice": name, "requests": found["requests"], "candidates": found["candidates"],
                   **{n: m["value"] for n, m in found["metrics"].items()}})  # fmt: skip
        if "against" in found:
            table.add({"slice": f"… {record['against']['name']}", **{n: m["value"] for n, m in found["against"].items()}})
    return table


def thresholds(record: Record) -> list[Table]:
    if not record.get("thresholds"):
        return []
    table = Table("Thresholds", [Column("metric"), Column("must be"), Column("found", digits=5), Column("holds")])
    for t in record["thresholds"]:
        table.add({"metric": t["metric"], "must be": t["rule"] + (", surely" if t["sure"] else ""), "found": t["value"],
                   "holds": "yes" if t["held"] else "NO"})  # fmt: skip
    return [table]


def span(m: Mapping[str, float | None], *, sign: bool = False) -> str | None:
    """`.123 to .456`, or nothing."""
    return None if m["low"] is None else f"{m['low']:+.4f} to {m['high']:+.4f}" if sign else f"{m['low']:.4f} to {m['high']:.4f}"


def _title(record: Record) -> str:
    return f"Consistency of {record['pre_ranker']} with {record['ranking']}"


def _lead(record: Record) -> str:
    size = record["per_request"]
    each = f"{size['least']:,}" if size["least"] == size["most"] else f"{size['least']:,} to {size['most']:,}, median {size['median']:,.0f}"
    compared = f"; compared with {record['against']['name']} on the same requests" if "against" in record else ""
    return f"{record['requests']:,} requests, {record['candidates']:,} candidates ({each} a request){compared}"


def _verdict(record: Record) -> str:
    tested = record["thresholds"]
    failed = sum(not t["held"] for t in tested)
    return f"Passed: all {len(tested)} thresholds hold." if not failed else f"Failed: {failed} of {len(tested)} thresholds do not hold."


def _box(record: Record) -> list[str]:
    tested = record.get("thresholds")
    if tested is None:
        return []
    failed = [t for t in tested if not t["held"]]
    lines = "".join(f"<br>{escape(t['said'])}" for t in failed)
    return [f'<p class="verdict {"bad" if failed else "good"}"><b>{escape(_verdict(record))}</b>{lines}</p>']


def _how(record: Record) -> list[str]:
    s = record["settings"]
    return [
        f"Intervals: {s['level']:.0%}, percentiles of {s['resamples']:,} bootstrap resamples of whole requests (seed {s['seed']}); "
        "differences are of the same resamples.",
        f"The simulated cascade keeps {s['keep']:,} candidates after pre-ranking and shows {s['show']:,}; RBO looks with p = {s['p']:g}, "
        f"{1 / (1 - s['p']):.3g} places deep on average.",
        "Equal scores of the pre-ranker count against it; equal scores of the ranking model do not. A request with no more than K "
        "candidates has no value at K.",
    ]  # fmt: skip
