"""Gradients of a group are those of the mean over the rows of all, however they are dealt; running statistics likewise."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from prerank.config import Optimizer as Settings
from prerank.config import ParameterGroup
from prerank.layers.embedding import IdVectors
from prerank.store import EmaCache, MemoryStore
from prerank.training.optimizer import Optimizer
from prerank.training.together import Group, GroupError, launched

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["prerank.training", "torch._dynamo", "torch.distributed"])
WORLD = 3
ROWS = (3, 0, 1)  # of the processes


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dense, self.one, self.unused = nn.Linear(3, 2), nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(5))
        self.ids, self.quiet = IdVectors(6, "id", 2), IdVectors(6, "id", 2)
        self.norm = nn.BatchNorm1d(2)
        self.cache = EmaCache(MemoryStore(4, 2))


def made() -> tuple[Model, Optimizer]:
    model = Model()
    groups = [ParameterGroup(match="ids*", lr=0.1, rowwise=True), ParameterGroup(match="quiet*", lr=0.1, rowwise=True)]
    return model, Optimizer(model, Settings(groups=groups), {"id": torch.ones(6)})


def gradients(model: Model, rank: int) -> None:
    """What backward leaves behind in a process; the second has no rows."""
    random = torch.Generator().manual_seed(rank)
    for p in model.dense.parameters():
        p.grad = torch.randn(p.shape, generator=random)
    if rank == 2:
        model.one.grad = torch.randn(4, generator=random)
    rows = torch.tensor([[1, 4, 1], [0, 0, 0], [4, 5, 2]][rank])
    model.ids.table.grad = torch.sparse_coo_tensor(rows.unsqueeze(0), torch.randn(3, 2, generator=random), (6, 2), check_invariants=True)


def process(rank: int, port: int, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with Group.joined("cpu") as group:
        model, optimizer = made()
        if ROWS[rank]:
            gradients(model, rank)
        loss = group.reduce(optimizer, ROWS[rank], 10.0 * rank)
        said: dict[str, Any] = {"loss": loss, "numbers": group.numbers(rank, -rank), "share": group.share([rank])}
        for statistic in (model.norm.running_mean, model.norm.running_var):
            assert statistic is not None
            statistic.fill_(rank + 1)
        assert model.norm.num_batches_tracked is not None
        model.norm.num_batches_tracked.fill_(rank)
        model.cache.clock.fill_(1_700_000_000_000 + rank)
        group.settle(model, ROWS[rank])
        group.check_same(dict(model.state_dict()))
        try:
            group.check_same({"differs": torch.tensor(float(rank))})
        except GroupError as error:
            said["differ"] = str(error)
        with group.in_turn(), (folder / "turns").open("a") as turns:
            turns.write(str(rank))
        tensors = {n: p.grad.to_dense() for n, p in model.named_parameters() if p.grad is not None}
        save_file({**tensors, **{n: b.clone() for n, b in model.named_buffers()}}, folder / f"{rank}.safetensors")
        (folder / f"{rank}.json").write_text(json.dumps(said))


def test_gradients_are_those_of_the_mean_over_all_rows(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    all_of_them = [FORKS.Process(target=process, args=(rank, port, tmp_path), daemon=True) for rank in range(WORLD)]
    for one in all_of_them:
        one.start()
    for one in all_of_them:
        one.join(60)
    assert [one.exitcode for one in all_of_them] == [0] * WORLD

    expected: dict[str, torch.Tensor] = {}
    for rank, rows in enumerate(ROWS):
        model, _ = made()
        gradients(model, rank)
        for name, p in model.named_parameters():
            if p.grad is not None:
                expected[name] = expected.get(name, torch.zeros(p.shape)) + rows / sum(ROWS) * p.grad.to_dense()
    ends = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(WORLD)]
    for end in ends:
        for name, gradient in expected.items():
            torch.testing.assert_close(end[name], gradient, msg=name)
        assert not {"unused", "quiet.table", "norm.weight"} & set(end), "what has no gradient anywhere has none afterwards"
        assert all(torch.equal(tensor, ends[0][name]) for name, tensor in end.items()), "bit for bit the same"
        assert (end["norm.running_mean"] == 1.5).all(), "(3 x 1 + 1 x 3) / 4"
        assert end["norm.num_batches_tracked"] == WORLD - 1
        assert end["cache.clock"] == 1_700_000_000_000 + WORLD - 1
    said = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(WORLD)]
    assert said[0]["loss"] == said[1]["loss"] == 5.0
    assert said[0]["numbers"] == [[0, 0], [1, -1], [2, -2]]
    assert said[0]["share"] == [[0], [1], [2]]
    assert said[1]["differ"] == "process 1 of 3: weights of the processes differ; go on from the checkpoint (--resume)"
    assert (tmp_path / "turns").read_text() == "012"


def test_alone_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert launched() == (0, 1)
    model, optimizer = made()
    gradients(model, 2)
    before = {n: p.grad.to_dense() for n, p in model.named_parameters() if p.grad is not None}
    with Group.joined("cpu") as group, group.first(), group.in_turn():
        assert group.reduce(optimizer, 7, 0.25) == 0.25
        group.settle(model, 7)
        group.check_same({})
    assert all(torch.equal(p.grad.to_dense(), before[n]) for n, p in model.named_parameters() if p.grad is not None)
