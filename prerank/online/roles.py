"""Who learns from a stream: the two-tower, with a ranking model beside it where CMS has one; or that ranking model in a process of its own.

    two-tower   learns, publishes, and fills the memories of CTS (and of CMS, with the ranking model beside it)
    ranking     learns, and fills the memories of CMS for whoever reads them: trainers of two-towers, and servers

Both are told by one YAML file, so that they agree on what ids and vectors mean.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from prerank import build
from prerank.config import Config, ConfigError, Recall, milliseconds
from prerank.data import Dataset
from prerank.store import EmaCache, History
from prerank.synergy import RankerMemory
from prerank.training.device import device_of
from prerank.training.learner import Learner, Pair

Role = Literal["two-tower", "ranking"]


def pair(config: Config, dataset: Dataset, role: Role, space: str | None) -> Pair:
    """The models of a role with fresh weights. space: of memories outside, see `build.space`. Raises ConfigError."""
    assert config.online is not None
    schema, sizes, settings = dataset.schema, dataset.sizes, config.training
    device, history = device_of(settings), _history(config.online.recall)
    objective = build.objective(config.objective, schema, dataset.counts)
    cms = config.synergy.cms if config.synergy else None
    torch.manual_seed(settings.seed)
    if role == "ranking":
        assert cms is not None
        taught = build.taught(config.synergy, schema, space, history)
        return Pair(Learner(build.beside(cms, schema, sizes), dataset.counts, settings, device), None, objective, settings, taught)
    apart = config.online.ranking == "apart"
    model = build.model(config.model, schema, sizes, config.synergy, space=space, history=history, apart=apart)
    ranker = build.beside(cms, schema, sizes) if cms and cms.ranker and not apart else None
    main = Learner(model, dataset.counts, settings, device)
    return Pair(main, None if ranker is None else Learner(ranker, dataset.counts, settings, device), objective, settings)


def check(config: Config, role: Role) -> None:
    """Raise ConfigError for settings that a stream, or this role, cannot do."""
    assert config.online is not None
    schema, synergy = config.data.schema_(), config.synergy
    model: Any = build.check_model(config.model, schema, config.objective, synergy)
    if getattr(model, "remembers", False):
        raise ConfigError("id_history: a stream does not take it: its sums are of the whole of train; set model.id_history to false")
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


def caches(of: Pair) -> list[EmaCache]:
    """Every cache that the pair reads or fills."""
    read = [m for m in of.main.model.modules() if isinstance(m, EmaCache)]
    return read + [memory.cache for memory in of.taught if isinstance(memory, RankerMemory)]


def _history(recall: Recall | None) -> History | None:
    return None if recall is None else History(milliseconds(recall.tick), milliseconds(recall.keep))
