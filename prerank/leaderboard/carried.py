"""Rows that were measured elsewhere: a record keeps what it says of trainings that are not on this machine.

A board may take days, and its run folders stay behind on the machine that made them. A row of the record stands while its trainings are the
ones that the board asks for (the same settings, the same seeds) and this machine has fewer of them. Its figures stay; a comparison stays
while both of its sides are what they were. To compare a new row with an old one in pairs, train both here: the same settings and seed
may end elsewhere with other figures, and then nothing that was said of the old ones is said of the new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prerank.leaderboard import summary
from prerank.leaderboard.board import Board
from prerank.leaderboard.summary import Trained

Record = Mapping[str, Any]
FIGURES = ("seeds", "test", "parameters", "user_tower_parameters", "rows_per_second", "rows_per_cpu_second", "rows", "seconds", "epochs",
           "best_epoch", "pool", "pool_said")  # fmt: skip


def labels(trained: Sequence[Trained], before: Record) -> list[str]:
    """Rows of which the record knows more trainings than there are here, all of them the board's own."""
    known = before.get("trainings", {})
    return [t.entry.label for t in trained if len(names := known.get(t.entry.label, ())) > len(t.finished)
            and set(names) <= {folder.name for folder in t.folders.values()}]  # fmt: skip


def row(trained: Trained, board: Board, before: Record) -> dict[str, Any]:
    """What the board says of a row, the record's figures, and the machine that they were measured on."""
    found = next(r for r in before["rows"] if r["label"] == trained.entry.label)
    status = "finished" if len(found["seeds"]) == len(trained.folders) else "partial"
    where = found.get("machine") or {**before["machine"], "torch": before["versions"]["torch"]}
    return summary.named(trained, board) | {k: found[k] for k in FIGURES if k in found} | {"status": status, "machine": where}


def same(record: Record, before: Record) -> set[str]:
    """Rows whose trainings and figures are those of the record before."""
    figures, names = ({r["label"]: r.get("test") for r in one.get("rows", ())} for one in (record, before)), before.get("trainings", {})
    now, then = figures
    return {label for label, known in record["trainings"].items() if names.get(label) == known and now[label] == then.get(label)}


def join(record: dict[str, Any], before: Record) -> None:
    """To the comparisons made here, add those of before whose two sides are the same still."""
    unchanged, kinds = same(record, before), {row["label"]: row["kind"] for row in record["rows"]}
    ways = {"best_other", *(["baseline"] if before.get("baseline") == record["baseline"] else [])}
    record["compared"] = compared(record["compared"], before.get("compared", {}), "auc_of_mean", unchanged, ways, kinds)
    new, old = ({name: {"rows": rows} for name, rows in r.get("compared_in_pool", {}).items()} for r in (record, before))
    record["compared_in_pool"] = {name: of["rows"] for name, of in compared(new, old, "value", unchanged, ways, {}).items()}


def compared(new: Record, before: Record, value: str, unchanged: set[str], ways: set[str], kinds: Mapping[str, str]) -> dict[str, Any]:
    """{name: {"rows": .., "best_two_tower": ..}} of both.

    value   what rows are ordered by ('auc_of_mean');  ways   comparisons of before that still have their meaning
    """
    return {name: _of_one(new.get(name) or {}, before.get(name) or {}, value, unchanged, ways, kinds) for name in {**before, **new}}


def _of_one(new: Record, before: Record, value: str, unchanged: set[str], ways: set[str], kinds: Mapping[str, str]) -> dict[str, Any]:
    old = {label: {k: v for k, v in said.items() if k == value or (k in ways and v["row"] in unchanged)}
           for label, said in before.get("rows", {}).items() if label in unchanged}  # fmt: skip
    rows = {label: old.get(label, {}) | dict(new.get("rows", {}).get(label, {})) for label in {**old, **new.get("rows", {})}}
    order = sorted(rows, key=lambda label: -rows[label][value])
    for label, said in rows.items():
        best = next((other for other in order if other != label), None)
        if said.get("best_other", {}).get("row") != best:
            said.pop("best_other", None)
            kept = old.get(label, {}).get("best_other")
            if kept is not None and kept["row"] == best:
                said["best_other"] = kept
    towers = [label for label in order if kinds.get(label) == "two-tower"]
    return {"rows": {label: rows[label] for label in order}, "best_two_tower": _best(towers[0], new, before, unchanged) if towers else None}


def _best(first: str, new: Record, before: Record, unchanged: set[str]) -> dict[str, Any] | None:
    """The best two-tower's differences to the others, of both records."""
    against: dict[str, Any] = {}
    for found, allowed in ((before, unchanged), (new, None)):
        best = found.get("best_two_tower") or {"row": None, "against": ()}
        if best["row"] == first and (allowed is None or first in allowed):
            against |= {one["row"]: one for one in best["against"] if allowed is None or one["row"] in allowed}
    return {"row": first, "against": sorted(against.values(), key=lambda one: float(one["value"]))} if against else None


def latencies(of: Mapping[str, str], before: Record, cpu: str | None = None) -> dict[str, Any]:
    """The record's latencies of the same trainings; of one processor alone where it is named, as others cannot be compared with it.

    of   {label: its first training}
    """
    known = before.get("latency", {})
    if cpu is not None and known.get("machine", {}).get("cpu") != cpu:
        return {}
    return {label: times for label, times in known.get("rows", {}).items() if known["of"].get(label) == of.get(label)}


def said(rows: Sequence[Record]) -> str:
    """What a page says of them: 'Trained elsewhere, on 2 cores of .., torch ..: MF, DSSM.'; empty without any."""
    of: dict[str, list[str]] = {}
    for one in rows:
        if "machine" in one:
            m = one["machine"]
            of.setdefault(f"{m['cores']} cores of {m['cpu']}, torch {m['torch']}", []).append(one["label"])
    return "\n".join(f"Trained elsewhere, on {machine}: {', '.join(names)}." for machine, names in of.items())
