"""An ablation's JSON -> its tables and pictures: a backbone at a time, both protocols side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prerank.ablation.plan import CONTROL, PLAIN, PROTOCOLS, RANKER
from prerank.report import Column, Spread, Table, bars, forest, spread
from prerank.report.tables import Value

Record = Mapping[str, Any]
SLICES = ("cold users", "cold items")


def quality(record: Record, backbone: str, objective: str) -> Table:
    """AUC, LogLoss, GAUC over seeds in both protocols, and the paired difference to the plain backbone."""
    names = [f"{p} {m}" for p in PROTOCOLS for m in ("AUC", "minus plain", "LogLoss", "GAUC")]
    best = {"AUC": "max", "LogLoss": "min", "GAUC": "max"}
    columns = [Column("variant"), *(Column(n, best=best.get(n.rpartition(" ")[2])) for n in names), Column("seeds")]  # type: ignore[arg-type]
    table = Table(f"{record['title']}: {backbone}, {objective}", columns)
    for row in measured(record, backbone):
        values: dict[str, Value] = {"variant": row["variant"], "seeds": len(row["seeds"])}
        for p in PROTOCOLS:
            values |= {f"{p} {m}": _spread(row[p][objective][m.lower()]) for m in ("AUC", "LogLoss", "GAUC")}
            told = _compared(record, backbone, p).get("auc", {}).get(objective, {}).get(row["variant"], {})
            values[f"{p} minus plain"] = interval(told.get(PLAIN))
        table.add(values)
    return table


def beyond(record: Record, backbone: str, objective: str) -> Table:
    """What is not in the first table: against the control and the ranking model, cold ids, agreement, noisy inputs."""
    noisy = f"AUC lost to noise {record['noise']:g}"
    names = (f"minus '{CONTROL}'", "minus the ranking model", *SLICES, "tau", "tau minus plain")
    table = Table(f"{record['title']}: {backbone}, {objective}, prequential but for the noise",
                  [Column("variant"), *(Column(n) for n in names), Column(noisy)])  # fmt: skip
    found = _compared(record, backbone, "prequential")
    for row in measured(record, backbone):
        of, name = found["auc"][objective].get(row["variant"], {}), row["variant"]
        values: dict[str, Value] = {"variant": name, names[0]: interval(of.get(CONTROL)), names[1]: interval(of.get(RANKER))}
        for part in SLICES:
            told = found["slices"][part]["auc"].get(name)
            values[part] = None if told is None else f"{told['value']:.4f}{_beside(told.get(PLAIN))}"
        tau = found["tau"].get(name, {})
        values |= {"tau": tau.get("value"), "tau minus plain": interval(tau.get(PLAIN))}
        lost = [clean - dirty for clean, dirty in zip(row["frozen"][objective]["auc"], row["noisy"][objective], strict=True)]
        table.add({**values, noisy: _spread(lost)})
    return table


def histories(record: Record, backbone: str) -> Table:
    """What all modules together, and their vectors, add for users of different length of history."""
    names = ("rows", "plain AUC", "minus plain", f"minus '{CONTROL}'")
    slices = _compared(record, backbone, "prequential")["slices"]
    whole = max((r["variant"] for r in measured(record, backbone) if r["variant"] not in (CONTROL, RANKER)), key=lambda v: v.count("+"))
    table = Table(f"{record['title']}: {backbone}, {whole}, prequential", [Column("slice"), *map(Column, names)])
    for part, found in slices.items():
        told = found["auc"].get(whole)
        if told:
            values = (part, found["rows"], found["auc"][PLAIN]["value"], interval(told.get(PLAIN)), interval(told.get(CONTROL)))
            table.add(dict(zip(("slice", *names), values, strict=True)))
    return table


def cost(record: Record) -> Table:
    """What each variant costs, beside its plain backbone.

    A ranking model that was trained in step is counted apart: what the same one took in a replay of its own is taken away.
    """
    columns = [Column("backbone"), Column("variant"), Column("parameters"), Column("extra"), Column("memory", 1, unit="MB"),
               Column("extra FLOPs", 1, unit="%"), Column("p50 ms, k = 1,000", 3), Column("times plain", 2), Column("CPU s", 1),
               Column("without the ranking model", 1), Column("times plain's", 2)]  # fmt: skip
    table = Table(f"{record['title']}: parameters, FLOPs of one user and one item, serving, one pass of training", columns)
    for backbone in backbones(record):
        rows = {row["variant"]: row for row in measured(record, backbone)}
        plain = rows.get(PLAIN)
        if plain is None:
            continue
        apart = spread(rows[RANKER]["cpu_seconds"]).mean if RANKER in rows else None
        for name, row in rows.items():
            ms, plain_ms, seconds = _ms(row), _ms(plain), spread(row["cpu_seconds"]).mean
            own = None if name == CONTROL or (_taught(row) and apart is None) else seconds - (apart or 0.0) * _taught(row)
            values = (backbone, name, row["parameters"], row["parameters"] - plain["parameters"], row["memory_bytes"] / 1e6,
                      100 * (row["flops"] / plain["flops"] - 1) if row["flops"] else None, ms, ms / plain_ms if ms and plain_ms else None,
                      seconds, own, None if own is None else own / spread(plain["cpu_seconds"]).mean)  # fmt: skip
            table.add(dict(zip((c.name for c in columns), values, strict=True)))
    return table


def _taught(row: Mapping[str, Any]) -> bool:
    """A ranking model was trained beside it."""
    return "ranker" in ((row["set"].get("synergy") or {}).get("cms") or {})


def markdown(record: Record) -> str:
    """All tables, with the protocol above and what went wrong below."""
    m = record["machine"]
    parts = [record["protocol"], f"`{record['command']}`, on {m['cores']} cores of {m['cpu']}, torch {record['versions']['torch']}",
             "Differences are of seed-averaged scores, with 99 % bootstrap intervals over users. Cold: at most "
             f"{record['cold']} events before the row; AUC, and the difference to plain. tau: Kendall's, with the ranking model, of each "
             "user's rows."]  # fmt: skip
    for backbone in backbones(record):
        for objective in record["objectives"]:
            parts.append(quality(record, backbone, objective).markdown().strip())
        parts += [table.markdown().strip() for table in (beyond(record, backbone, record["objectives"][0]), histories(record, backbone))]
    parts.append(cost(record).markdown().strip())
    parts += [f"{row['backbone']}, {row['variant']}: {why}" for row in record["rows"] for why in row["why"]]
    return "\n\n".join(parts) + "\n"


def pictures(record: Record, folder: Path) -> Iterator[Path]:
    """Of each backbone its AUCs as bars, and what each variant adds with its interval. The paths that were written."""
    for backbone in backbones(record):
        rows, objective = measured(record, backbone), record["objectives"][0]
        stem = f"ablation-{record['ablation']}-{re.sub(r'[^a-z0-9]+', '-', backbone.lower()).strip('-')}"
        values = {row["variant"]: spread(row["prequential"][objective]["auc"]) for row in rows}
        yield bars(values, folder / f"{stem}.png", metric=f"prequential AUC, {objective}", title=f"{record['title']}: {backbone}",
                   subtitle=f"{_seeds(rows)}; whiskers: deviation over seeds")  # fmt: skip
        gains = {row["variant"]: told for row in rows if (told := dict(_gains(record, backbone, objective, row["variant"])))}
        if gains:
            said = f"{_seeds(rows)}; 99 % bootstrap intervals over users"
            yield forest(gains, folder / f"{stem}-gains.png", metric=f"AUC minus plain's, {objective}", line=0.0, digits=4,
                         title=f"{record['title']}: {backbone}", subtitle=said)  # fmt: skip


def backbones(record: Record) -> list[str]:
    """Labels of those whose plain variant was measured, in the plan's order."""
    return list(dict.fromkeys(row["backbone"] for row in record["rows"] if row["seeds"] and row["variant"] == PLAIN))


def measured(record: Record, backbone: str) -> list[dict[str, Any]]:
    """A backbone's rows that have a seed, in the plan's order."""
    return [row for row in record["rows"] if row["backbone"] == backbone and row["seeds"]]


def interval(difference: Mapping[str, float] | None) -> str | None:
    """'+.0123 (+.0101 .. +.0145)'."""
    if difference is None:
        return None
    return f"{difference['value']:+.4f} ({difference['low']:+.4f} .. {difference['high']:+.4f})"


def _beside(difference: Mapping[str, float] | None) -> str:
    """The same behind a value: what it is more than the plain backbone's."""
    return "" if difference is None else f", {interval(difference)}"


def _gains(record: Record, backbone: str, objective: str, variant: str) -> Iterator[tuple[str, tuple[float, float, float]]]:
    for p in PROTOCOLS:
        told = _compared(record, backbone, p).get("auc", {}).get(objective, {}).get(variant, {}).get(PLAIN)
        if told:
            yield p, (told["value"], told["low"], told["high"])


def _compared(record: Record, backbone: str, protocol: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"auc": {x: {} for x in record["objectives"]}, "tau": {},
                             "slices": {part: {"auc": {}} for part in SLICES}}  # fmt: skip
    found: dict[str, Any] = record["compared"].get(backbone, {}).get(protocol, empty)
    return found


def _ms(row: Mapping[str, Any]) -> float | None:
    found: float | None = ((row.get("latency") or {}).get("1000") or {}).get("p50_ms")
    return found


def _seeds(rows: list[dict[str, Any]]) -> str:
    numbers = sorted({len(row["seeds"]) for row in rows})
    said = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    return f"{said} seed{'s' if numbers[-1] > 1 else ''}"


def _spread(values: list[float | None]) -> Spread | None:
    there = [v for v in values if v is not None and v == v]
    return spread(there) if there else None
