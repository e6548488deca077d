"""Requests scored by trained runs: the pre-ranker's, and a ranking model's or the scores that the log has.

    scored = score_runs("runs/ranktower", ranking="runs/teacher", against="runs/dssm", split="test")

Candidates are those of the pre-ranker's section `evaluation` where its config has one, else all that were logged. Every model scores the
very same lists, made from the pre-ranker's data. One whose data encode features otherwise is given its own columns of the same users and
items, where these decide all that it reads (`translate.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prerank.batch import Batch, Stage
from prerank.config import ConfigError, Lists, Take, nearest
from prerank.consistency.scored import Scored, clean, head
from prerank.consistency.translate import ByIds, by_ids_alone
from prerank.data import Dataset, ListLoader
from prerank.data.encoder import digest
from prerank.ensembles import open_ensemble
from prerank.metrics import sigmoid
from prerank.run import Run, open_run
from prerank.training.device import device_of
from prerank.training.predict import evaluating

PAIRS = 1 << 16  # candidates scored at a time, about
EVERY = Lists(max_length=1 << 30, filter=False)


@dataclass(frozen=True, slots=True)
class _Model:
    """A model, the data it was trained on, and which of its logits is asked for."""

    name: str
    model: nn.Module
    dataset: Dataset
    objective: int
    by_ids: ByIds | None = None


def score_runs(
    run: str | Path,
    ranking: str | Path | None = None,
    against: str | Path | None = None,
    *,
    split: str = "test",
    label: str | None = None,
    truth: str | None = None,
    teacher_is_logit: bool = False,
    requests: int | None = None,
    seed: int = 0,
) -> Scored:
    """Candidates of a split, scored and cleaned. Raises ConfigError, and DataError as `clean` does.

    ranking   folder of a run or an ensemble; None: the log's own teacher (data.teacher)
    label     whose logits are compared, where a model has it, else its first; default: the first
    truth     a label as what a candidate is worth; what was not shown is worth 0
    requests  so many of the split's requests, by lot of `seed`; None: all of them
    """
    if split not in ("train", "validation", "test"):
        raise ConfigError(f"--split: unknown split '{split}'{nearest(split, ('train', 'validation', 'test'))}")
    opened = open_run(run)
    data = opened.dataset
    for option, name in (("--label", label), ("--truth", truth)):
        if name is not None and name not in data.schema.objectives:
            raise ConfigError(f"{option}: run '{run}' has no label '{name}'{nearest(name, data.schema.objectives)}")
    if ranking is None and data.teacher is None:
        raise ConfigError(f"run '{run}': its data has no teacher; name the column in data.teacher, or give --ranking a run's folder")
    models = {"s": _of_run(opened, label)}
    if ranking is not None:
        models["t"] = _open(Path(ranking), label)
    if against is not None:
        models["against"] = _open(Path(against), label)
    models = {whose: one if whose == "s" else _reading(one, models["s"]) for whose, one in models.items()}
    loader, said = _loader(opened, split)
    if requests is not None and requests < len(loader.sampler.kept):
        said.append(f"{requests:,} of {len(loader.sampler.kept):,} requests, by lot")
        loader.sampler.kept = np.sort(np.random.default_rng(seed).choice(loader.sampler.kept, requests, replace=False))
    columns, more = _score(opened, models, loader, data.schema.objectives.index(truth) if truth else None)
    said += more
    t = columns["t"] if ranking is not None else columns["teacher"]
    scored = Scored(
        request=columns["request"].astype(np.int64), s=columns["s"], t=t, against=columns.get("against"),
        s_worth=sigmoid(columns["s"]), against_worth=sigmoid(columns["against"]) if against is not None else None,
        t_worth=sigmoid(t) if ranking is not None or teacher_is_logit else None,
        bid=columns.get("bid"), truth=columns.get("truth"), stage=columns["stage"].astype(np.int64) if "stage" in columns else None,
        names=_names(run, ranking, against), said=tuple(said), **_popularity(data, columns),
    )  # fmt: skip
    return clean(scored)


def _open(folder: Path, label: str | None) -> _Model:
    """A run or an ensemble."""
    if not (folder / "ensemble.json").exists():
        return _of_run(open_run(folder), label)
    model, dataset = open_ensemble(folder)
    return _Model(str(folder), model, dataset, _index(dataset, label))


def _of_run(run: Run, label: str | None) -> _Model:
    return _Model(str(run.folder), run.model, run.dataset, _index(run.dataset, label))


def _index(dataset: Dataset, label: str | None) -> int:
    names = dataset.schema.objectives
    return names.index(label) if label in names else 0


def _reading(other: _Model, own: _Model) -> _Model:
    """The model as it reads the pre-ranker's lists. Raises ConfigError when it cannot."""
    why = _otherwise(other, own)
    if why is None:
        return other
    if not by_ids_alone(other.dataset):
        raise ConfigError(f"run '{other.name}': {why}; train both on the same features, or compare their scores in a file")
    return replace(other, by_ids=ByIds(own.dataset, other.dataset))


def _otherwise(other: _Model, own: _Model) -> str | None:
    """Why a model cannot read batches of the pre-ranker's data as they are, or None."""
    mine = {f.name: f for f in own.dataset.schema.features}
    for feature in other.dataset.schema.features:
        name = feature.name
        if name not in mine:
            return f"reads feature '{name}', which the data of '{own.name}' does not have"
        one, two = (digest({name: d.encoders[name]}) for d in (other.dataset, own.dataset))
        if feature.side != mine[name].side or feature.kind != mine[name].kind or one != two:
            return f"feature '{name}' is encoded otherwise than in '{own.name}'"
    return None


def _score(opened: Run, models: Mapping[str, _Model], loader: ListLoader, truth: int | None) -> tuple[dict[str, NDArray], list[str]]:
    """Columns [n] of all candidates, and what is to be said of them."""
    data, said = opened.dataset, list[str]()
    device = device_of(opened.config.training)
    parts: list[dict[str, NDArray]] = []
    for one in models.values():
        one.model.to(device)
    try:
        with torch.inference_mode():
            lists = 0
            for k, batch in enumerate(loader.epoch(0)):
                given = dict.fromkeys(models, batch)
                if any(one.by_ids is not None for one in models.values()):
                    entities = loader.entities(0, k)
                    given |= {whose: one.by_ids.batch(batch, *entities) for whose, one in models.items() if one.by_ids is not None}
                found = {whose: _logits(one, given[whose].to(device)) for whose, one in models.items()}
                found |= _columns(batch, loader, lists, truth)
                parts.append(found)
                lists += len(batch.where)
    finally:
        for one in models.values():
            one.model.cpu()
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if "bid" in columns and (columns["stage"] == Stage.RANDOM).any():
        del columns["bid"]
        said.append("eCPM: left out, as drawn items have no bid")
    columns |= {"user_row": data.user_row[columns["first"]], "request": columns["list"]}
    return columns, said


def _loader(opened: Run, split: str) -> tuple[ListLoader, list[str]]:
    """Lists in their order, in batches of about PAIRS candidates."""
    data, settings = opened.dataset, opened.config.evaluation
    if settings is None:
        held = {Stage.IMPRESSION} if data.stage is None else {Stage(s) for s in np.unique(data.stage[data.rows(split, None)])}
        lists = EVERY.model_copy(update={"by": "user" if data.request is None else "request",
                                         "stages": {s.name.lower(): Take() for s in sorted(held)}})  # fmt: skip
        loader = ListLoader(data, split, lists, 1, shuffle=False, where="consistency")
    else:
        loader = ListLoader(data, split, settings, 1, seed=settings.seed, shuffle=False, where="evaluation")
    if not len(loader):
        raise ConfigError(f"run '{opened.folder}': its data has no {split} rows to make lists of; give data.split.{split}")
    loader.batch_size = max(1, PAIRS // loader.sampler.longest)
    return loader, [f"{split} rows in {loader.sampler.said()[0]}", *loader.sampler.said()[1:]]


def _logits(one: _Model, batch: Batch) -> NDArray[np.float64]:
    with evaluating(one.model):
        logits = one.model(batch).logits[..., one.objective]
    return logits[batch.where].double().cpu().numpy()


def _columns(batch: Batch, loader: ListLoader, lists: int, truth: int | None) -> dict[str, NDArray]:
    """What the batch knows of its candidates; lists: how many came before."""
    there = batch.where.numpy()
    numbers = lists + np.nonzero(there)[0]
    kept = loader.sampler.kept[numbers]
    found: dict[str, NDArray] = {"list": numbers, "first": loader.lists.order[loader.lists.offsets[kept]]}
    item = loader.dataset.schema.item_id
    if item in loader.dataset.counts:
        found["item"] = batch.item[item].numpy()[batch.item_index.numpy()[there]].astype(np.int64)
    for name in ("stage", "teacher", "bid"):
        column = getattr(batch, name)
        if column is not None:
            found[name] = column.numpy()[there].astype(np.float64)
    if truth is not None:
        found["truth"] = batch.labels[..., truth].numpy()[there].astype(np.float64)
    return found


def _popularity(data: Dataset, columns: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Train impressions of each candidate's user and item; of items only where the model's features hold their id.

    Items are rows of their vocabulary: those that train never held are one.
    """
    users = np.bincount(data.user_row[data.rows("train")], minlength=len(data.user_ids))
    found: dict[str, NDArray] = {"user_events": users[columns["user_row"]].astype(np.int64)}
    if "item" in columns:
        events = np.asarray(data.counts[data.schema.item_id])[columns["item"]].astype(np.int64)
        found |= {"item_events": events, "head": head(columns["item"], events)}
    return found


def _names(run: str | Path, ranking: str | Path | None, against: str | Path | None) -> tuple[str, str, str]:
    """Folders' names; whole paths where two have the same."""
    given = [Path(run), Path(ranking) if ranking else Path("the log's teacher"), Path(against) if against else Path("-")]
    short = [p.name for p in given]
    if given[0] in given[1:]:
        raise ConfigError(f"run '{run}': cannot be compared with itself; give another run to --ranking or --against")
    a, b, c = short if len(set(short)) == len(short) else [str(p) for p in given]
    return a, b, c
