"""Pictures of the pages, drawn by the package's own plots from results/*.json; one that is not measured yet is left out."""

from __future__ import annotations

import math
from pathlib import Path

from docs.tables import NAMES, over_seeds, record, runs
from prerank.report import bars, latency

IMAGES = Path(__file__).parent / "images"
PATHS = {"ours": "prerank", "torch eager": "PyTorch", "numpy": "numpy"}


def draw() -> list[Path]:
    """Draw what there are results for."""
    IMAGES.mkdir(exist_ok=True)
    return [path for path in (_latency(), _quality()) if path is not None]


def _latency() -> Path | None:
    found = record("scoring_latency")
    if found is None:
        return None
    models: dict[str, dict[int, tuple[float, float]]] = {}
    for r in found["results"]:
        if r["dtype"] == "fp32" and r["path"] in PATHS and r["model"] == "inttower":
            models.setdefault(f"IntTower, {PATHS[r['path']]}", {})[r["k"]] = (r["p50_us"] / 1e3, r["p99_us"] / 1e3)
        elif r["dtype"] == "fp32" and r["path"] == "ours":
            models.setdefault("DSSM, prerank", {})[r["k"]] = (r["p50_us"] / 1e3, r["p99_us"] / 1e3)
    subtitle = f"user tower, gather and top 100 in process; one thread, {found['items']:,} items of fp32"
    return latency(models, IMAGES / "latency.png", title="One user against k candidates", subtitle=subtitle)


def _quality() -> Path | None:
    configs = [c for c in NAMES if c.startswith("configs/ml1m/honest") and runs(c)]
    if not configs:
        return None
    values = {NAMES[c]: over_seeds(c, "like", "auc") for c in configs}
    subtitle = "honest protocol, test split, mean and deviation over training seeds"
    start = math.floor(100 * min(v.mean for v in values.values()) - 0.5) / 100
    return bars(values, IMAGES / "quality.png", metric="AUC", title="MovieLens-1M", subtitle=subtitle, start=start)
