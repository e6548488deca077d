"""What the walk of docs/cascade.md gives on KuaiRand-Pure, seed by seed: agreement with the ranking model, and AUC, in one record.

    R=runs/cascade/kuairand
    for s in 0 1 2; do
      for way in hybrid impressions; do
        prerank train --config configs/kuairand/ranktower-$way.yaml --set training.seed=$s --set output=$R/ranktower-$way-$s
        prerank eval $R/ranktower-$way-$s
      done
      prerank consistency --run $R/ranktower-hybrid-$s --against $R/ranktower-impressions-$s --ranking $R/ranking.runs/ensemble \\
        --requests 1000 --at 20 --at 100 --level 0.99
    done
    python -m benchmarks.kuairand_agreement

Nothing is trained or scored here: consistency.json and metrics-test.json of the run folders are read.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import record

METRICS = ("overlap@20", "regret@20", "overlap@100", "regret@100", "kendall")


def collected(folder: Path, seed: int) -> dict[str, Any]:
    """One seed: both pre-rankers' metrics, their differences, and AUC on test impressions."""
    hybrid, impressions = (folder / f"ranktower-{way}-{seed}" for way in ("hybrid", "impressions"))
    found = json.loads((hybrid / "consistency.json").read_text())
    aucs = {run.name.split("-")[1]: _auc(run) for run in (hybrid, impressions)}
    return {"requests": found["requests"], "per_request": found["per_request"], "said": found["said"], "level": found["settings"]["level"],
            "hybrid": {m: found["metrics"][m] for m in METRICS}, "impressions": {m: found["against"]["metrics"][m] for m in METRICS},
            "difference": {m: found["against"]["difference"][m] for m in METRICS}, "auc": aucs}  # fmt: skip


def _auc(run: Path) -> float:
    metrics = json.loads((run / "metrics-test.json").read_text())["metrics"]
    found: float = next(iter(metrics.values()))["auc"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/cascade/kuairand"))
    parser.add_argument("--out", type=Path, default=Path("results/kuairand-agreement.json"))
    given = parser.parse_args()
    results = {str(seed): {"RankTower": collected(given.runs, seed)} for seed in range(given.seeds)}
    record.write(given.out, benchmark="kuairand_agreement", seed=0, results=results, level=results["0"]["RankTower"]["level"])


if __name__ == "__main__":
    main()
