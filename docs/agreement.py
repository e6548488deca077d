"""Tables of docs/ranktower.md, from results/*.json and nothing else; what is not measured yet is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from docs import tables
from prerank.leaderboard.tables import comparison, in_pool, quality
from prerank.report import Column, Table, spread

Record = dict[str, Any]
WAYS = ("impressions", "hybrid")


def ablations(name: str, *, auc: bool = False) -> Callable[[], str]:
    """A board's rows in its pool, before it those of AUC where they are what is read, and what is not run yet."""

    def made() -> str:
        found = tables.record(f"leaderboard-{name}")
        if found is None or not any(row.get("pool") for row in found["rows"]):
            return ""
        missing = [row["label"] for row in found["rows"] if not row.get("pool")]
        shown = [*(of(found, found["objectives"][0]) for of in (quality, comparison) if auc), in_pool(found)]
        parts = [found["protocol"].strip(), f"`{found['command']}`", *(table.markdown().strip() for table in shown)]
        return "\n\n".join(parts + ([f"Not run yet: {', '.join(missing)}."] if missing else []))

    return made


def pools() -> str:
    """The same trainings in two pools."""
    found = tables.record("candidate-pools")
    if found is None:
        return ""
    parts = [f"{found['users']:,} users by lot, the same in both; `{found['command']}`"]
    for pool, metrics in found["results"].items():
        names = list(metrics)
        less = {n: f"full-stage minus it, {n}" for n in names}
        what = "all movies but those shown in train" if pool == "LEAKY" else "all movies but those of train rows of every stage"
        table = Table(f"{pool}: {what}", [Column(n) for n in ("training", *names, *less.values(), "seeds")])
        for row, values in metrics[names[0]]["values"].items():
            apart = {less[n]: _interval(d) for n in names if (d := metrics[n]["full_stage_minus"].get(row))}
            table.add({"training": row, **{n: spread(metrics[n]["values"][row]) for n in names}, **apart, "seeds": len(values)},
                      leaky=found["leaky"] if pool == "LEAKY" else None)  # fmt: skip
        parts.append(table.markdown().strip())
    return "\n\n".join([*parts, _memory(found)])


def _memory(found: Record) -> str:
    """MF with and without candidates, epoch by epoch, in both pools of validation."""
    epochs = [f"epoch {k + 1}" for k in range(len(next(iter(found["memory"].values()))))]
    shown = [e for k, e in enumerate(epochs) if k in (0, 1, 2, 4, 7, len(epochs) - 1)]
    table = Table("MF, recall@100 of validation", [Column(n) for n in ("pool", "training", *shown)])
    for pool in ("ours", "LEAKY"):
        for row, curve in found["memory"].items():
            values = {e: one[f"{pool} recall@100"] for e, one in zip(epochs, curve, strict=True) if e in shown}
            table.add({"pool": pool, "training": row, **values}, leaky=found["leaky"] if pool == "LEAKY" else None)
    return table.markdown().strip()


def agreement(name: str) -> Callable[[], str]:
    """Hybrid against impressions, backbone by backbone: values over seeds, the seeds' intervals of the difference."""

    def made() -> str:
        found = tables.record(name)
        if found is None:
            return ""
        seeds = list(found["results"].values())
        first = next(iter(seeds[0].values()))
        said = f"{first['requests']:,} requests a seed, {first['per_request']['median']:.0f} candidates in the median; `{found['command']}`"
        apart = f"difference, {100 * found['level']:.0f} % intervals of the seeds"
        table = Table("", [Column(c) for c in ("pre-ranker", "metric", "impressions", "hybrid", apart)])
        for backbone in seeds[0]:
            of = [seed[backbone] for seed in seeds]
            for metric in of[0]["difference"]:
                values = {way: spread([one[way][metric]["value"] for one in of]) for way in WAYS}
                table.add({"pre-ranker": backbone, "metric": metric, **values,
                           apart: "; ".join(_interval(one["difference"][metric]) for one in of)})  # fmt: skip
            aucs = {way: spread([one["auc"][way] for one in of]) for way in WAYS}
            table.add({"pre-ranker": backbone, "metric": "AUC, test impressions", **aucs,
                       apart: "; ".join(f"{one['auc']['hybrid'] - one['auc']['impressions']:+.4f}" for one in of)})  # fmt: skip
        return f"{said}\n\n{tables.body(table)}"

    return made


def _interval(d: Record) -> str:
    return f"{d['value']:+.4f} ({d['low']:+.4f} .. {d['high']:+.4f})"


TABLES: dict[str, Callable[[], str]] = {
    "ranktower-ml1m": ablations("ml1m-ranktower"),
    "ranktower-kuairand": ablations("kuairand-ranktower", auc=True),
    "candidate-pools": pools,
    "cascade-agreement": agreement("cascade-agreement"),
    "kuairand-agreement": agreement("kuairand-agreement"),
}
