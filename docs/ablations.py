"""Tables and pictures of docs/cs3.md, from results/ablation-*.json and nothing else; what is not measured yet is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from docs import tables
from prerank.ablation.tables import backbones, beyond, cost, histories, pictures, quality

IMAGES = Path(__file__).parent / "images"
HERE = ("cs3-kuairand", "cs3-ml1m", "cs3-simulated", "cs3-teacher")


def tabulated(name: str) -> Callable[[], str]:
    """What was measured on the first label; the others are in the record's own Markdown."""

    def tables_of() -> str:
        found = _record(name)
        if found is None:
            return ""
        objective = found["objectives"][0]
        parts = [f"{found['protocol']}. `{found['command']}`"]
        for backbone in backbones(found):
            made = quality(found, backbone, objective), beyond(found, backbone, objective), histories(found, backbone)
            parts += [table.markdown() for table in made if table.rows]
        return "\n\n".join(part.strip() for part in parts)

    return tables_of


def costs() -> str:
    """Parameters, memory, FLOPs, milliseconds and CPU seconds of each variant."""
    found = _record("cs3-kuairand")
    return "" if found is None else cost(found).markdown().strip()


def draw() -> list[Path]:
    """Bars and gains of KuaiRand's backbones."""
    IMAGES.mkdir(exist_ok=True)
    found = _record(HERE[0])
    return [] if found is None else list(pictures(found, IMAGES))


def _record(name: str) -> dict[str, Any] | None:
    return tables.record(f"ablation-{name}")


TABLES: dict[str, Callable[[], str]] = {f"ablation-{name}": tabulated(name) for name in HERE} | {"ablation-cost": costs}
