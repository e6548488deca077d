"""Forward passes of our rankers and of kept libraries' with equal weights: DeepCTR-Torch's whole models, torchrec's cross layers.

    python -m benchmarks.peers.ranker_forward            writes results/ranker_forward.json

The libraries live in an environment of their own, which the first call makes in the cache folder: torch of our version and
NEEDS by pip, then LIBRARIES by `pip install --no-deps` (their wheels ask for other versions). Everything runs in double
precision, so that what remains is rounding. Not compared: torchrec's FactorizationMachine, which takes every number for a
field of width 1; and DeepCTR-Torch's mixture has one gate for all layers, so ours are given equal gates.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import environment, record
from prerank.batch import Batch
from prerank.layers import Cross, CrossMatrix, CrossMixture, CrossVector
from prerank.rankers import RANKERS, Ranker
from prerank.schema import Feature, Schema

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("deepctr-torch==0.3.0", "torchrec==1.8.0", "fbgemm-gpu-cpu==1.8.0")
NEEDS = ("scikit-learn", "tqdm", "requests", "tensordict", "torchmetrics", "pyre-extensions", "iopath")
SIZES = {"user": 60, "age": 9, "item": 80, "brand": 12}
SCHEMA = Schema(
    features=tuple(Feature(name=n, side="user" if n in ("user", "age") else "item") for n in SIZES), user_id="user", item_id="item", width=8
)
PAIRS, CROSS, SEED = 512, 32, 0
DEEP = {"hidden": [24, 16]}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "deepfm": ("deepfm", DEEP), "wide_deep": ("wide_deep", DEEP), "dcn": ("dcn", {"layers": 3, **DEEP}),
    "dcnv2": ("dcnv2", {"layers": 3, **DEEP}), "dcnv2 mixture": ("dcnv2", {"layers": 3, "low_rank": 5, "experts": 4, **DEEP}),
    "autoint": ("autoint", {"layers": 3, "heads": 2, "head_width": 4}),
    "autoint+": ("autoint", {"layers": 3, "heads": 2, "head_width": 4, **DEEP}),
}  # fmt: skip
CROSSES: dict[str, Callable[[], nn.Module]] = {
    "cross vector": lambda: CrossVector(CROSS), "cross matrix": lambda: CrossMatrix(CROSS),
    "cross mixture": lambda: CrossMixture(CROSS, rank=5, experts=4), "cross low rank": lambda: CrossMixture(CROSS, rank=5),
}  # fmt: skip
Arrays = dict[str, np.ndarray]


def ranker(name: str, options: dict[str, Any], ids: torch.Tensor) -> tuple[Arrays, np.ndarray]:
    """Weights by name, with a table for each feature, and logits [P, 1] of one of our models."""
    model: Ranker = RANKERS[name](SCHEMA, SIZES, **options).double().eval()
    draw(model)
    columns = {feature: ids[:, n] for n, feature in enumerate(SIZES)}
    user, item = ({f.name: columns[f.name] for f in SCHEMA.fields(side)} for side in ("user", "item"))  # type: ignore[arg-type]
    rows = torch.arange(PAIRS)
    with torch.no_grad():
        logits = model(Batch(user, item, rows, rows[:, None], torch.zeros(PAIRS, 1, 1), torch.ones(PAIRS, 1, dtype=torch.bool))).logits
    arrays = {n: p.numpy() for n, p in model.state_dict().items() if ".tables." not in n}
    assert model.embeddings is not None
    for kind, embeddings in (("table", model.embeddings), ("wide", model.wide and model.wide.weights)):
        for width, spans in embeddings.spans.items() if embeddings else ():
            table = embeddings.tables[width].detach().numpy()  # type: ignore[union-attr]
            arrays |= {f"{kind}.{feature}": table[first : first + n] for feature, first, n in spans}
    return {**arrays, "ids": ids.numpy()}, logits[:, 0].numpy()


def cross(make: Callable[[], nn.Module]) -> tuple[Arrays, np.ndarray]:
    """Weights by name and the output [P, CROSS] of three cross layers."""
    layers = Cross(3, make).double()
    draw(layers)
    x = torch.randn(PAIRS, CROSS, dtype=torch.float64)
    with torch.no_grad():
        out = layers(x).numpy()
    return {**{n: p.numpy() for n, p in layers.state_dict().items()}, "x": x.numpy()}, out


@torch.no_grad()
def draw(model: nn.Module) -> None:
    """Weights that leave no term small, statistics of BatchNorm that are not the first ones, one gate for all layers."""
    for name, p in model.state_dict().items():
        if p.is_floating_point():
            p.uniform_(0.5, 1.5) if name.endswith("running_var") else p.normal_(0.0, 0.3)
    gates = [m.gate.weight for m in model.modules() if isinstance(m, CrossMixture) and m.gate is not None]
    for gate in gates:
        gate.copy_(gates[0])


def peers() -> Path:
    """The interpreter of the environment that has the libraries. Raises environment.UnavailableError."""
    python = environment.python_with(*NEEDS, name="ranker-peers")
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *LIBRARIES]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise environment.UnavailableError(f"{' '.join(LIBRARIES)} cannot be installed: {done.stdout.strip().splitlines()[-1]}")
    return python


def main() -> None:
    torch.manual_seed(SEED)
    ids = torch.stack([torch.randint(0, rows, (PAIRS,), dtype=torch.int32) for rows in SIZES.values()], dim=1)  # [P, F]
    ours = {case: ranker(name, options, ids) for case, (name, options) in MODELS.items()}
    ours |= {case: cross(make) for case, make in CROSSES.items()}
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder) / "given.npz", Path(folder) / "answer.npz"
        np.savez(given, **{f"{case}/{name}": a for case, (arrays, _) in ours.items() for name, a in arrays.items()})
        command = [str(peers()), "-m", "benchmarks.peers.worker", str(given), str(answer)]
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=sys.stderr)
        with np.load(answer) as file:
            theirs = dict(file)
    versions = {name.removeprefix("version/"): str(theirs.pop(name)) for name in sorted(theirs) if name.startswith("version/")}
    results = []
    for name, found in sorted(theirs.items()):
        library, case = name.split("/")
        expected = ours[case][1]
        assert found.shape == expected.shape, name
        difference = float(np.abs(found - expected).max())
        results.append({"model": case, "library": library, "values": found.size, "max_abs_difference": difference,
                        "largest_value": float(np.abs(expected).max())})  # fmt: skip
        print(f"{library:14} {case:15} largest value {np.abs(expected).max():9.3f}   largest difference {difference:.1e}")
    record.write(ROOT / "results" / "ranker_forward.json", benchmark="peers.ranker_forward", seed=SEED, results=results, peers=versions)


if __name__ == "__main__":
    main()
