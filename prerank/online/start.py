"""What a trainer of a stream begins with: an earlier run of the same data and model.

    run of `prerank train`, `prerank teach`    its weights
    run of `prerank replay`, `prerank online`  all that it had learned at its end: weights, optimiser, averages, memories; and the ranking
                                               model beside it (CMS), so that remembered vectors keep the meaning of their coordinates
"""

from __future__ import annotations

import re
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from prerank.config import ConfigError
from prerank.online.roles import Role
from prerank.store import Memory, Outside
from prerank.training import checkpoint
from prerank.training.learner import Pair

_HELD = re.compile(r".*?(c[tm]s of (?:user|item))\.caches\.(\d)\.store\.(vectors|counts|last)")  # buffers of a memory in the model


def start(pair: Pair, folder: Path, role: Role) -> None:
    """Raises ConfigError when the run's weights are of another model, StoreError."""
    try:
        found = checkpoint.load(folder / "checkpoint")
        if found is None or not found.part("main"):
            pair.main.begin(load_file(folder / "model.safetensors"))
            return
        held = found.part("main/model")
        kept = set(pair.main.model.state_dict())

        def part(name: str) -> dict[str, Tensor]:
            return {k: v for k, v in found.part(name).items() if k in kept or not _HELD.fullmatch(k)}

        if role == "ranking":
            pair.main.load(lambda name: part(f"beside/{name}"))
        else:
            pair.load(part)
    except (OSError, RuntimeError, KeyError) as error:
        raise ConfigError(f"online.start '{folder}': its weights cannot be taken: {' '.join(str(error).split())[:300]}") from None
    _fill(pair, held)


def begin_outside(pair: Pair, resume: bool, overwrite: bool) -> None:
    """Stores outside that this role fills, opened; a first run begins with empty ones. Raises ConfigError, StoreError."""
    for store in filled(pair):
        store.begin()
        if overwrite:
            store.clear()
        elif len(store) and not resume:
            raise ConfigError(f"synergy.store '{store.address}': '{store.name}' holds {len(store):,} ids already; go on with --resume, "
                              "empty it with --overwrite, or name another place")  # fmt: skip


def filled(pair: Pair) -> list[Outside]:
    """Stores outside that this role fills."""
    return [store for memory in (*getattr(pair.main.model, "memories", ()), *pair.taught) for store in memory.outside()]


def _fill(pair: Pair, held: dict[str, Tensor]) -> None:
    """What the run's model remembered itself goes into stores outside that this role fills, where they are empty."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in held.items():
        if match := _HELD.fullmatch(name):
            found.setdefault(f"prerank {match[1]}" + (", negative" if match[2] == "1" else ""), {})[match[3]] = tensor
    for store in filled(pair):
        if store.name in found and not len(store):
            memory = found[store.name]
            seen = memory["counts"].nonzero().flatten()
            if len(seen):
                store.put(seen, Memory(memory["vectors"][seen], memory["counts"][seen].long(), memory["last"][seen]))
