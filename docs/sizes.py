"""The table of docs/operations.md: what a part of the system needs, from results/*.json; what is not measured yet is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from docs.tables import record

Row = tuple[str, str, str]  # what, figure, the file that has it


def sizes() -> str:
    """What one of each takes."""
    rows = [row for part in (_serving, _hot, _events, _growth, _stores, _together, _online) for row in part()]
    lines = ["| what | takes | measured by |", "|---|---|---|"]
    return "\n".join(lines + [f"| {what} | {figure} | [{file}](../results/{file}.json) |" for what, figure, file in rows])


def _serving() -> Iterator[Row]:
    found = record("scoring_latency") or {"results": []}
    for r in found["results"]:
        if (r["model"], r["dtype"], r["path"]) == ("inttower", "fp32", "ours") and r["k"] in (1000, 10_000):
            yield (f"a request of {r['k']:,} candidates in the scorer, IntTower, fp32",
                   f"{r['p50_us'] / 1000:.2f} ms, p99 {r['p99_us'] / 1000:.2f} ms", "scoring_latency")  # fmt: skip


def _hot() -> Iterator[Row]:
    for r in (record("hot-update") or {"results": []})["results"][-1:]:
        flips = 60 * (r["generations"] + r["deltas"]) / r["seconds"]
        yield (f"a request over HTTP, {r['candidates']} candidates, {r['rate']:.0f} requests a second, {flips:.0f} updates a minute",
               f"{r['flipping']['p50_ms']:.1f} ms, p99 {r['flipping']['p99_ms']:.1f} ms (quiet: {r['quiet']['p99_ms']:.1f})",
               "hot-update")  # fmt: skip


def _events() -> Iterator[Row]:
    found = record("events")
    if found is not None:
        r = found["results"]
        yield "an event in a log", f"{r['bytes_a_message']:,.0f} bytes", "events"
        yield "an impression that waits for its label", f"{r['bytes_a_waiting_impression']:,.0f} bytes", "events"
        yield "label waiting, SQLite to SQLite", f"a CPU for {r['process']['rows_per_cpu_s']:,.0f} rows a second", "events"
        append = r["logs"]["sqlite"]["batch 1000"]["append_per_s"]
        yield "SQLite's log, each append on the disk", f"{append:,.0f} events a second, 1,000 an append", "events"


def _growth() -> Iterator[Row]:
    for kind in ("integers", "text"):
        found = [r for r in (record("growth") or {"results": []})["results"] if r["kind"] == kind]
        if found:
            low, high = min(r["bytes_per_row"] for r in found), max(r["bytes_per_row"] for r in found)
            span = f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"
            yield f"an id of a growing vocabulary, {kind}", f"{span} bytes, and a row of each table", "growth"


def _stores() -> Iterator[Row]:
    for r in (record("store-size") or {"results": []})["results"]:
        yield f"an id's memory (CTS, CMS) of width {r['width']}, {r['store']}", f"{r['bytes_an_id']:.0f} bytes a cache", "store-size"


def _together() -> Iterator[Row]:
    for name, by_processes in (record("together") or {"results": {}})["results"].items():
        for n, r in by_processes.items():
            processes = "" if n == "1" else f", {n} processes that learn together"
            yield f"a trainer, {name}{processes}", f"a CPU for {r['rows_per_cpu_second']:,.0f} rows a second", "together"


def _online() -> Iterator[Row]:
    found: dict[str, Any] = (record("online") or {}).get("results", {})
    if "freshness" in found:
        rate, at = found["freshness"]["events_per_second"], found["freshness"]["seconds_to_in_force"]
        yield f"from an event to a state in force that knows it, {rate:,} events/s", f"{at['p50']:.1f} s, p99 {at['p99']:.1f} s", "online"
    for name, r in found.get("throughput", {}).items():
        if isinstance(r, dict) and "rows_per_cpu_second" in r:
            yield f"the trainer, {name}", f"a CPU for {r['rows_per_cpu_second']:,.0f} rows a second", "online"


TABLES: dict[str, Callable[[], str]] = {"operations-sizes": sizes}
