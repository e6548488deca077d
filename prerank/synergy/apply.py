"""Settings -> a two-tower with CAS in its layers and the memories of CTS and CMS among its fields.

Both memories are fields. The tower is built for a schema with one more feature a memory and side, counts it like any other,
and `Embeddings` makes its field with a module that is attached afterwards, when the width of the towers' vectors is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prerank.config.synergy import Cache, Synergy
from prerank.schema import Feature, Schema
from prerank.store import EmaCache, History, MemoryStore, Outside
from prerank.synergy.cas import cycle
from prerank.synergy.cms import RankerMemory
from prerank.synergy.cts import CrossMemory, last_level_width
from prerank.synergy.field import MemoryField
from prerank.synergy.rows import Side


def widened(schema: Schema, settings: Synergy) -> Schema:
    """The schema with a feature for every memory; no column stands behind it. Raises ValueError for names that are taken."""
    made = [Feature(name=_name(kind, side), side=side, kind="numeric", encoding="raw")
            for kind, cache in _caches(settings) for side in cache.sides]  # fmt: skip
    return Schema(features=(*schema.features, *made), **schema.model_dump(exclude={"features"}))


def apply(model: Any, settings: Synergy, schema: Schema, sizes: Mapping[str, int], hidden_width: int | None,
          space: str | None = None, history: History | None = None, apart: bool = False) -> None:  # fmt: skip
    """Put CAS, CTS and CMS into a two-tower that was built for the widened schema.

    hidden_width   of the vectors that CMS will be given; None without CMS
    space          what ids and vectors of a store outside the model mean; None: there must be none outside
    history        how far back memories can be read; None: they are as they are
    apart          the memories of CMS are filled by somebody else (`teaching`): this model only reads them
    Raises ValueError where a tower has no place for them.
    """
    if settings.cas is not None and settings.cas.cycles:
        for side in settings.cas.sides:
            if not cycle(getattr(model, side), settings.cas):
                without = " besides its input layer" if settings.cas.skip_input else ""
                raise ValueError(f"synergy.cas: the {side} tower has no fully connected layer{without} that could be replaced")
    if any(True for _ in _caches(settings)) and model.embeddings is None:
        raise ValueError("synergy.cts, synergy.cms: need towers that read fields; this model's read ids alone")
    own = len(model.head.groups) - getattr(model.user, "id_groups", 0)
    memories: list[CrossMemory | RankerMemory] = []

    def new(cache: Cache, name: str, rows: int, width: int) -> EmaCache:
        return _cache(settings, cache, name, rows, width, space, history)

    def rows_of(side: Side) -> int:
        return sizes[schema.vocabulary_of(schema[_id(schema, side)])]

    def attach(kind: str, side: Side, caches: list[EmaCache], inputs: str) -> None:
        vocabulary = schema.vocabulary_of(schema[_id(schema, side)])
        field = MemoryField(caches, model.embeddings.width, inputs, vocabulary, rows_of(side))
        model.embeddings.attach(_name(kind, side), _id(schema, side), field)

    if (cts := settings.cts) is not None:
        for side in cts.sides:
            width = last_level_width(model.head.groups, "item" if side == "user" else "user", own)
            names = (_name("cts", side), f"{_name('cts', side)}, negative")[: 1 + cts.negatives]
            caches = [new(cts, name, rows_of(side), width) for name in names]
            attach("cts", side, caches, cts.inputs)
            memories.append(CrossMemory(side, _id(schema, side), caches[0], caches[1] if cts.negatives else None, own))
    if (cms := settings.cms) is not None:
        assert hidden_width is not None, "CMS without the width of its vectors"
        for side in cms.sides:
            one = new(cms, _name("cms", side), rows_of(side), hidden_width)
            attach("cms", side, [one], cms.inputs)
            if not apart:
                memories.append(RankerMemory(side, _id(schema, side), one, cms.column))
    model.memories = tuple(memories)


def teaching(settings: Synergy, schema: Schema, width: int, space: str, history: History | None = None) -> list[RankerMemory]:
    """Memories of CMS for a ranking model that fills them in a process of its own. Raises ValueError for settings of none."""
    if settings.cms is None or settings.cms.ranker is None:
        raise ValueError("synergy.cms.ranker: there is none, and so nothing that a ranking model could fill")
    if settings.store == "memory":
        raise ValueError("synergy.store: must lie outside the model, where another process reads it; got memory")
    found = []
    for side in settings.cms.sides:
        cache = _cache(settings, settings.cms, _name("cms", side), 0, width, space, history)
        found.append(RankerMemory(side, _id(schema, side), cache, None))
    return found


def _cache(settings: Synergy, cache: Cache, name: str, rows: int, width: int, space: str | None, history: History | None) -> EmaCache:
    if settings.store == "memory":
        return EmaCache(MemoryStore(rows, width, history), cache.decay, cache.mode, cache.normalise)
    if space is None:
        raise ValueError(f"synergy.store: '{settings.store}' lies outside the model: only `prerank replay` and `prerank online` fill; "
                         "must be memory")  # fmt: skip
    store = Outside(settings.store, f"prerank {name}", width, space, history)
    return EmaCache(store, cache.decay, cache.mode, cache.normalise)


def _caches(settings: Synergy) -> list[tuple[str, Cache]]:
    given: list[tuple[str, Cache | None]] = [("cts", settings.cts), ("cms", settings.cms)]
    return [(kind, cache) for kind, cache in given if cache is not None]


def _name(kind: str, side: Side) -> str:
    """Of the feature that stands for a memory: no dot, as it becomes a module's name."""
    return f"{kind} of {side}"


def _id(schema: Schema, side: Side) -> str:
    return schema.user_id if side == "user" else schema.item_id
