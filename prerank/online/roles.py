"""Who learns from a stream: the two-tower, with a ranking model beside it where CMS has one; or that ranking model in a process of its own.

    two-tower   learns, publishes, and fills the memories of CTS (and of CMS, with the ranking model beside it)
    ranking     learns, and fills the memories of CMS for whoever reads them: trainers of two-towers, and servers

Both are told by one YAML file, so that they agree on what ids and vectors mean.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from prerank import build
from prerank.config import Config, ConfigError, Recall, milliseconds
from prerank.data import Dataset
from prerank.store import EmaCache, History
from prerank.synergy import RankerMemory
from prerank.training.device import device_of
from prerank.training.learner import Learner, Pair
from prerank.training.together import Group

Role = Literal["two-tower", "ranking"]


def pair(config: Config, dataset: Dataset, role: Role, space: str | None, group: Group | None = None) -> Pair:
    """The models of a role with fresh weights. space: of memories outside, see `build.space`; group: who learns together with us. Raises
    ConfigError."""
    assert config.online is not None
    schema, sizes, settings = dataset.schema, dataset.sizes, config.training
    device, history = device_of(settings), _history(config.online.recall)
    objective = build.objective(config.objective, schema, dataset.counts)
    cms = config.synergy.cms if config.synergy else None
    torch.manual_seed(settings.seed)

    def learner(model: nn.Module) -> Learner:
        return Learner(model, dataset.counts, settings, device, 1 if group is None else group.world)

    if role == "ranking":
        assert cms is not None
        taught = build.taught(config.synergy, schema, space, history)
        return Pair(learner(build.beside(cms, schema, sizes)), None, objective, settings, taught, group)
    apart = config.online.ranking == "apart"
    model = build.model(config.model, schema, sizes, config.synergy, space=space, history=history, apart=apart)
    ranker = build.beside(cms, schema, sizes) if cms and cms.ranker and not apart else None
    return Pair(learner(model), None if ranker is None else learner(ranker), objective, settings, group=group)


def check(config: Config, role: Role) -> None:
    """Raise ConfigError for settings that a stream, or this role, cannot do."""
    assert config.online is not None
    schema, synergy = config.data.schema_(), config.synergy
    model: Any = build.check_model(config.model, schema, config.objective, synergy)
    if getattr(model, "remembers", False):
        raise ConfigError("id_history: a stream does not take it: its sums are of the whole of train; set model.id_history to false")
    if config.training.rehearsal:
        raise ConfigError("training.rehearsal: a stream does not take it: rows that were learned from are not kept; set it to 0; "
                          f"got {config.training.rehearsal}")  # fmt: skip
    if config.online.remember < config.training.batch_size:
        raise ConfigError(f"online.remember: must be at least training.batch_size, {config.training.batch_size:,}; "
                          f"got {config.online.remember:,}")  # fmt: skip
    cms = synergy.cms if synergy else None
    if role == "ranking" and config.online.ranking != "apart":
        raise ConfigError("online.ranking: must be apart for a ranking model in a process of its own; got beside, the two-tower's process")
    if config.online.ranking == "apart":
        if synergy is None or cms is None or cms.ranker is None:
            raise ConfigError("online.ranking: apart needs a ranking model, and synergy.cms.ranker names none")
        if synergy.store == "memory":
            raise ConfigError("synergy.store: must lie outside the model for online.ranking apart, lmdb:PATH or redis://..; got memory")
        if config.data.growth:
            raise ConfigError("data.growth: cannot be combined with online.ranking apart: each process would deal rows of its own (ours)")


def check_together(config: Config, processes: int) -> None:
    """Raise ConfigError for settings that several processes cannot do."""
    online, synergy = config.online, config.synergy
    assert online is not None
    if processes == 1:
        return
    if online.partition is not None:
        raise ConfigError(f"online.partition: must be left out with {processes} processes, which share all; got {online.partition}")
    if config.data.growth:
        raise ConfigError(f"data.growth: cannot be combined with {processes} processes: each would deal rows of its own (ours)")
    if synergy is not None and (synergy.cts or synergy.cms) and synergy.store == "memory":
        raise ConfigError(f"synergy.store: must lie outside the model for {processes} processes, lmdb:PATH or redis://..; got memory")
    if online.remember < processes * config.training.batch_size:
        raise ConfigError(f"online.remember: must be at least the rows of {processes} batches, {processes * config.training.batch_size:,}; "
                          f"got {online.remember:,}")  # fmt: skip


def caches(of: Pair) -> list[EmaCache]:
    """Every cache that the pair reads or fills."""
    read = [m for m in of.main.model.modules() if isinstance(m, EmaCache)]
    return read + [memory.cache for memory in of.taught if isinstance(memory, RankerMemory)]


def _history(recall: Recall | None) -> History | None:
    return None if recall is None else History(milliseconds(recall.tick), milliseconds(recall.keep))
