"""Tables and pictures of docs/leaderboard.md, from results/leaderboard-*.json and nothing else; what is not measured yet is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from docs import tables
from prerank.leaderboard.tables import markdown, ranked
from prerank.report import Column, Spread, Table, against, bars, latency, pareto, spread

IMAGES = Path(__file__).parent / "images"
HERE = ("ml1m-honest", "ml1m-official-leaky", "kuairand", "ml1m-ablation", "ml1m-layers", "ml1m-heads", "ml1m-head-width")
ELSEWHERE = ("amazon", "taobao-ad", "taobao-behavior", "ali-ccp", "recsys2017")
CURVES = ("MF", "History MF", "DSSM", "IntTower", "RankTower", "DeepFM", "DCN-V2")  # rows of the latency picture: seven colours
Record = dict[str, Any]


def board(name: str) -> Record | None:
    """A board's record, or None."""
    return tables.record(f"leaderboard-{name}")


def tabulated(name: str) -> Callable[[], str]:
    """A board's tables."""

    def made() -> str:
        found = board(name)
        return "" if found is None else markdown(found)

    return made


def elsewhere() -> str:
    """Boards of data sets that are not on this machine: their rows, and what others published."""
    table = Table("", [Column(c) for c in ("data set", "model", "AUC", "published AUC", "published LogLoss", "source")])
    for found in (f for name in ELSEWHERE if (f := board(name)) is not None):
        for row in found["rows"]:
            auc = spread(row["test"][found["objectives"][0]]["auc"]) if row["seeds"] else row["status"]
            table.add({"data set": found["title"], "model": row["label"], "AUC": auc}, leaky=row["leaky"])
        for bar in found["bars"]:
            table.add({"data set": found["title"], "model": bar["label"], "published AUC": bar["auc"],
                       "published LogLoss": bar["logloss"], "source": bar["source"]})  # fmt: skip
    return tables.body(table)


def draw() -> list[Path]:
    """Every picture that there are results for."""
    IMAGES.mkdir(exist_ok=True)
    made = []
    for name, found in ((n, board(n)) for n in HERE):
        if found is not None and any(row["seeds"] for row in found["rows"]):
            made += [picture for make in PICTURES[name] if (picture := make(name, found)) is not None]
    return made


def quality(name: str, found: Record) -> Path:
    """AUC of every row, best first."""
    objective = found["objectives"][0]
    values = {_named(row): spread(row["test"][objective]["auc"]) for row in ranked(found, objective)}
    return bars(values, IMAGES / f"{name}.png", metric=f"AUC, {objective}", title=found["title"], subtitle=_subtitle(found))


def ablation(name: str, found: Record) -> Path:
    """AUC of every row, in the board's order."""
    objective = found["objectives"][0]
    values = {_named(row): spread(row["test"][objective]["auc"]) for row in found["rows"] if row["seeds"]}
    return bars(values, IMAGES / f"{name}.png", metric=f"AUC, {objective}", title=found["title"], subtitle=_subtitle(found))


def head_width(name: str, found: Record) -> Path:
    """AUC against K."""
    return _setting(name, found, "model.head_width", "head width K")


def pareto_front(name: str, found: Record) -> Path | None:
    """AUC against milliseconds at 1,000 candidates."""
    objective = found["objectives"][0]
    points = {
        _named(row): (row["latency"]["1000"]["p50_ms"], spread(row["test"][objective]["auc"]), row["kind"])
        for row in ranked(found, objective)
        if "1000" in (row["latency"] or {})
    }
    if not points:
        return None
    return pareto(points, IMAGES / f"{name}-pareto.png", metric=f"AUC, {objective}", x="milliseconds for 1,000 candidates, p50, one thread",
                  title=f"{found['title']}: quality against latency", subtitle=_subtitle(found))  # fmt: skip


def curves(name: str, found: Record) -> Path | None:
    """Milliseconds against candidates, of a few rows."""
    rows = {row["label"]: row["latency"] for row in found["rows"] if row["label"] in CURVES and "1000" in (row.get("latency") or {})}
    if not rows:
        return None
    times = {label: {int(k): (v["p50_ms"], v["p99_ms"]) for k, v in rows[label].items()} for label in CURVES if label in rows}
    return latency(times, IMAGES / f"{name}-latency.png", title="One user against k candidates",
                   subtitle=f"{found['title']}: exported models, in process, one thread")  # fmt: skip


def training_cost(name: str, found: Record) -> Path:
    """CPU minutes of a training until it stopped."""
    rows = [row for row in found["rows"] if row["seeds"]]
    seconds = {_named(r): [n / max(rate, 1) / 60 for n, rate in zip(r["rows"], r["rows_per_cpu_second"], strict=True)] for r in rows}
    values = {name: spread(of) for name, of in sorted(seconds.items(), key=lambda item: sum(item[1]) / len(item[1]))}
    return bars(values, IMAGES / f"{name}-training.png", metric="CPU minutes until stopped", title=f"{found['title']}: training cost",
                subtitle=_subtitle(found), digits=1, start=0.0)  # fmt: skip


def _setting(name: str, found: Record, key: str, x: str) -> Path:
    objective = found["objectives"][0]
    at: dict[float, Spread] = {float(r["set"][key]): spread(r["test"][objective]["auc"]) for r in found["rows"] if r["seeds"]}
    return against({"IntTower": at}, IMAGES / f"{name}.png", metric=f"AUC, {objective}", x=x, title=found["title"],
                   subtitle=_subtitle(found))  # fmt: skip


def _named(row: Record) -> str:
    return f"{row['label']} (LEAKY)" if row["leaky"] else str(row["label"])


def _subtitle(found: Record) -> str:
    many = sorted({len(row["seeds"]) for row in found["rows"] if row["seeds"]})
    least, most = many[0], many[-1]
    of = f"mean and deviation over {most if least == most else f'{least} to {most}'} training seeds" if most > 1 else "one training seed"
    return f"{'LEAKY protocol; ' if found['leaky'] else ''}test split, {of}"


PICTURES: dict[str, tuple[Callable[[str, Record], Path | None], ...]] = {
    "ml1m-honest": (quality, pareto_front, curves, training_cost), "ml1m-official-leaky": (quality, pareto_front),
    "kuairand": (quality, pareto_front, training_cost), "ml1m-ablation": (ablation,), "ml1m-layers": (ablation,), "ml1m-heads": (ablation,),
    "ml1m-head-width": (head_width,),
}  # fmt: skip
TABLES: dict[str, Callable[[], str]] = {f"leaderboard-{name}": tabulated(name) for name in HERE} | {"leaderboard-elsewhere": elsewhere}
