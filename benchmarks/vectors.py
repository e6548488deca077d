"""Users and items of trained models laid flat by t-SNE (IntTower's figure 9): where the towers put them.

    python -m benchmarks.vectors DSSM=runs/a IntTower=runs/b [--points 800] [--seed 0]

A point is a row of the model's representation; heads are averaged, users' over all layers, so that both sides have one
vector of the same width. Vectors are brought to length 1, users and items of a model are laid flat together.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.manifold import TSNE

from prerank.report import clouds
from prerank.run import Run, open_run

OUT = Path("docs/images/vectors.png")


def flat(run: Run, points: int, seed: int) -> dict[str, np.ndarray]:
    """{"users": [n, 2], "items": [n, 2]} of at most `points` of each. Raises ValueError for a model without vectors."""
    vectors = {"users": _vectors(run, "user", points, seed), "items": _vectors(run, "item", points, seed)}
    both = np.concatenate(list(vectors.values()))
    laid = TSNE(2, init="pca", perplexity=min(30.0, (len(both) - 1) / 3), random_state=seed).fit_transform(both)
    return {"users": laid[: len(vectors["users"])], "items": laid[len(vectors["users"]) :]}


def _vectors(run: Run, side: str, points: int, seed: int) -> np.ndarray:
    """Unit vectors [n, K] of a sample of a side's ids, the first head group's heads averaged."""
    if not hasattr(run.model, "encode"):
        raise ValueError(f"run '{run.folder}': its model is a ranker, which has no vectors")
    of_row = np.asarray(run.dataset.user_row if side == "user" else run.dataset.item_row)
    _, rows = np.unique(of_row, return_index=True)  # a log row of each
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:points])
    with torch.inference_mode():
        groups = run.model.encode(side, run.dataset.columns(side, rows)).groups  # type: ignore[arg-type]
    mean = groups[0].mean(dim=1).numpy()  # [n, K]
    return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER", help="what the picture calls a run, and the run")
    parser.add_argument("--points", type=int, default=800, help="users and items at most, of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    named = (one.partition("=")[::2] for one in options.runs)
    panels = {name: flat(open_run(folder), options.points, options.seed) for name, folder in named}
    print(clouds(panels, options.out, title="Users and items, t-SNE", subtitle="vectors of length 1, heads averaged"))


if __name__ == "__main__":
    main()
