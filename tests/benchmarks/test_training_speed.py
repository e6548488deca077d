"""The benchmark on a tiny MovieLens, without torch-rechub; and that the plain IntTower is the model we say it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.baselines.inttower import IntTower, PlainIntTower
from benchmarks.baselines.worker import ITEM, USER, read
from benchmarks.ours import Ours, config_of
from benchmarks.training_speed import main, write_split
from prerank import build
from prerank.config import parse
from prerank.data import Dataset, prepare
from prerank.datasets import resolve
from prerank.metrics import auc


@pytest.fixture
def dataset(tiny_movielens: Path) -> Dataset:
    return prepare(resolve(parse({"data": {"recipe": "movielens"}}).data))


def test_whole_run(tiny_movielens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "speed.json"
    main(["--batch-size", "64", "--rounds", "3", "--without-rechub", "--out", str(out)])
    record = json.loads(out.read_text())
    assert record["rechub"] == "left out"
    found = {r["contender"]: r for r in record["results"]}
    assert list(found) == ["our DSSM, bf16", "our DSSM, fp32", "our IntTower H=2, bf16", "our IntTower H=2, fp32", "plain IntTower H=2"]
    plain, ours = found["plain IntTower H=2"], found["our IntTower H=2, fp32"]
    assert all(r["rows_per_cpu_second"] > 0 and 0.4 < r["auc"] <= 1 and len(r["rounds"]) == 2 for r in found.values())
    assert plain["against"] == []
    (against,) = ours["against"]
    assert against["baseline"] == "plain IntTower H=2"
    assert against["ratio"] == pytest.approx(np.median(np.divide(ours["rounds"], plain["rounds"])), rel=0.02)
    assert against["auc_difference"] == pytest.approx(ours["auc"] - plain["auc"], abs=2e-4)
    assert "B=64 our IntTower H=2, fp32 against plain IntTower H=2" in capsys.readouterr().out


def test_everyone_gets_the_same_rows(dataset: Dataset, tmp_path: Path) -> None:
    write_split(dataset, tmp_path / "split.npz")
    train, test, sizes = read(tmp_path / "split.npz")
    assert set(sizes) == {*USER, *ITEM}
    assert len(train["label"]) == len(dataset.rows("train"))
    assert np.array_equal(test["label"], dataset.labels[dataset.rows("test"), 0])
    for name in (*USER, *ITEM):
        assert train[name].max() < sizes[name]
    assert np.array_equal(test["movie_id"], dataset.columns("item", dataset.rows("test"))["movie_id"].numpy())


def test_a_contender_trains_one_epoch_and_no_more(dataset: Dataset, tmp_path: Path) -> None:
    write_split(dataset, tmp_path / "split.npz")
    rows = len(dataset.rows("train"))
    for contender in (PlainIntTower(*read(tmp_path / "split.npz"), 256, 0), Ours(dataset, config_of("inttower", "fp32", 256, 0))):
        first, rest = contender.train(2), contender.train(1000)
        assert first == (2, 512)
        assert rest == (-(-rows // 256) - 2, rows - 512)
        assert contender.train(1) == (0, 0)


def test_the_plain_one_learns(dataset: Dataset, tmp_path: Path) -> None:
    write_split(dataset, tmp_path / "split.npz")
    train, test, sizes = read(tmp_path / "split.npz")
    plain = PlainIntTower(train, test, sizes, 32, 0)
    plain.train(1000)
    assert auc(plain.score(), test["label"]) > 0.7


def test_the_plain_one_has_the_parameters_of_ours(dataset: Dataset) -> None:
    config = config_of("inttower", "fp32", 32, 0)
    ours = build.model(config.model, dataset.schema, dataset.sizes)
    plain = IntTower({name: dataset.sizes[name] for name in (*USER, *ITEM)})
    learned_temperature = 1
    assert sum(p.numel() for p in ours.parameters()) - learned_temperature == sum(p.numel() for p in plain.parameters())


def test_the_plain_one_scores_by_maxsim(dataset: Dataset) -> None:
    plain = IntTower({name: dataset.sizes[name] for name in (*USER, *ITEM)}).eval()
    rows = dataset.rows("test")[:5]
    columns = {n: c.long() for n, c in (dataset.columns("user", rows) | dataset.columns("item", rows)).items()}
    users, items = plain.user(columns).detach(), plain.item(columns).detach()
    assert users.shape == (5, 6, 64)
    assert items.shape == (5, 2, 64)
    expected = [sum(max(float(u @ v) for v in items[b]) for u in users[b]) for b in range(5)]
    torch.testing.assert_close(plain(columns).detach(), torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_without_data_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PRERANK_DATA", str(tmp_path))
    monkeypatch.setenv("PRERANK_CACHE", str(tmp_path))
    with pytest.raises(SystemExit) as error:
        main(["--without-rechub"])
    assert error.value.code == 2
    assert "training_speed: " in capsys.readouterr().out
