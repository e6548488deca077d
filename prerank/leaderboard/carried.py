"""Rows that were measured elsewhere: a record keeps what it says of trainings that are not on this machine.

A board may take days, and its run folders stay behind on the machine that made them. A row of the record stands while its trainings are the
ones that the board asks for (the same settings, the same seeds) and this machine has fewer of them. Its figures stay; a comparison stays
while the trainings on both of its sides are the same ones. To compare a new row with an old one in pairs, train both here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prerank.leaderboard.summary import Trained

Record = Mapping[str, Any]


def labels(trained: Sequence[Trained], before: Record) -> list[str]:
    """Rows of which the record knows more trainings than there are here, all of them the board's own."""
    known = before.get("trainings", {})
    return [t.entry.label for t in trained if len(names := known.get(t.entry.label, ())) > len(t.finished)
            and set(names) <= {folder.name for folder in t.folders.values()}]  # fmt: skip


def row(label: str, before: Record) -> dict[str, Any]:
    """The record's row, with the machine that it was measured on."""
    found: dict[str, Any] = next(r for r in before["rows"] if r["label"] == label)
    return found | {"machine": found.get("machine") or {**before["machine"], "torch": before["versions"]["torch"]}}


def compared(new: Record, before: Record, value: str, unchanged: set[str], kinds: Mapping[str, str]) -> dict[str, Any]:
    """Comparisons made here, and those of before whose two sides are unchanged; {name: {"rows": .., "best_two_tower": ..}}.

    value       what rows are ordered by ('auc_of_mean')
    unchanged   rows whose trainings are those of the record before
    """
    return {name: _of_one(new.get(name) or {}, before.get(name) or {}, value, unchanged, kinds) for name in {**before, **new}}


def _of_one(new: Record, before: Record, value: str, unchanged: set[str], kinds: Mapping[str, str]) -> dict[str, Any]:
    old = {label: {k: v for k, v in said.items() if k == value or v["row"] in unchanged}
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


def said(rows: Sequence[Record]) -> str:
    """What a page says of them: 'measured elsewhere: MF, DSSM (2 cores of .., torch ..)'; empty without any."""
    of: dict[str, list[str]] = {}
    for one in rows:
        if "machine" in one:
            m = one["machine"]
            of.setdefault(f"{m['cores']} cores of {m['cpu']}, torch {m['torch']}", []).append(one["label"])
    return "\n".join(f"Trained elsewhere, on {machine}: {', '.join(names)}." for machine, names in of.items())
