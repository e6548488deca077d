"""The measured part of docs/online.md, from results/online.json and results/stream-parity.json: a table, and the picture of freshness."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from docs.pictures import IMAGES
from docs.tables import record
from prerank.report.style import MUTED, canvas, colour, save


def measured() -> str:
    """What was asked of the living system, and found."""
    lines = ["| what | found |", "|---|---|", *(f"| {what} | {figure} |" for what, figure in _rows())]
    return "\n".join(lines) if len(lines) > 2 else ""


def _rows() -> list[tuple[str, str]]:
    found: dict[str, Any] = (record("online") or {}).get("results", {})
    rows = []
    if (r := found.get("freshness")) is not None:
        at = r["seconds_to_in_force"]
        rows.append((f"from the event that made a row ready to a state in force at the server that learned it, {r['events_per_second']:,} "
                     "events a second, label waiting, both trainers and the server on 2 cores",
                     f"median {at['p50']:.1f} s, p99 {at['p99']:.1f} s, at most {r['max']:.0f} s"))  # fmt: skip
    for name, r in found.get("throughput", {}).items():
        rows.append((f"rows a CPU second of a trainer: {name}", f"{r['rows_per_cpu_second']:,}"))
    if (r := found.get("chaos")) is not None:
        killed = ", ".join(f"{name} {n}" for name, n in sorted(r["killed"].items()))
        same = "the same" if r["blended"] == r["blended_never_killed"] else "not the same"
        rows.append((f"{r['rounds']} times kill -9 while events come ({killed}), beside trainers that nobody kills",
                     f"{r['impressions']:,} impressions acknowledged, {r['rows']:,} rows, {r['two-tower']['learned']:,} and "
                     f"{r['ranking']['learned']:,} learned; as many vectors blended into each memory: {same}; AUC of the last rows "
                     f"differs by {abs(r['auc_difference']):.4f}"))  # fmt: skip
    if (r := found.get("lockstep")) is not None:
        rows.append((f"{r['rounds']} times kill -9 of a trainer in lockstep, CS3 whole, memories in LMDB, against a run never killed",
                     f"{r['tensors_that_differ']} of {r['tensors']} tensors and {r['stored_values_that_differ']} of "
                     f"{r['stored_values']:,} stored values differ by a bit"))  # fmt: skip
    for path, r in (record("stream-parity") or {"results": {}})["results"].items():
        rows.append((f"AUC of `{path}`, each row scored before it is learned: `prerank replay`, the log as a stream",
                     f"{r['auc_replay']:.4f}, {r['auc_online']:.4f}"))  # fmt: skip
    return rows


def draw() -> list[Path]:
    """The histogram of freshness."""
    found = (record("online") or {}).get("results", {}).get("freshness")
    if found is None:
        return []
    edges, rows = np.array(found["histogram"]["edges"]), np.array(found["histogram"]["rows"])
    last = int(rows.nonzero()[0].max()) + 2
    subtitle = f"seconds until a row's events are in force at the server, {found['events_per_second']:,} events a second"
    figure, axes = canvas("From an event to its effect", subtitle=subtitle)
    axes.bar(edges[:last], rows[:last] / 1000, width=np.diff(edges)[:last], align="edge", color=colour(0), alpha=0.88)
    for n, name in enumerate(("p50", "p99")):
        at = found["seconds_to_in_force"][name]
        axes.axvline(at, color=MUTED, linestyle=":", linewidth=1.4)
        axes.annotate(f"{name} {at:.1f} s", (at, 1), xycoords=("data", "axes fraction"), xytext=(4, -4 - 14 * n),
                      textcoords="offset points", va="top", fontsize=9, color=MUTED)  # fmt: skip
    axes.set_xlabel("seconds")
    axes.set_ylabel("thousand rows")
    return [save(figure, IMAGES / "online-freshness.png")]


TABLES: dict[str, Callable[[], str]] = {"living-measured": measured}
