"""Tables of the pages, from results/*.json and nothing else; a row that is not measured yet is left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from prerank.report import Column, Spread, Table, spread

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"

# What a config is called in a table, and where it comes from; the order is the tables'.
NAMES = {
    "configs/ml1m/honest-mf.yaml": "MF",
    "configs/ml1m/honest-history-mf.yaml": "History MF",
    "configs/ml1m/honest-dssm.yaml": "DSSM",
    "configs/ml1m/honest-inttower.yaml": "IntTower",
    "configs/ml1m/honest-inttower-idhead.yaml": "IntTower + id head",
    "configs/ml1m/official-dssm.yaml": "DSSM, bare cosine",
    "configs/ml1m/official-inttower.yaml": "IntTower",
    "configs/kuairand/dssm.yaml": "DSSM",
    "configs/kuairand/inttower.yaml": "IntTower",
}
PUBLISHED = {"configs/ml1m/official-dssm.yaml": "0.8697 / 0.4559", "configs/ml1m/official-inttower.yaml": "0.8974 / 0.3128"}
PAPERS = (  # model, paper, venue, file
    ("`mf`", "Koren, Bell, Volinsky: Matrix Factorization Techniques for Recommender Systems", "IEEE Computer 2009",
     "prerank/towers/mf.py"),
    ("`history_mf`", "Koren: Factorization Meets the Neighborhood (SVD++), on both sides", "KDD 2008", "prerank/towers/history_mf.py"),
    ("`two_tower_fm`", "Rendle: Factorization Machines, split into two towers", "ICDM 2010", "prerank/towers/two_tower_fm.py"),
    ("`dssm`", "Huang et al.: Learning Deep Structured Semantic Models for Web Search using Clickthrough Data", "CIKM 2013",
     "prerank/towers/dssm.py"),
    ("`inttower`", "Li et al.: IntTower: the Next Generation of Two-Tower Model for Pre-Ranking System", "CIKM 2022",
     "prerank/towers/inttower.py"),
    ("`ranktower`", "Yan, Li: RankTower: A Synergistic Framework for Enhancing Two-Tower Pre-Ranking Model", "arXiv 2024",
     "prerank/towers/ranktower.py"),
    ("`dat`", "Yu, Wang, Feng, Xue: A Dual Augmented Two-tower Model for Online Large-scale Recommendation", "DLP-KDD 2021",
     "prerank/towers/dat.py"),
    ("`hit`", "Yang et al.: HIT Model: A Hierarchical Interaction-Enhanced Two-Tower Model for Pre-Ranking Systems", "CIKM 2025",
     "prerank/towers/hit.py"),
    ("`ihm_dat`", "interpretation: the source is not public (IHM-DAT, named by CS3)", "arXiv 2604.19269, 2026",
     "prerank/towers/ihm_dat.py"),
    ("`rcg`", "interpretation: the source is not public (RCG, named by CS3)", "arXiv 2604.19269, 2026", "prerank/towers/rcg.py"),
)  # fmt: skip


def record(name: str) -> dict[str, Any] | None:
    """results/NAME.json, or None."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def runs(config: str) -> list[dict[str, Any]]:
    """Every measured seed of a config."""
    found = record("accuracy") or {"results": {}}
    return [run for key, run in found["results"].items() if key.partition("#")[0] == config]


def over_seeds(config: str, label: str, metric: str) -> Spread:
    """Mean and deviation of a test metric."""
    return spread([run["test"][label][metric] for run in runs(config)])


def accuracy(prefix: str, *, command: bool) -> Callable[[], str]:
    """A table of the configs whose path starts so: quality over seeds, one row a config and label."""

    def table() -> str:
        rows = [(c, label) for c in NAMES if c.startswith(prefix) and runs(c) for label in runs(c)[0]["test"]]
        several = len({label for _, label in rows}) > 1
        names = [
            "model",
            *(["label"] if several else []),
            "AUC",
            "LogLoss",
            "GAUC",
            "seeds",
            "parameters",
            *(["command"] if command else []),
        ]
        best: dict[str, Any] = {} if several else {"AUC": "max", "LogLoss": "min", "GAUC": "max"}
        found = Table("", [Column(n, best=best.get(n)) for n in names])
        for config, label in rows:
            first = runs(config)[0]
            row: dict[str, Any] = {"model": NAMES[config], "seeds": len(runs(config)), "parameters": first["parameters"]}
            row |= {n: over_seeds(config, label, n.lower()) for n in ("AUC", "LogLoss", "GAUC")}
            row |= ({"label": label} if several else {}) | ({"command": reproduced(config)} if command else {})
            found.add(row, leaky=first["leaky"])
        return body(found)

    return table


def published() -> str:
    """The leaky protocol beside the published figures."""
    found = Table("", [Column(n) for n in ("model", "AUC", "LogLoss", "published AUC / LogLoss", "seeds", "command")])
    for config, theirs in PUBLISHED.items():
        if runs(config):
            row = {"model": NAMES[config], "AUC": over_seeds(config, "like", "auc"), "LogLoss": over_seeds(config, "like", "logloss"),
                   "published AUC / LogLoss": theirs, "seeds": len(runs(config)), "command": reproduced(config)}  # fmt: skip
            found.add(row, leaky=runs(config)[0]["leaky"])
    return body(found)


def overview() -> str:
    """The README's table: both data sets, every model, the leaky row marked."""
    found = Table("", [Column(n) for n in ("data", "model", "AUC", "LogLoss", "seeds")])
    parts = (("MovieLens-1M", "configs/ml1m/honest", "like"), ("MovieLens-1M, official split", "configs/ml1m/official-inttower", "like"),
             ("KuaiRand-Pure, long view", "configs/kuairand", "long_view"))  # fmt: skip
    for data, prefix, label in parts:
        for config in (c for c in NAMES if c.startswith(prefix) and runs(c)):
            row = {"data": data, "model": NAMES[config], "AUC": over_seeds(config, label, "auc"),
                   "LogLoss": over_seeds(config, label, "logloss"), "seeds": len(runs(config))}  # fmt: skip
            found.add(row, leaky=runs(config)[0]["leaky"])
    return body(found)


def models() -> str:
    """Which models there are: paper, venue, file, their rows of the honest board, the command that gives them."""
    board = record("leaderboard-ml1m-honest") or {"rows": []}
    lines = []
    for name, paper, venue, file in PAPERS:
        rows = [r for r in board["rows"] if f"`{r['model']}`" == name and r["seeds"]]
        numbers = "<br>".join(_ours(r) for r in rows)
        commands = "<br>".join(f"`prerank leaderboard configs/leaderboards/ml1m-honest.yaml --only {Path(r['config']).name}`" for r in rows)
        lines.append([name, paper, venue, f"[{file}]({file})", numbers, commands])
    return "\n".join(
        ["| model | paper | venue | file | AUC, MovieLens-1M honest | command |", "|---|---|---|---|---|---|", *map(_row, lines)]
    )


def reproduced(config: str) -> str:
    """The command that gives a config's row."""
    return f"`python -m benchmarks.accuracy --only {config.removeprefix('configs/').removesuffix('.yaml')}.yaml`"


def scoring() -> str:
    """Milliseconds of one request in process: ours whole, its parts, and two baselines."""
    found = record("scoring_latency")
    if found is None:
        return ""
    ks = sorted({r["k"] for r in found["results"]})
    titles = {"inttower": "IntTower H=2", "dssm": "DSSM"}
    table = Table("", [Column("model"), Column("path"), Column("items stored as"), *(Column(f"k = {k:,}") for k in ks)])
    whole = ("ours", "torch eager", "numpy")  # of the parts of a request, one model's are enough
    shown = [r for r in found["results"] if r["path"] in whole or "items" in r["path"] or (r["model"], r["dtype"]) == ("inttower", "fp32")]
    cells = {(r["model"], r["path"], r["dtype"], r["k"]): r for r in shown}
    for model, path, dtype in dict.fromkeys((m, p, d) for m, p, d, _ in cells):
        at = {f"k = {k:,}": _milliseconds(cells[model, path, dtype, k]) for k in ks}
        table.add({"model": titles.get(model, model), "path": path, "items stored as": dtype, **at})
    cpu = ", in brackets p50 of the CPU clock" if _has_cpu(found) else ""
    return f"p50 / p99 in milliseconds{cpu}; {found['items']:,} items, one thread, {where(found)}; `{found['command']}`\n\n{body(table)}"


def scoring_short() -> str:
    """The README's latency table: whole requests only, items stored as fp32."""
    found = record("scoring_latency")
    if found is None:
        return ""
    paths = {"ours": "prerank", "ours, 100,000 items": "prerank, out of 100,000", "torch eager": "the same in PyTorch",
             "numpy": "the same in numpy"}  # fmt: skip
    cells = {(r["model"], r["path"], r["k"]): r for r in found["results"] if r["dtype"] == "fp32" and r["path"] in paths}
    ks = sorted({k for _, _, k in cells})
    title = "p50 / p99 in ms (p50 of CPU time)" if _has_cpu(found) else "p50 / p99 in ms"
    table = Table("", [Column(title), *(Column(f"{k:,} candidates") for k in ks)])
    for model, path in dict.fromkeys((m, p) for m, p, _ in cells):
        name = f"{'IntTower' if model == 'inttower' else 'DSSM'}, {paths[path]}"
        table.add({title: name, **{f"{k:,} candidates": _milliseconds(cells[model, path, k]) for k in ks}})
    return f"{body(table)}\n\nMeasured on {where(found)}: `{found['command']}`."


def training() -> str:
    """Rows per CPU-second against the baselines of the same run."""
    found = record("training_speed")
    if found is None:
        return ""
    columns = ("contender", "batch size", "rows / CPU-second", "test AUC after one epoch", "times the baseline")
    table = Table("", [Column(c) for c in columns])
    for r in found["results"]:
        ratios = ", ".join(f"{a['ratio']:.2f} x {a['baseline']}" for a in r["against"]) or None
        values = (r["contender"], r["batch_size"], r["rows_per_cpu_second"], r["auc"], ratios)
        table.add(dict(zip(columns, values, strict=True)))
    return f"One thread, {where(found)}, baseline {found['rechub']}; `{found['command']}`\n\n{body(table)}"


def memory() -> str:
    """Training under a cap on memory, and the control that must fail under it."""
    found = record("memory")
    if found is None:
        return ""
    r = found["results"]
    columns = ("under the cap", "outcome", "peak MB, no file's", "peak MB, mapped files too", "seconds", "CPU seconds")
    table = Table("", [Column(c, digits=0) for c in columns])
    for name, run in (("`prerank train`, preparation included", r["trained"]), ("control: the folder read at once", r["control"])):
        outcome = "done" if run["status"] == 0 else f"failed with status {run['status']}"
        values = (name, outcome, run["peak_anonymous_mb"], run["peak_total_mb"], run["wall_seconds"], run["cpu_seconds"])
        table.add(dict(zip(columns, values, strict=True)))
    size = f"A Parquet folder of {r['folder_mb']:,} MB ({r['rows']:,} rows) under a cap of {r['cap_mb']:,} MB ({r['cap']})"
    return f"{size}; {where(found)}; `{found['command']}`\n\n{body(table)}"


def where(found: dict[str, Any]) -> str:
    """The machine in words."""
    m = found["machine"]
    torch = found.get("versions", m).get("torch", "")
    return f"{m['cores']} cores of {m['cpu']}, load {m['load']}, torch {torch}"


def list_losses() -> str:
    """What each loss costs on lists, forward and backward."""
    found = record("list-losses")
    if found is None:
        return ""
    rows = [f"| `{name.partition(',')[0]}`{name.partition(',')[1]}{name.partition(',')[2]} | {r['cpu_ms']:.1f} | "
            f"{r['ns_per_candidate'] / 1e3:.2f} | {r['memory_mb']:.0f} |" for name, r in found["results"].items()]  # fmt: skip
    head = ["| loss | CPU ms a batch | us a candidate | MB |", "|---|---|---|---|"]
    note = f"[{found['lists']}, {found['candidates']}] lists; {where(found)}; `python -m benchmarks.list_losses`"
    return "\n".join([*head, *rows, "", note])


def body(table: Table) -> str:
    """A table without its title, or nothing when it has no rows."""
    return table.markdown().partition("\n\n")[2].strip() if table.rows else ""


def _ours(row: dict[str, Any]) -> str:
    value = spread(row["test"]["like"]["auc"])
    number = f"{value.mean:.4f} ± {value.std:.4f}" if value.n > 1 else f"{value.mean:.4f}"
    return f"{number} ({row['label']})" if "+" in row["label"] else number


def _milliseconds(cell: dict[str, float]) -> str:
    cpu = f" ({cell['cpu_p50_us'] / 1e3:.3f})" if "cpu_p50_us" in cell else ""
    return f"{cell['p50_us'] / 1e3:.3f} / {cell['p99_us'] / 1e3:.3f}{cpu}"


def _has_cpu(found: dict[str, Any]) -> bool:
    return all("cpu_p50_us" in r for r in found["results"])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


TABLES: dict[str, Callable[[], str]] = {
    "overview": overview,
    "ml1m-honest": accuracy("configs/ml1m/honest", command=True),
    "ml1m-official": published,
    "kuairand": accuracy("configs/kuairand", command=True),
    "models": models,
    "scoring": scoring,
    "scoring-short": scoring_short,
    "training": training,
    "memory": memory,
    "list-losses": list_losses,
}
