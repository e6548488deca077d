"""A straightforward IntTower (CIKM 2022), as one writes it from the paper: it stands for the released code.

One nn.Embedding a feature, every row of a batch through both towers, fp32 with torch's default matrix product, Adam, and
torch's DataLoader over a row-wise data set. The model is ours in layers and sizes: Light-SE with residual, 300-300-128 with
BatchNorm, FE-Block after every user layer, H = 2 heads of width 64, sum over user heads of the maximum over item heads.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.baselines.worker import ITEM, USER, Columns, arguments, read, serve

WIDTH, HIDDEN, HEADS, HEAD_WIDTH = 32, (300, 300, 128), 2, 64


class Tower(nn.Module):
    """Embeddings -> Light-SE -> MLP; heads of every layer (user) or of the last one (item)."""

    def __init__(self, features: tuple[str, ...], sizes: dict[str, int], every_layer: bool) -> None:
        super().__init__()
        self.features = features
        tables = {f: nn.Embedding(sizes[f], WIDTH) for f in features}
        for table in tables.values():
            nn.init.normal_(table.weight, std=0.05)
        self.embeddings = nn.ModuleDict(tables)
        self.excite = nn.Linear(len(features), len(features))
        widths = [len(features) * WIDTH, *HIDDEN]
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()) for a, b in itertools.pairwise(widths))
        read = range(len(HIDDEN)) if every_layer else [len(HIDDEN) - 1]
        self.heads = nn.ModuleDict({str(i): nn.Linear(HIDDEN[i], HEADS * HEAD_WIDTH) for i in read})

    def forward(self, columns: dict[str, Tensor]) -> Tensor:
        """Columns [B] or [B, length] -> heads [B, H, K]."""
        fields = torch.stack([self._field(f, columns[f]) for f in self.features], dim=1)  # [B, F, D]
        weights = torch.softmax(self.excite(fields.mean(dim=2)), dim=1)
        x = (fields + fields * weights.unsqueeze(2)).flatten(1)
        heads = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if str(i) in self.heads:
                heads.append(self.heads[str(i)](x).view(-1, HEADS, HEAD_WIDTH))
        return torch.cat(heads, dim=1)

    def _field(self, feature: str, column: Tensor) -> Tensor:
        vectors = self.embeddings[feature](column)
        if column.dim() == 1:
            return vectors
        mask = (column != 0).unsqueeze(2).float()  # [B, length, 1]
        return (vectors * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


class IntTower(nn.Module):
    """Both towers and eq. 8-9, raw products as in the released code, with one bias."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        self.user = Tower(USER, sizes, every_layer=True)
        self.item = Tower(ITEM, sizes, every_layer=False)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, columns: dict[str, Tensor]) -> Tensor:
        """[B] logits."""
        products = torch.bmm(self.user(columns), self.item(columns).transpose(1, 2))  # [B, L*H, H]
        return products.max(dim=2).values.sum(dim=1) + self.bias


class PlainIntTower:
    """The model in a plain training loop."""

    def __init__(self, train: Columns, test: Columns, sizes: dict[str, int], batch_size: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.names = (*USER, *ITEM)
        rows = TensorDataset(*(torch.from_numpy(train[n].astype(np.int64)) for n in self.names), torch.from_numpy(train["label"]))
        self.batches = iter(DataLoader(rows, batch_size, shuffle=True))
        self.model = IntTower(sizes).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.loss = nn.BCEWithLogitsLoss()
        self.test = test

    def train(self, batches: int) -> tuple[int, int]:
        done = rows = 0
        while done < batches:
            try:
                *columns, label = next(self.batches)
            except StopIteration:
                break
            self.optimizer.zero_grad()
            loss = self.loss(self.model(dict(zip(self.names, columns, strict=True))), label)
            loss.backward()
            self.optimizer.step()
            done, rows = done + 1, rows + len(label)
        return done, rows

    def score(self) -> np.ndarray:
        self.model.eval()
        n = len(self.test["label"])
        with torch.no_grad():
            parts = [
                self.model({f: torch.from_numpy(self.test[f][first : first + 16384].astype(np.int64)) for f in self.names}).numpy()
                for first in range(0, n, 16384)
            ]
        return np.concatenate(parts)


def main() -> None:
    options = arguments(__doc__).parse_args()
    serve(lambda: PlainIntTower(*read(options.split), options.batch_size, options.seed))


if __name__ == "__main__":
    main()
