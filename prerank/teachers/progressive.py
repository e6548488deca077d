"""Hidden vectors from one ranker that walks through the log in order of time: each block is annotated before it is learned.

What CMS keeps of an id is a moving average of these vectors (Zhang et al., CS3, section 3.3 has them from a ranking model that is trained
online). So they must all lie in one coordinate system, which folds do not share, and must not know what comes later, which a model
of several epochs does: there is one ranker, one pass, and one moment for every row.

    block 0       no vectors (null): nothing has been learned
    block b > 0   h = hidden(row) by a ranker that has learned the train rows of blocks 0 .. b-1, once each and in this order

Blocks have equal numbers of rows, and rows of one instant are in one block. Validation and test rows are annotated at their time and
never learned. Vocabularies and bins are those of the whole train part: no labels are in them, but derived columns that hold labels
(target_mean) are as everywhere else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prerank import build
from prerank.config import Config, ConfigError
from prerank.data import Dataset, Loader
from prerank.rankers import Ranker
from prerank.training import Optimizer, checkpoint, evaluating, train_step
from prerank.training.device import configure, device_of

Ints = NDArray[np.int64]
VECTORS = "hidden.npy"


def annotate(config: Config, dataset: Dataset, folder: Path, *, blocks: int, say: Callable[[str], None] = lambda line: None) -> Path:
    """The file with the vectors, float32 [R, K], NaN where there is none. Goes on where a killed one stood. Raises ConfigError."""
    folder.mkdir(parents=True, exist_ok=True)
    walk = Walk(config, dataset, folder, blocks)
    start, resumed = time.monotonic(), walk.done
    for block in range(walk.done, len(walk.blocks)):
        walk.annotate(block)
        walk.learn(block)
        done = block + 1 - resumed
        left = (time.monotonic() - start) / done * (len(walk.blocks) - block - 1)
        say(f"hidden vectors: block {block + 1} of {len(walk.blocks)}, about {left:.0f} s left")
    return folder / VECTORS


class Walk:
    """A ranker, where it stands, and what it said; `done` blocks are annotated and learned.

    blocks   [rows of the log] in order of time
    """

    def __init__(self, config: Config, dataset: Dataset, folder: Path, blocks: int) -> None:
        if dataset.ts is None:
            raise ConfigError("hidden vectors: need data.time, as they are made in order of time")
        if blocks < 2:
            raise ConfigError(f"blocks: must be at least 2, as the first has no vectors; got {blocks}")
        if config.training.rehearsal:
            raise ConfigError("training.rehearsal: hidden vectors come of a ranker that learns each row once, and do not take it; "
                              f"got {config.training.rehearsal}")  # fmt: skip
        self.settings, self.dataset, self.folder = config.training, dataset, folder
        configure(self.settings)
        self.device = device_of(self.settings)
        self.objective = build.objective(config.objective, dataset.schema, dataset.counts)
        torch.manual_seed(self.settings.seed)
        model = build.model(config.model, dataset.schema, dataset.sizes)
        if not isinstance(model, Ranker) or model.remembers:
            why = "is no ranker" if not isinstance(model, Ranker) else "has histories, which hold what comes later"
            raise ConfigError(f"hidden vectors: model '{config.model.name}' {why}; take a ranker without id_history")
        self.model = model.to(self.device)
        self.optimizer = Optimizer(self.model, self.settings.optimizer, self._counts(), self.settings.batch_size)
        self.learnable = np.zeros(len(dataset), bool)
        self.learnable[dataset.rows("train")] = True
        self.blocks = by_time(np.asarray(dataset.ts), blocks)
        if len(self.blocks) < 2:
            raise ConfigError("hidden vectors: all rows are of one instant, so that none can be annotated before others are learned")
        self.done = 0
        self.marks = {"fingerprint": dataset.fingerprint, "blocks": blocks,
                      "config": config.model_dump(mode="json", include={"model", "objective", "training"})}  # fmt: skip
        self._resume()

    def annotate(self, block: int) -> None:
        """Write the vectors of a block's rows; none of the first."""
        if block == 0:
            return
        self.model.fill_cold_rows(self._counts())
        rows, at = self.blocks[block], 0
        with evaluating(self.model), torch.inference_mode():
            for batch in Loader(self.dataset, rows, self.settings.eval_batch_size, shuffle="none").epoch(0):
                hidden = self.model(batch.to(self.device)).hidden
                if hidden is None:
                    raise ConfigError("hidden vectors: the model has none; take a ranker with a layer before its logits")
                vectors = hidden[:, 0].float().cpu().numpy()  # [B, K]
                self._out(vectors.shape[1])[rows[at : at + len(vectors)]] = vectors
                at += len(vectors)

    def learn(self, block: int) -> None:
        """One pass over the block's train rows, and a checkpoint."""
        rows = self.blocks[block]
        rows = rows[self.learnable[rows]]
        self.model.train()
        torch.manual_seed(self.settings.seed + block)  # dropout
        for batch in Loader(self.dataset, rows, self.settings.batch_size, seed=self.settings.seed).epoch(block) if len(rows) else ():
            train_step(self.model, self.objective, self.optimizer, batch.to(self.device),
                       precision=self.settings.precision, clip=self.settings.clip)  # fmt: skip
        self.done = block + 1
        if self._vectors is not None:
            self._vectors.flush()
        tensors = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"optimizer/{k}": v for k, v in self.optimizer.tensors().items()}
        checkpoint.save(self.folder / "checkpoint", tensors, {**self.marks, "done": self.done})

    _vectors: np.memmap[Any, Any] | None = None

    def _out(self, width: int) -> np.memmap[Any, Any]:
        """The file, made when the first vectors show their width."""
        if self._vectors is None:
            path = self.folder / VECTORS
            if self.done > 1 and path.exists():
                self._vectors = np.lib.format.open_memmap(path, mode="r+")
            else:
                self._vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(len(self.dataset), width))
                self._vectors[self.blocks[0]] = np.nan
        return self._vectors

    def _resume(self) -> None:
        found = checkpoint.load(self.folder / "checkpoint")
        if found is None:
            return
        if {k: found.state.get(k) for k in self.marks} != self.marks:
            raise ConfigError(f"folder '{self.folder}': its walk was started with other data or settings; --overwrite starts again")
        self.model.load_state_dict(found.part("model"))
        self.optimizer.load_tensors(found.part("optimizer"))
        self.done = found.state["done"]

    def _counts(self) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(np.array(c)) for name, c in self.dataset.counts.items()}


def by_time(ts: Ints, blocks: int) -> list[Ints]:
    """Rows [R] in order of time, in at most so many blocks of about equal length; rows of one instant stay together, in their order.

    >>> [b.tolist() for b in by_time(np.array([3, 1, 2, 2]), 3)]
    [[1], [2, 3], [0]]
    """
    order = np.argsort(ts, kind="stable")
    cuts = np.arange(1, blocks) * len(ts) // blocks
    cuts = np.searchsorted(ts[order], ts[order][cuts])
    return [b for b in np.split(order, np.unique(cuts)) if len(b)]
