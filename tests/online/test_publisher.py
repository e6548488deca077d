"""Deltas of a stream: a server that applied them scores what was learned from as the trainer's model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from prerank import build
from prerank.data import prepare
from prerank.online import Trainer
from prerank.serving import Request
from prerank.serving.delta import deltas
from prerank.serving.follow import WANTED
from prerank.serving.live import scorer_at
from tests.online.world import ITEMS, N, config, fill, frame


@pytest.mark.parametrize("growth", [{}, {"item": {"capacity": 120, "admit_after": 2}, "user": {"capacity": 60, "expire_after": "5m"}}])
def test_what_was_learned_is_served(tmp_path: Path, growth: dict[str, Any]) -> None:
    log = frame()
    log.write_parquet(tmp_path / "log.parquet")
    fill(tmp_path, log)
    fill(tmp_path, frame(seed=3).with_columns(item=pl.col("item") + 1000, user=pl.col("user") + 7, ts=pl.col("ts") + 1000 * N), N)
    generations = tmp_path / "generations"
    given = config(tmp_path, **{"data.growth": growth, "online.publish": {"folder": str(generations), "every": "1h", "deltas": 3}})
    trainer = Trainer(given, prepare(given.data), tmp_path / "run", lockstep=True)
    seen = []
    for k in range(90):
        trainer.learn(trainer._take(lambda: False, True))
        if k % 10 == 9:
            items = sorted(trainer.publisher._items)  # type: ignore[union-attr]
            trainer.publish()
            seen.append((trainer.told.published, trainer.told.sequence))
            state = scorer_at(generations, build.served, *seen[-1])
            for user in (3, 41):
                (answer,) = state.score([Request(user=user, candidates=items, context={"tab": 1})])
                assert not answer.missing
                expected = _logits(trainer, user, list(answer.items))
                np.testing.assert_allclose(answer.logits["click"], expected, atol=1e-5)
    assert seen[:5] == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]
    assert list(deltas(generations, 2))[:2] == [1, 2]
    last = scorer_at(generations, build.served, *seen[-1]).generation
    assert len(last.item_ids) == 2 * ITEMS


def test_a_server_that_lost_a_delta_gets_a_whole_generation(tmp_path: Path) -> None:
    log = frame()
    log.write_parquet(tmp_path / "log.parquet")
    fill(tmp_path, log)
    given = config(tmp_path, **{"online.publish": {"folder": str(tmp_path / "generations"), "every": "1h"}})
    trainer = Trainer(given, prepare(given.data), tmp_path / "run")
    for _ in range(2):
        trainer.learn(trainer._take(lambda: False, True))
        trainer.publish()
    assert (trainer.told.published, trainer.told.sequence) == (1, 1)
    (tmp_path / "generations" / WANTED).write_text('{"generation": 1}')
    trainer.publish()
    assert (trainer.told.published, trainer.told.sequence) == (2, 0)


def _logits(trainer: Trainer, user: int, items: list[int]) -> np.ndarray:
    """As the trainer's own model scores them."""
    catalogue = trainer.catalogue
    at, rows = catalogue.of_users.rows([user]), catalogue.of_items.rows(items)
    columns = {"user": catalogue.of_users.column("user", at), "tab": catalogue.encoders["tab"].encode([1])}
    model: Any = trainer.learner.predictor
    with torch.inference_mode():
        model.eval()
        u = model.encode("user", {n: torch.from_numpy(np.array(c)) for n, c in columns.items()})
        v = model.encode("item", {"item": torch.from_numpy(np.array(catalogue.of_items.column("item", rows)))})
        return np.asarray(model.head(u, v, torch.zeros(1).long(), torch.arange(len(items))[None])[0, :, 0])


def test_items_that_nobody_touched_do_not_stay_as_they_were(tmp_path: Path) -> None:
    log = frame()
    log.write_parquet(tmp_path / "log.parquet")
    fill(tmp_path, log.filter(pl.col("item") < 5))  # the others are never learned from
    generations = tmp_path / "generations"
    for refresh, stale in ((0, True), (ITEMS, False)):
        given = config(tmp_path, name=f"refresh {refresh}",
                       **{"online.publish": {"folder": str(generations), "every": "1h", "refresh": refresh}})  # fmt: skip
        (tmp_path / f"run-{refresh}").mkdir()
        trainer = Trainer(given, prepare(given.data), tmp_path / f"run-{refresh}", lockstep=True)
        for _ in range(2):
            trainer.learn(trainer._take(lambda: False, True))
            trainer.publish()
        state = scorer_at(generations, build.served, trainer.told.published, trainer.told.sequence)
        (answer,) = state.score([Request(user=3, candidates=list(range(5, ITEMS)), context={"tab": 1})])
        apart = np.abs(np.array(answer.logits["click"]) - _logits(trainer, 3, list(answer.items))).max()
        assert (apart > 1e-4) == stale
