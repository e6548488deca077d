"""Does learning from the whole cascade make a pre-ranker agree with the truth? Simulated requests, whose truth is known.

    python -m benchmarks.cascade_agreement [--seeds 3] [--impressions 150000]

One world a seed (`prerank/datasets/simulated.py`): a request recalls some 270 distinct candidates, 200 come to pre-ranking, 100 to
ranking, 50 are shown. The log has what a real one has: clicks of what was shown, and the ranking model's scores of what it was asked
about: the true probabilities with an error of `ERROR` logits, another for every candidate. Each backbone is trained once on impressions
and once on lists by the hybrid objective, on the same rows, its epoch chosen by AUC on validation impressions, and asked about all
candidates of the test requests. Judged is against the true probabilities: overlap@K, regret@K and Kendall's tau with 99 % intervals and
paired differences over requests, and AUC on test impressions.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks import record
from prerank.batch import Stage
from prerank.cli.pairs import Pairs
from prerank.config import Config, Data
from prerank.consistency import Scored, Settings, clean, report
from prerank.datasets import resolve
from prerank.datasets.cascade import DAY_MS, sigmoid
from prerank.datasets.recipe import notes
from prerank.datasets.world import SCALE, angle_at, turned
from prerank.run import Run, train
from prerank.training import predict

LIST, AT, LEVEL = 50, (20, 100), 0.99
ERROR = 1.0
BACKBONES: dict[str, dict[str, Any]] = {
    "RankTower": {"name": "ranktower", "hidden": [64], "heads": 2, "head_width": 16},
    "DSSM": {"name": "dssm", "hidden": [64], "width": 32},
}
IMPRESSIONS: list[dict[str, Any]] = [{"loss": "logloss"}]
LISTS = {"impression": "all", "ranking": "all", "pre_ranking": 20, "recall": 20, "random": 10}
HYBRID: list[dict[str, Any]] = [
    {"loss": "logloss", "stages": ["impression"]},
    {"loss": "distillation", "kind": "softmax", "stages": ["impression", "ranking"], "weight": 0.05},
    {"loss": "softsort", "stages": ["impression", "ranking", "pre_ranking"], "weight": 0.05},
    {"loss": "am_rankmax", "stages": ["impression", "ranking", "pre_ranking", "recall", "random"], "impressed": 1.0, "weight": 0.1},
]
SHOWN = [term | ({"stages": ["impression"]} if term["loss"] == "distillation" else {}) for term in HYBRID]
PRE_RANKERS = {  # backbone, objective on lists
    "RankTower": ("RankTower", HYBRID), "DSSM": ("DSSM", HYBRID), "DSSM, scores of impressions alone": ("DSSM", SHOWN),
}  # fmt: skip
METRICS = (*(f"{name}@{k}" for k in AT for name in ("overlap", "regret")), "kendall")


def cascade(folder: Path, impressions: int, seed: int) -> tuple[Data, pl.DataFrame]:
    """The log of a world with all its candidates, and the same rows with their true probabilities."""
    options = {"users": 1000, "items": 2000, "impressions": impressions, "list_size": LIST, "candidates": True, "drift": 0.0, "seed": seed}
    found = resolve(Data(recipe="simulated", options=options))
    tables = Path(found.log or "").parent
    shown = pl.read_parquet(tables / "log.parquet").with_columns(pl.lit(int(Stage.IMPRESSION), pl.Int8).alias("stage"))
    request = shown.select("request_id", "scene", "hour").unique("request_id")
    others = pl.read_parquet(tables / "candidates.parquet").join(request, on="request_id", how="inner")
    shown = shown.select("request_id", "user_id", "item_id", "time_ms", "scene", "hour", "click", "stage")
    log = pl.concat([shown, others], how="diagonal").with_columns(pl.col("stage").cast(pl.Int64))
    log = log.with_columns(pl.Series("truth", sigmoid(_utility(tables, log)))).sort("time_ms", "request_id", "stage")
    error = ERROR * np.random.default_rng([seed, 1]).standard_normal(len(log))
    truth = log["truth"].to_numpy()
    opinion = sigmoid(np.log(truth / (1 - truth)) + error)
    log = log.with_columns(pl.when(pl.col("stage") <= int(Stage.RANKING)).then(pl.Series(opinion)).alias("rank_score"))
    log.drop("truth").write_parquet(folder / "log.parquet")
    settings: dict[str, Any] = {"log": str(folder / "log.parquet"), "stage": {"column": "stage"}, "teacher": {"column": "rank_score"},
                                "labels": {"click": {"column": "click"}}, "users": found.users, "items": found.items}  # fmt: skip
    return Data.model_validate({"recipe": "simulated", "options": options} | settings), log


def _utility(tables: Path, log: pl.DataFrame) -> np.ndarray:
    """True logits of a click [n]."""
    said = notes(tables)
    users, items = pl.read_parquet(tables / "truth_users.parquet"), pl.read_parquet(tables / "truth_items.parquet")
    user, item = log["user_id"].to_numpy() - 1, log["item_id"].to_numpy() - 1
    at = (log["time_ms"].to_numpy() - said["start_ms"]) / (said["options"]["days"] * DAY_MS)
    now = turned(users["vector"].to_numpy()[user], angle_at(at, said["options"]["drift"]))
    taste = SCALE * np.einsum("rk,rk->r", now, items["vector"].to_numpy()[item])
    context = np.asarray(said["scene_bias"])[log["scene"].to_numpy()] + np.asarray(said["hour_bias"])[log["hour"].to_numpy()]
    found: np.ndarray = taste + users["bias"].to_numpy()[user] + items["bias"].to_numpy()[item] + context + said["click_intercept"]
    return found


def fitted(folder: Path, data: Data, model: dict[str, Any], objective: list[dict[str, Any]], lists: bool, seed: int) -> Run:
    """A pre-ranker trained on impressions, or on lists of all stages; the epoch is chosen by AUC on validation impressions."""
    training: dict[str, Any] = {"epochs": 8, "patience": 2, "batch_size": 1024, "seed": seed, "threads": 1, "average": 0.99,
                                "optimizer": {"lr": 2e-3}}  # fmt: skip
    if lists:
        training |= {"batch_size": 20, "lists": {"by": "request", "max_length": 200, "stages": LISTS}}
    settings = {"data": data, "model": model, "objective": objective, "training": training, "output": str(folder)}
    return train(Config.model_validate(settings))[0]


def logits(run: Run, rows: pl.DataFrame) -> np.ndarray:
    """Click logits of rows [n]."""
    pairs = Pairs(run.dataset, run.config.data, rows.columns)
    parts = [rows[i : i + (1 << 15)].select(pairs.needed()) for i in range(0, len(rows), 1 << 15)]
    return np.concatenate([predict(run.model, [pairs.batch(part, str)], torch.device("cpu"))[0][:, 0] for part in parts])


def compared(rows: pl.DataFrame, hybrid: np.ndarray, impressions: np.ndarray) -> dict[str, Any]:
    """What `prerank consistency` says of two pre-rankers' logits, the truth being the ranking model."""
    s, against = hybrid.astype(np.float64), impressions.astype(np.float64)
    scored = clean(Scored(request=rows["request_id"].to_numpy(), s=s, t=rows["truth"].to_numpy(), against=against, s_worth=sigmoid(s),
                          against_worth=sigmoid(against), stage=rows["stage"].to_numpy(),
                          names=("hybrid", "truth", "impressions")))  # fmt: skip
    found = report(scored, Settings(AT, level=LEVEL))
    return {"requests": found["requests"], "per_request": found["per_request"],
            "hybrid": {m: found["metrics"][m] for m in METRICS}, "impressions": {m: found["against"]["metrics"][m] for m in METRICS},
            "difference": {m: found["against"]["difference"][m] for m in METRICS}}  # fmt: skip


def measured(seed: int, impressions: int) -> dict[str, Any]:
    """{pre-ranker: record} of one world."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        data, log = cascade(folder, impressions, seed)
        found = {}
        plain = {name: fitted(folder / f"{name}-impressions", data, model, IMPRESSIONS, False, seed) for name, model in BACKBONES.items()}
        for name, (backbone, objective) in PRE_RANKERS.items():
            hybrid = fitted(folder / f"{name}-hybrid", data, BACKBONES[backbone], objective, True, seed)
            runs = {"hybrid": hybrid, "impressions": plain[backbone]}
            dataset = runs["hybrid"].dataset
            test = log[np.sort(np.asarray(dataset.rows("test", None)))]
            scores = {way: logits(run, test) for way, run in runs.items()}
            found[name] = compared(test, scores["hybrid"], scores["impressions"])
            found[name]["auc"] = {way: run.evaluate("test", resamples=0)["click"].auc for way, run in runs.items()}
            said = (f"{m} {found[name]['impressions'][m]['value']:.4f} -> {found[name]['hybrid'][m]['value']:.4f}" for m in METRICS)
            print(f"seed {seed}, {name}: AUC {found[name]['auc']}, {', '.join(said)}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--impressions", type=int, default=150_000)
    parser.add_argument("--out", type=Path, default=Path("results/cascade-agreement.json"))
    given = parser.parse_args()
    results = {str(seed): measured(seed, given.impressions) for seed in range(given.seeds)}
    record.write(given.out, benchmark="cascade_agreement", seed=0, results=results, level=LEVEL, error=ERROR, hybrid=HYBRID, lists=LISTS)


if __name__ == "__main__":
    main()
