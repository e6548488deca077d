"""Quality on real data: trains every config of the tables over its seeds and writes mean and deviation.

    python -m benchmarks.accuracy                        all rows; finished ones are not trained again
    python -m benchmarks.accuracy --only ml1m/honest     rows whose config's path contains this
    python -m benchmarks.accuracy --table                only print what results/accuracy.json holds

Each (config, seed) is one training with one thread, chosen on validation, measured on test once. The split's seed stays;
the training's seed varies. Killed at any point, it goes on with the first unfinished training.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import write
from prerank.config import load
from prerank.report import Column, Table, spread
from prerank.run import open_run, train
from prerank.training import console_progress

OUT = Path("results/accuracy.json")
ROWS: dict[str, tuple[int, ...]] = {  # config -> training seeds
    "configs/ml1m/honest-mf.yaml": (0, 1, 2, 3, 4),
    "configs/ml1m/honest-history-mf.yaml": (0, 1, 2, 3, 4),
    "configs/ml1m/honest-dssm.yaml": (0, 1, 2, 3, 4),
    "configs/ml1m/honest-inttower.yaml": (0, 1, 2, 3, 4),
    "configs/ml1m/honest-inttower-idhead.yaml": (0, 1, 2, 3, 4),
    "configs/ml1m/official-inttower.yaml": (1023,),  # one seed, as the tables that it reproduces
    "configs/ml1m/official-dssm.yaml": (1023,),
    "configs/kuairand/dssm.yaml": (0, 1, 2),
    "configs/kuairand/inttower.yaml": (0, 1, 2),
}


def measure(config: str, seed: int) -> dict[str, Any]:
    """Train one config with one seed and measure it on test."""
    output = f"runs/accuracy/{Path(config).parent.name}-{Path(config).stem}-{seed}"
    settings = load(config, [f"training.seed={seed}", "training.threads=1", f"output={output}"])
    folder = Path(settings.output)
    if (folder / "result.json").exists():
        run = open_run(folder)
    else:
        resume = (folder / "checkpoint").exists()
        run, _ = train(settings, resume=resume, overwrite=not resume, progress=console_progress())
    result = json.loads((folder / "result.json").read_text())  # counted over interruptions, so that a collected run says the same
    metrics = {label: m.to_dict() for label, m in run.evaluate("test", resamples=100).items()}
    return {"name": settings.name, "leaky": settings.leaky, "seed": seed, "test": metrics, "validation": result["best"],
            "best_epoch": result["best_epoch"], "parameters": result["parameters"], "rows_per_cpu_second": result["rows_per_cpu_second"],
            "training_cpu_seconds": round(result["rows"] / result["rows_per_cpu_second"], 1)}  # fmt: skip


def table(results: dict[str, dict[str, Any]]) -> Table:
    """One row a config and label."""
    columns = [Column(c) for c in ("model", "label", "AUC", "LogLoss", "GAUC", "seeds", "parameters")]
    found = Table("Test metrics, mean ± std over training seeds", columns)
    for config in ROWS:
        runs = [r for key, r in results.items() if key.startswith(f"{config}#")]
        for label in runs[0]["test"] if runs else ():
            at = {k: spread([r["test"][label][k] for r in runs]) for k in ("auc", "logloss", "gauc")}
            found.add({"model": runs[0]["name"], "label": label, "AUC": at["auc"], "LogLoss": at["logloss"], "GAUC": at["gauc"],
                       "seeds": len(runs), "parameters": runs[0]["parameters"]}, leaky=runs[0]["leaky"])  # fmt: skip
    return found


def known() -> dict[str, Any]:
    """What has been measured so far."""
    found: dict[str, Any] = json.loads(OUT.read_text())["results"] if OUT.exists() else {}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose config's path contains this")
    parser.add_argument("--seeds", type=int, default=None, help="at most so many seeds a row")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    results = known()
    for config, seeds in ROWS.items():
        for seed in () if options.table or options.only not in config else seeds[: options.seeds]:
            key = f"{config}#{seed}"
            if key in results:
                continue
            print(f"\n{key}", file=sys.stderr, flush=True)
            measured = measure(config, seed)
            results = known() | {key: measured}  # another process may have written meanwhile
            write(OUT, benchmark="accuracy", seed=seed, results=results)
    print(table(results).markdown())


if __name__ == "__main__":
    main()
