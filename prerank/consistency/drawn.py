"""The page's pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prerank.report import bands, counts, forest

Drawn = dict[str, tuple[Path, str]]  # name -> picture, caption


def draw(record: Mapping[str, Any], folder: Path) -> Drawn:
    """Every picture that the record has numbers for."""
    names = {"s": record["pre_ranker"], **({"against": record["against"]["name"]} if "against" in record else {})}
    return {**_curves(record, names, folder), **_differences(record, folder), **_slices(record, names, folder)}


def _curves(record: Mapping[str, Any], names: Mapping[str, str], folder: Path) -> Drawn:
    settings, curves = record["settings"], record["curves"]
    show, drawn = settings["show"], {}
    level = f"{settings['level']:.0%} interval over requests"
    for kind, x, metric, title, caption in (
        ("overlap", "K", "overlap@K", "Overlap with the ranking model's best K",
         "How many of the ranking model's best K the pre-ranker's best K hold."),
        ("regret", "K", "regret@K", "What is lost by choosing K by the pre-ranker",
         "Share of the ranking scores of the best K that is lost."),
        ("joint_recall", "m, candidates kept by the pre-ranker", f"joint recall@{show}@m", f"How many to keep, to show the best {show}",
         f"Share of the best {show} that are still shown when the pre-ranker keeps m: where the curve is flat, keeping more is waste."),
    ):  # fmt: skip
        series = {name: curves[who][kind] for who, name in names.items() if len(curves[who].get(kind, ())) > 1}
        if series:
            marks = [settings["keep"]] if kind == "joint_recall" else settings["at"]
            path = bands(series, folder / f"{kind}.png", x=x, metric=metric, title=title, subtitle=level, marks=marks)
            drawn[kind] = (path, caption)
    spread = curves.get("histogram")
    if spread:
        k, numbers = spread["k"], {name: spread[who] for who, name in names.items()}
        path = counts(numbers, spread["bins"], folder / "histogram.png", x=f"overlap@{k} of a request", of="requests",
                      title=f"Overlap@{k}, request by request")  # fmt: skip
        drawn["histogram"] = (path, f"How overlap@{k} is spread: a mean may hide requests in which nothing agrees.")
    return drawn


def _differences(record: Mapping[str, Any], folder: Path) -> Drawn:
    if not record.get("against", {}).get("difference"):
        return {}
    name, other = record["pre_ranker"], record["against"]["name"]
    rows = {metric: {"difference": (d["value"], d["low"], d["high"])} for metric, d in record["against"]["difference"].items()}
    path = forest(rows, folder / "difference.png", metric=f"{name} minus {other}", title="Difference, paired by request", line=0.0,
                  subtitle=f"{record['settings']['level']:.0%} interval; less is better for regret")  # fmt: skip
    return {"difference": (path, "Where an interval does not touch the dashed line, these requests tell the two apart.")}


def _slices(record: Mapping[str, Any], names: Mapping[str, str], folder: Path) -> Drawn:
    drawn: Drawn = {}
    for metric in (f"overlap@{k}" for k in record["settings"]["at"]):
        rows: dict[str, dict[str, tuple[float, float, float]]] = {}
        for label, found in {"all": record, **record["slices"]}.items():
            against = found.get("against", {})
            of = {"s": found["metrics"], "against": against.get("metrics", against)}
            row = {name: (m["value"], m["low"], m["high"]) for who, name in names.items()
                   if (m := of[who].get(metric)) and m["low"] is not None}  # fmt: skip
            if row:
                rows[label.partition(" (")[0]] = row
        if len(rows) > 1:
            path = forest(rows, folder / f"slices-{metric.replace('@', '-')}.png", metric=metric, title=f"{metric} by slice")
            drawn[f"slices {metric}"] = (path, f"{metric} in each slice, and of all requests.")
    return drawn
