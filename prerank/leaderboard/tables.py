"""A board's JSON -> its tables: quality a label, comparisons, cost. Leaky rows say so in each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prerank.leaderboard import carried
from prerank.metrics import rela_impr
from prerank.report import Column, Spread, Table, spread
from prerank.report.tables import Value

Record = Mapping[str, Any]


def quality(record: Record, objective: str) -> Table:
    """AUC, LogLoss, GAUC over seeds, RelaImpr of the mean AUC; best first, bars and what did not run at the end."""
    baseline = _auc(_row(record, record["baseline"]), objective)
    columns = [Column("model"), Column("kind"), Column("AUC", best="max"), Column("LogLoss", best="min"), Column("GAUC", best="max"),
               Column(f"RelaImpr over {record['baseline']}", 2, unit="%"), Column("seeds")]  # fmt: skip
    table = Table(_title(record, objective), columns)
    rela = columns[5].name
    for row in ranked(record, objective):
        test = row["test"][objective]
        auc = _spread(test["auc"])
        assert auc is not None
        improved = None if baseline is None or row["label"] == record["baseline"] else 100 * rela_impr(auc.mean, baseline)
        values: dict[str, Value] = {"model": row["label"], "kind": row["kind"], "AUC": auc, "LogLoss": _spread(test["logloss"]),
                                    "GAUC": _spread(test["gauc"]), rela: improved, "seeds": len(row["seeds"])}  # fmt: skip
        table.add(values, leaky=row["leaky"])
    for row in record["rows"]:
        if not row["seeds"]:
            table.add({"model": row["label"], "kind": _short(row)}, leaky=row["leaky"])
    return table


def in_pool(record: Record) -> Table:
    """recall@K and ndcg@K over seeds, best first by the first of them; the last one's paired differences. Empty without a pool."""
    rows = [row for row in record["rows"] if row.get("pool")]
    names = list(rows[0]["pool"]) if rows else []
    base, best = f"minus {record['baseline']}'s", "minus the best other's"
    columns = [Column("model"), *(Column(name, best="max") for name in names), *(Column(f"{n} {base}") for n in names[-2:]),
               Column(f"{names[-1]} {best}" if names else best), Column("seeds")]  # fmt: skip
    table = Table(f"{record['title']}, in a pool of {rows[0]['pool_said'] if rows else ''}", columns)
    found = record.get("compared_in_pool", {})
    for row in sorted(rows, key=lambda row: -_mean(row["pool"][names[0]])):
        values: dict[str, Value] = {"model": row["label"], "seeds": len(row["seeds"]), **{n: _spread(v) for n, v in row["pool"].items()}}
        for name in names[-2:]:
            values[f"{name} {base}"] = _interval(found.get(name, {}).get(row["label"], {}).get("baseline"))
        values[f"{names[-1]} {best}"] = _interval(found.get(names[-1], {}).get(row["label"], {}).get("best_other"))
        table.add(values, leaky=row["leaky"])
    return table


def bars(record: Record, objective: str) -> Table:
    """Figures from elsewhere beside the table; empty without any."""
    table = Table("Not ours, to compare with", [Column("model"), Column("AUC"), Column("LogLoss"), Column("source")])
    for bar in record["bars"]:
        if (bar["objective"] or record["objectives"][0]) == objective:
            table.add({"model": bar["label"], "AUC": bar["auc"], "LogLoss": bar["logloss"], "source": bar["source"]})
    return table


def comparison(record: Record, objective: str) -> Table:
    """Paired differences of AUC with their intervals: against the baseline, and against the best other row."""
    names = (f"AUC minus {record['baseline']}'s", "99 % interval", "best other", "AUC minus its", "99 % interval of that")
    table = Table(f"{_title(record, objective)}: paired, over users, of seed-averaged scores", [Column("model"), *map(Column, names)])
    found = record["compared"].get(objective, {}).get("rows", {})
    for row in ranked(record, objective) if found else ():
        base, best = (found.get(row["label"], {}).get(k) for k in ("baseline", "best_other"))
        values: dict[str, Value] = {"model": row["label"]}
        values |= dict(zip(names[:2], _shown(base), strict=True)) if base else {}
        values |= dict(zip(names[2:], (best["row"], *_shown(best)), strict=True)) if best else {}
        table.add(values, leaky=row["leaky"])
    return table


def best_two_tower(record: Record, objective: str) -> Table:
    """The best two-tower against every other row: which it passes, and which it does not."""
    best = record["compared"].get(objective, {}).get("best_two_tower")
    names = ("against", "kind", "AUC minus its", "99 % interval", "verdict")
    table = Table(f"{_title(record, objective)}: {best['row'] if best else 'the best two-tower'} against the others", [*map(Column, names)])
    for one in best["against"] if best else ():
        row = _row(record, one["row"])
        verdict = "passed" if one["low"] > 0 else "not passed: behind" if one["high"] < 0 else "not passed: no difference shown"
        table.add(dict(zip(names, (one["row"], row["kind"], *_shown(one), verdict), strict=True)), leaky=row["leaky"])
    return table


def cost(record: Record) -> Table:
    """Parameters, training speed, and milliseconds of scoring."""
    ks = record["candidates"]
    latencies = [f"k = {k:,}" for k in ks]
    columns = [Column("model"), Column("kind"), Column("parameters"), Column("user tower"), Column("rows/s", 0), Column("rows/CPU-s", 0),
               Column("training", 1, unit="min"), *(Column(name, unit="ms") for name in latencies)]  # fmt: skip
    table = Table(f"{record['title']}: parameters in all and of the user tower, training, p50 / p99 of scoring k candidates", columns)
    for row in ranked(record, record["objectives"][0]):
        at = row.get("latency") or {}
        values: dict[str, Value] = {
            "model": row["label"], "kind": row["kind"], "parameters": row["parameters"], "user tower": row["user_tower_parameters"],
            "rows/s": _mean(row["rows_per_second"]), "rows/CPU-s": _mean(row["rows_per_cpu_second"]),
            "training": _mean([s / 60 for s in row["seconds"]]),
        }  # fmt: skip
        for k, name in zip(ks, latencies, strict=True):
            values[name] = f"{at[str(k)]['p50_ms']:.3f} / {at[str(k)]['p99_ms']:.3f}" if str(k) in at else None
        table.add(values, leaky=row["leaky"])
    return table


def markdown(record: Record) -> str:
    """All tables of a board, with the protocol above and what went wrong below."""
    m = record["machine"]
    parts = [record["protocol"], f"`{record['command']}`, on {m['cores']} cores of {m['cpu']}, torch {record['versions']['torch']}"]
    for objective in record["objectives"]:
        made = [quality(record, objective), bars(record, objective), comparison(record, objective), best_two_tower(record, objective)]
        parts += [table.markdown().strip() for table in made if table.rows]
    if (pool := in_pool(record)).rows:
        parts.append(pool.markdown().strip())
    if any(row["seeds"] for row in record["rows"]):
        parts.append(cost(record).markdown().strip())
    timed = record.get("latency", {}).get("machine", m)
    if timed["cpu"] != m["cpu"]:
        parts.append(f"Scoring was measured on {timed['cores']} cores of {timed['cpu']}.")
    parts += [away] if (away := carried.said(record["rows"])) else []
    parts += [f"{row['label']}: {row['status']}: {why}" for row in record["rows"] for why in row["why"]]
    return "\n\n".join(parts) + "\n"


def ranked(record: Record, objective: str) -> list[dict[str, Any]]:
    """Rows with a measured seed, best mean AUC first."""
    rows = [row for row in record["rows"] if row["seeds"] and objective in row["test"]]
    return sorted(rows, key=lambda row: -(_auc(row, objective) or 0.0))


def _row(record: Record, label: str) -> dict[str, Any]:
    found: dict[str, Any] = next(row for row in record["rows"] if row["label"] == label)
    return found


def _auc(row: Mapping[str, Any], objective: str) -> float | None:
    found = _spread(row.get("test", {}).get(objective, {}).get("auc", ()))
    return None if found is None else found.mean


def _title(record: Record, objective: str) -> str:
    return record["title"] if len(record["objectives"]) == 1 else f"{record['title']}: {objective}"


def _spread(values: Sequence[float | None]) -> Spread | None:
    there = [v for v in values if v is not None]
    return spread(there) if there else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _interval(difference: Mapping[str, float] | None) -> str | None:
    """'+.0123 (.0101 .. .0145)': 99 %, paired, over users, of seed-averaged values."""
    return None if difference is None else "{} ({})".format(*_shown(difference))


def _shown(difference: Mapping[str, float]) -> tuple[str, str]:
    return f"{difference['value']:+.4f}", f"{difference['low']:+.4f} .. {difference['high']:+.4f}"


def _short(row: Mapping[str, Any]) -> str:
    """Why a row has no numbers, in a cell: 'diverged in epoch 2, batch 7: loss is nan'."""
    why = row["why"][0] if row["why"] else ""
    place = why.partition("training diverged in ")[2].partition(";")[0]
    return f"diverged in {place}" if place else str(row["status"])
