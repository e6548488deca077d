"""Processes that learn together: each from rows of its own, all with the same weights, bit for bit.

    with Group.joined(device) as group:            how many there are, torchrun's environment says; without one it is alone
        loss = group.reduce(optimizer, rows, loss)  gradients become those of the mean over the rows of all
        group.settle(model, rows)                   running statistics likewise

What one does, all do, in the same order: whoever has no rows takes part with none. Where one is gone, or does not answer for
`PATIENCE`, the others raise; torchrun then ends them, and starts all of them again where it is told to.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prerank.store import EmaCache
from prerank.training.optimizer import Optimizer

PATIENCE = timedelta(minutes=5)  # one may publish a whole generation in the meantime
START = timedelta(hours=1)  # while the first prepares the data


class GroupError(ValueError):
    """Another process of the group is gone, does not answer, or has other weights."""


def launched() -> tuple[int, int]:
    """Which process this is, of how many: torchrun's environment; (0, 1) without."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class Group:
    """See the module's first lines.

    rank    which one we are, from 0;  world   how many
    talk    torch's group for words, on the CPU;  bulk   for gradients; None: alone
    """

    def __init__(self, rank: int = 0, world: int = 1, talk: Any = None, bulk: Any = None) -> None:
        self.rank, self.world, self._talk, self._bulk = rank, world, talk, bulk

    @classmethod
    @contextmanager
    def joined(cls, device: str) -> Iterator[Group]:
        """The group that the environment names. device: `training.device`; each has a GPU of its own where there are enough (NCCL), else
        gradients go through the CPU (gloo). Raises GroupError."""
        rank, world = launched()
        if world == 1:
            yield cls()
            return
        apart = device != "cpu" and torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", world)) and ":" not in device
        if apart:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)))
        with _heard(rank, world):
            dist.init_process_group("gloo", store=_store(rank, world), rank=rank, world_size=world, timeout=START)
            talk = dist.new_group(timeout=PATIENCE, backend="gloo")
            bulk = dist.new_group(timeout=PATIENCE, backend="nccl") if apart else talk
        try:
            yield cls(rank, world, talk, bulk)
        finally:
            dist.destroy_process_group()

    def numbers(self, *mine: int) -> list[tuple[int, ...]]:
        """What each says, by rank; as many numbers of each. Raises GroupError."""
        if self.world == 1:
            return [mine]
        said = [torch.empty(len(mine), dtype=torch.int64) for _ in range(self.world)]
        with _heard(self.rank, self.world):
            dist.all_gather(said, torch.tensor(mine, dtype=torch.int64), self._talk)
        return [tuple(one.tolist()) for one in said]

    def share(self, mine: Any) -> list[Any]:
        """Objects of each, by rank. Raises GroupError."""
        if self.world == 1:
            return [mine]
        found: list[Any] = [None] * self.world
        with _heard(self.rank, self.world):
            dist.all_gather_object(found, mine, self._talk)
        return found

    def wait(self) -> None:
        """Until all are here. Raises GroupError."""
        if self.world > 1:
            with _heard(self.rank, self.world):
                dist.barrier(self._talk)

    @contextmanager
    def first(self) -> Iterator[None]:
        """The first process does it, however long it takes, then the others do. Raises GroupError."""
        if self.rank:
            self._begin()
        yield
        if not self.rank:
            self._begin()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """One after another, in the order of ranks: what they write in one place does not depend on who is quick. Raises GroupError."""
        for rank in range(self.world):
            if rank == self.rank:
                yield
            self.wait()

    @torch.no_grad()
    def reduce(self, optimizer: Optimizer, rows: int, loss: float) -> float:
        """Gradients of the mean over `rows` rows of ours become those of the mean over the rows of all; the loss likewise.

        Dense ones go as one buffer; of tables that are updated row by row go the rows that have a gradient. A parameter that has no
        gradient anywhere has none afterwards. Somebody must have a row. Raises GroupError.
        """
        if self.world == 1:
            return loss
        apart = {id(p) for p in optimizer.sparse}
        dense = [p for g in optimizer.dense.param_groups for p in g["params"] if id(p) not in apart]
        device = next(p.device for p in (*dense, *optimizer.sparse))
        there = [p.grad is not None for p in dense]
        flat = torch.cat([torch.zeros(p.numel(), device=device) if p.grad is None else p.grad.float().flatten() for p in dense]
                         + [torch.tensor([loss], device=device)])  # fmt: skip
        flat = torch.cat([flat * rows, torch.tensor([*there, rows], dtype=torch.float32, device=device)])
        self._sum(flat)
        flags, every = flat[-1 - len(dense) : -1].tolist(), flat[-1]
        start = 0
        for p, flag in zip(dense, flags, strict=True):
            p.grad = (flat[start : start + p.numel()] / every).view_as(p).to(p.dtype) if flag else None
            start += p.numel()
        if optimizer.sparse:
            self._reduce_tables(optimizer.sparse, rows, every)
        return float(flat[start] / every)

    @torch.no_grad()
    def settle(self, model: nn.Module, rows: int) -> None:
        """Running statistics of BatchNorm become their mean over all processes, weighted by rows (the variance between processes is left
        out, ours); clocks of memories the latest. Raises GroupError."""
        if self.world == 1:
            return
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
        moved: list[Any] = [t for m in norms for t in (m.running_mean, m.running_var)]
        latest: list[Any] = [m.num_batches_tracked for m in norms] + [m.clock for m in model.modules() if isinstance(m, EmaCache)]
        if moved:
            flat = torch.cat([t.flatten() for t in moved] + [moved[0].new_ones(1)]) * rows
            self._sum(flat)
            for t, part in zip(moved, (flat[:-1] / flat[-1]).split([t.numel() for t in moved]), strict=True):
                t.copy_(part.view_as(t))
        if latest:
            for t, times in zip(latest, zip(*self.numbers(*(int(t) for t in latest)), strict=True), strict=True):
                t.fill_(max(times))

    def check_same(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise GroupError unless all have the same tensors, bit for bit."""
        if self.world == 1:
            return
        sums = 0
        for name in sorted(tensors):
            data = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            sums = zlib.crc32(data.data, zlib.crc32(name.encode(), sums))
        if len(set(self.numbers(sums))) > 1:
            raise GroupError(f"process {self.rank} of {self.world}: weights of the processes differ; go on from the checkpoint (--resume)")

    def _reduce_tables(self, tables: Sequence[nn.Parameter], rows: int, every: Tensor) -> None:
        """Row-wise gradients of all, one after another by rank; the optimiser adds those of one row. All tables go at once."""
        held = [None if p.grad is None else p.grad.coalesce() for p in tables]
        counts = self.numbers(*(0 if g is None else g._nnz() for g in held))
        widths = [p[0].numel() for p in tables]
        sizes = [[n * width for n, width in zip(many, widths, strict=True)] for many in counts]  # numbers of each, by rank
        at = every.new_zeros(max(map(sum, counts)), dtype=torch.int64)
        values = every.new_zeros(max(map(sum, sizes)))
        mine = [g for g in held if g is not None]
        if mine:
            at[: sum(counts[self.rank])] = torch.cat([g.indices()[0] for g in mine])
            values[: sum(sizes[self.rank])] = torch.cat([g.values().flatten() for g in mine]).float() * rows
        ats = [one[: sum(many)].split(many) for one, many in zip(self._gather(at), map(list, counts), strict=True)]
        parts = [one[: sum(size)].split(size) for one, size in zip(self._gather(values), sizes, strict=True)]
        for k, p in enumerate(tables):
            index, whole = (torch.cat([of_rank[k] for of_rank in found]) for found in (ats, parts))
            whole = (whole / every).view(-1, *p.shape[1:]).to(p.dtype)
            p.grad = torch.sparse_coo_tensor(index.unsqueeze(0), whole, p.shape, check_invariants=False) if len(index) else None

    def _sum(self, flat: Tensor) -> None:
        moved = self._sent(flat)
        with _heard(self.rank, self.world):
            dist.all_reduce(moved, group=self._bulk)
        if moved is not flat:
            flat.copy_(moved)

    def _gather(self, mine: Tensor) -> list[Tensor]:
        moved = self._sent(mine)
        found = [torch.empty_like(moved) for _ in range(self.world)]
        with _heard(self.rank, self.world):
            dist.all_gather(found, moved, self._bulk)
        return [one.to(mine.device) for one in found]

    def _sent(self, tensor: Tensor) -> Tensor:
        """Where the group for gradients takes it: gloo takes it from the CPU."""
        return tensor.cpu() if self._bulk is self._talk else tensor

    def _begin(self) -> None:
        if self.world > 1:
            with _heard(self.rank, self.world):
                dist.barrier()


def _store(rank: int, world: int) -> Any:
    """Where the processes find each other. torchrun keeps one for all its attempts, so that each gets keys of its own."""
    address, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), int(os.environ.get("MASTER_PORT", "29500"))
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = dist.TCPStore(address, port, world, is_master=not rank and not kept, timeout=START)
    return dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


@contextmanager
def _heard(rank: int, world: int) -> Iterator[None]:
    """What torch says of a process that is gone, as one line."""
    try:
        yield
    except RuntimeError as error:
        why = (str(error).strip().splitlines() or ["?"])[0][:200]
        raise GroupError(f"process {rank} of {world}: another process is gone, or did not answer: {why}") from None
