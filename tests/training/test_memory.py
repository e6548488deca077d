"""Training with memory (CTS, CMS) in epochs: no row reads its own label, and what a run ends with is what is opened and served."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from prerank import build
from prerank.config import Config, ConfigError, parse
from prerank.data import Dataset, prepare
from prerank.metrics import auc
from prerank.run import open_run, train
from prerank.serving import Request, Scorer, export, open_current
from prerank.training import Interrupted, fit
from tests.training.conftest import planted_log, settings

CS3 = {"cas": {"sides": ["user", "item"]}, "cts": {"negatives": True, "inputs": "vector_count_age"},
       "cms": {"column": "h", "inputs": "vector_count_age"}}  # fmt: skip
FLIPPED = 100  # a train row


def log(folder: Path, flip: int | None = None, **options: Any) -> Path:
    """A log with the vectors of a ranking model that knows each row's own label: the worst that could be cached."""
    frame = planted_log(**{"rows": 1500, "users": 60, "items": 40, **options})
    click = frame["click"].to_numpy().copy()
    if flip is not None:
        click[flip] = 1 - click[flip]
    h = np.random.default_rng(5).normal(size=(len(frame), 3))
    h[:, 0] = click - 0.5
    folder.mkdir(exist_ok=True)
    frame.with_columns(click=pl.Series(click), h=pl.Series(h.tolist())).write_parquet(folder / "log.parquet")
    return folder


def config(folder: Path, **changes: Any) -> Config:
    raw = settings(folder, **{"data.split": {"kind": "time", "validation": 0.1, "test": 0.1}, "model": {"name": "dssm", "hidden": [16, 8]},
                              "synergy": CS3, "training.batch_size": 128, **changes})  # fmt: skip
    raw["data"]["features"] = [*raw["data"]["features"], {"name": "h", "side": "context", "kind": "vector", "dim": 3, "field": False}]
    return parse(raw)


@dataclass
class Watched:
    """What a training said: for every epoch, time -> logit."""

    epochs: list[dict[int, float]] = field(default_factory=list)


def watch(folder: Path, flip: int | None, variant: str) -> Watched:
    """Three epochs at learning rate 0. Rows are not deduplicated: their keys, and so the order of a sum, would hang on the flipped `h`."""
    wanted = config(log(folder / f"{flip}-{variant}", flip), **{"training.dedup": False})
    dataset: Dataset = prepare(wanted.data)
    torch.manual_seed(0)
    model: Any = build.model(wanted.model, dataset.schema, dataset.sizes, wanted.synergy)
    seen, reset = Watched(), model.reset_memory

    def start() -> None:
        seen.epochs.append({})
        if variant != "without reset":
            reset()

    def note(module: Any, args: Any, output: Any) -> None:
        if module.training:
            seen.epochs[-1] |= dict(zip(args[0].ts[:, 0].tolist(), output.logits[:, 0, 0].tolist(), strict=True))

    def write_first(module: Any, args: Any) -> None:
        if module.training:
            with torch.no_grad():
                module.observe(args[0], module.forward(args[0]))

    model.reset_memory = start
    model.register_forward_hook(note)
    if variant == "writes before it reads":
        model.register_forward_pre_hook(write_first)
    optimizer = wanted.training.optimizer.model_copy(update={"lr": 0.0})
    training = wanted.training.model_copy(update={"optimizer": optimizer, "patience": 9})
    run = folder / f"run-{flip}-{variant}"
    run.mkdir()
    fit(model, build.objective(wanted.objective, dataset.schema), dataset, training, run)
    return seen


@pytest.mark.parametrize(("variant", "leaks"), [("as it is", False), ("without reset", True), ("writes before it reads", True)])
def test_a_flipped_label_never_reaches_its_own_logit(variant: str, leaks: bool, tmp_path: Path) -> None:
    one, two = watch(tmp_path, None, variant), watch(tmp_path, FLIPPED, variant)
    own = 1_650_000_000 + FLIPPED
    own = own if own in one.epochs[0] else own * 1000
    assert len(one.epochs) == 3
    same = [a[own] == b[own] for a, b in zip(one.epochs, two.epochs, strict=True)]
    assert all(same) != leaks
    assert any(a != b for a, b in zip(one.epochs, two.epochs, strict=True))  # others are told of it, as they may be


def test_shuffled_labels_are_not_predicted(tmp_path: Path) -> None:
    wanted = config(log(tmp_path, rows=40_000, users=300, items=200, shuffled=True), **{
        "data.split": {"kind": "time", "validation": 0.1, "test": 0.4}, "training.batch_size": 256, "training.epochs": 2})  # fmt: skip
    run, _ = train(wanted)
    z, y = run.logits("test")
    assert len(z) == 16_000
    assert auc(z[:, 0], y[:, 0] > 0) == pytest.approx(0.5, abs=0.02)


def test_what_was_trained_is_opened_resumed_and_served(tmp_path: Path) -> None:
    folder = log(tmp_path, rows=6000)
    run, _ = train(config(folder))
    z, _ = run.logits("test")
    assert any(name.endswith("store.vectors") and value.any() for name, value in run.model.state_dict().items())
    np.testing.assert_array_equal(open_run(run.folder).logits("test")[0], z)

    steps = 0

    class Stops:
        """Interrupts in the middle of the second epoch."""

        def step(self, epoch: int, *rest: Any) -> None:
            nonlocal steps
            steps += 1
            if steps == 55:
                import signal

                signal.raise_signal(signal.SIGINT)

        def say(self, line: str) -> None: ...

        def close(self) -> None: ...

    half = config(folder, output=str(tmp_path / "half"))
    with pytest.raises(Interrupted):
        train(half, progress=Stops())
    resumed, _ = train(half, resume=True)
    np.testing.assert_array_equal(resumed.logits("test")[0], z)

    synergy = run.config.synergy
    assert synergy is not None
    export(run.dataset, run.model, folder=tmp_path / "g", options=run.config.model.model_dump(mode="json"),
           synergy=synergy.model_dump(mode="json"))  # fmt: skip
    scorer = Scorer(open_current(tmp_path / "g"), build.served)
    rows = run.dataset.rows("test")[:200]
    users, items = run.dataset.user_ids, run.dataset.item_ids
    for r, expected in zip(rows, z[:200, 0], strict=True):
        said = scorer.score([Request(user=users[int(run.dataset.user_row[r])], candidates=[items[int(run.dataset.item_row[r])]])])[0]
        assert said.logits["click"][0] == pytest.approx(expected, abs=1e-5 * max(1, abs(expected)))


def test_a_ranker_beside_epochs_and_frozen_norms_are_refused(tmp_path: Path) -> None:
    folder = log(tmp_path)
    with pytest.raises(ConfigError, match=r"synergy\.cms\.ranker: epochs have no ranking model beside them"):
        train(config(folder, synergy={"cms": {"ranker": "mlp"}}))
    with pytest.raises(ConfigError, match="running statistics"):
        train(config(folder, **{"training.freeze_after_first_epoch": True, "output": str(tmp_path / "other")}))


def test_averaged_weights_leave_memory_alone(tmp_path: Path) -> None:
    run, _ = train(config(log(tmp_path), **{"training.average": 0.99, "training.epochs": 1}))
    counts = [v for k, v in run.model.state_dict().items() if k.endswith("cms of user.caches.0.store.counts")]
    train_rows = run.dataset.rows("train")
    assert int(counts[0].sum()) == len(train_rows)
