"""`prerank replay`: a folder with scores, metrics of both protocols, windows and a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from prerank.cli import app
from prerank.config import ConfigError, load
from prerank.metrics import auc
from prerank.replay import replay, summary

CONFIG = """
name: toy
data:
  log: {folder}/log.parquet
  user_id: user
  item_id: item
  time: ts
  width: 4
  labels: {{y: {{column: y}}}}
  split: {{kind: time, validation: 0, test: 0.3}}
  asof: [{{name: user_mean, by: user, label: y}}, {{name: item_mean, by: item, label: y}}]
  features: [{{name: user_mean, side: user, kind: numeric}}, {{name: item_mean, side: item, kind: numeric}}]
  cache: {folder}/cache
model: {{name: dssm, hidden: [8], width: 4, norm: false, similarity: dot, id_head: 2}}
training: {{batch_size: 64, threads: 1, average: 0.99, optimizer: {{groups: [{{match: "*ids*", lr: 0.05, rowwise: true}}]}}}}
output: {folder}/run
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    random = np.random.default_rng(1)
    n = 2000
    users, items = random.integers(0, 40, n), random.integers(0, 20, n)
    taste, worth = random.normal(size=40), random.normal(size=20)
    y = random.random(n) < 1 / (1 + np.exp(-2 * (taste[users] + worth[items])))
    log = pl.DataFrame({"user": users, "item": items, "ts": 1_650_000_000_000 + 60_000 * np.arange(n), "y": y.astype(np.int64)})
    log.write_parquet(tmp_path / "log.parquet")
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(folder=tmp_path))
    return path


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["replay", "-q", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def outside(config: Path, tmp_path: Path, store: str) -> Path:
    """The same run with CTS and CMS in a store outside the model."""
    told = "inputs: vector_count_age"
    synergy = f"synergy: {{cts: {{{told}}}, cms: {{ranker: {{name: mlp, hidden: [8]}}, {told}}}, store: '{store}'}}\n"
    path = tmp_path / f"{store.split(':')[0]}.yaml"
    path.write_text(config.read_text().replace("/run\n", f"/run-{store.split(':')[0]}\n") + synergy)
    return path


def test_a_memory_outside_the_model_says_the_same_and_is_served(config: Path, tmp_path: Path) -> None:
    """Replay, export and serve from LMDB; a store of another model is refused, one that is gone makes vectors cold."""
    from litestar.testing import TestClient

    from prerank import build
    from prerank.serving import GenerationError, Request, Scorer, Settings, create
    from prerank.serving.generation import open_current

    run("-c", str(outside(config, tmp_path, "memory")))
    lmdb = outside(config, tmp_path, f"lmdb:{tmp_path}/m.lmdb")
    run("-c", str(lmdb))
    inside, there = (np.load(tmp_path / f"run-{name}/scores.npz") for name in ("memory", "lmdb"))
    for protocol in ("prequential", "frozen"):
        np.testing.assert_allclose(there[protocol], inside[protocol], atol=1e-5)

    said = CliRunner().invoke(app, ["replay", "-q", "-c", str(lmdb), "--set", f"output={tmp_path}/other"])
    assert (said.exit_code, said.output.count("\n")) == (2, 1)
    assert "holds 40 ids already, and a pass over the log begins with none" in said.output
    said = CliRunner().invoke(app, ["replay", "-q", "-c", str(lmdb), "--resume"])
    assert said.exit_code == 2
    assert "cannot be resumed" in said.output
    said = CliRunner().invoke(app, ["replay", "-q", "-c", str(lmdb), "--set", "model.hidden=[9]", "--set", f"output={tmp_path}/other2"])
    assert (said.exit_code, said.output.count("\n")) == (2, 1)
    assert "must be of width and space" in said.output
    run("-c", str(lmdb), "--overwrite")

    assert CliRunner().invoke(app, ["export", f"{tmp_path}/run-lmdb"], catch_exceptions=False).exit_code == 0
    generations = tmp_path / "run-lmdb/generations"
    warm = Scorer(open_current(generations), build.served)
    asked = [Request(user=3, candidates=[1, 2, 3])]
    assert warm.cold == []
    scores = warm.score(asked)[0].logits
    meta = open_current(generations).folder / "meta.json"
    true = meta.read_text()
    meta.write_text(true.replace(json.loads(true)["space"], "0" * 16))
    with pytest.raises(GenerationError, match="must be of width and space"):
        Scorer(open_current(generations), build.served)
    meta.write_text(true.replace("m.lmdb", "gone.lmdb"))
    cold = Scorer(open_current(generations), build.served)
    assert len(cold.cold) == 4
    assert all("is not there" in why for why in cold.cold)
    assert cold.score(asked)[0].logits != scores
    with TestClient(create(Settings(generations, follow_seconds=0), build.served)) as client:
        health = client.get("/health").json()
        assert (health["status"], health["why"]) == ("degraded", cold.cold)
        assert client.post("/score", json={"user": 3, "candidates": [1, 2, 3]}).status_code == 200
        assert "prerank_cold_users_total 1.0" in client.get("/metrics").text


def test_training_stops_where_a_store_cannot_be_reached(config: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["replay", "-q", "-c", str(outside(config, tmp_path, "redis://127.0.0.1:1/0"))])
    assert (said.exit_code, said.output.count("\n")) == (2, 1)
    assert "store 'prerank cts of user': cannot be reached" in said.output
    said = CliRunner().invoke(app, ["train", "-q", "-c", str(outside(config, tmp_path, "redis://127.0.0.1:1/0"))])
    assert (said.exit_code, said.output.count("\n")) == (2, 1)
    assert "lies outside the model: only `prerank replay` and `prerank online` fill" in said.output


def test_a_folder_tells_all(config: Path, tmp_path: Path) -> None:
    said = run("-c", str(config), "--window", "500")
    told = json.loads((tmp_path / "run/replay.json").read_text())
    with np.load(tmp_path / "run/scores.npz") as file:
        scores = dict(file)
    test = int(scores["test"])
    y = scores["labels"][test:, 0] > 0
    assert told["metrics"]["prequential"]["y"]["auc"] == pytest.approx(auc(scores["prequential"][test:, 0], y))
    assert told["metrics"]["frozen"]["y"]["auc"] == pytest.approx(auc(scores["frozen"][:, 0], y))
    windows = told["windows"]["y"]
    assert windows[-1]["auc"] == pytest.approx(auc(scores["prequential"][-500:, 0], scores["labels"][-500:, 0] > 0))
    assert windows[-1]["ts"] == scores["ts"][-1]
    assert (tmp_path / "run/replay.png").stat().st_size > 5000
    assert "prequential  y" in said
    assert "frozen       y" in said
    assert told["metrics"]["prequential"]["y"]["auc"] > 0.7


def test_seeds_stand_beside_their_mean(config: Path, tmp_path: Path) -> None:
    run("-c", str(config), "--seeds", "2")
    told = json.loads((tmp_path / "run/seeds.json").read_text())
    each = [json.loads((tmp_path / f"run/seed-{s}/replay.json").read_text())["metrics"]["frozen"]["y"]["auc"] for s in (0, 1)]
    assert each[0] != each[1]
    assert told["metrics"]["frozen"]["y"]["auc"] == pytest.approx([np.mean(each), np.std(each, ddof=1)])


def test_past_batches_are_rehearsed_and_vectors_of_ids_are_told_of(config: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["replay", "-c", str(config), "--set", "training.rehearsal=1"], catch_exceptions=False)
    assert said.exit_code == 0
    assert "the model holds vectors of user and item, which know the labels of rows that are learned from once more" in said.stderr
    without = ["--set", "model.id_head=null", "--set", "training.optimizer.groups=[]", "--set", f"output={tmp_path}/without"]
    said = CliRunner().invoke(app, ["replay", "-c", str(config), "--set", "training.rehearsal=1", *without], catch_exceptions=False)
    assert "vectors of" not in said.stderr
    said = CliRunner().invoke(app, ["replay", "-c", str(outside(config, tmp_path, "memory")), "--set", "training.rehearsal=1"])
    assert (said.exit_code, said.output.count("\n")) == (2, 1)
    assert "training.rehearsal: a model with synergy.cts or cms does not take it" in said.output


def test_ids_may_be_keys_and_nothing_else(config: Path, tmp_path: Path) -> None:
    """A model that reads no id: its rows are still found by their ids, in training, in an export and in serving."""
    from prerank import build
    from prerank.run import open_run
    from prerank.serving import Request, Scorer
    from prerank.serving.generation import open_current

    run("-c", str(config), "--set", "model.id_head=null", "--set", "training.optimizer.groups=[]", "--set", "training.rehearsal=1")
    opened = open_run(tmp_path / "run")
    assert [p for p in opened.model.state_dict() if "table" in p] == []  # running statistics are numbers
    assert [f.name for f in opened.dataset.schema.features if not f.field] == ["user", "item"]
    assert CliRunner().invoke(app, ["export", f"{tmp_path}/run"], catch_exceptions=False).exit_code == 0
    scorer = Scorer(open_current(tmp_path / "run/generations"), build.served)
    known, stranger = (scorer.score([Request(user=user, candidates=[1, 2, 3])])[0] for user in (3, 1000))
    assert known.items == stranger.items
    assert known.logits != stranger.logits  # found by its id: what is stored of it is read
    told = [scorer.score([Request(user=user, candidates=[1, 2, 3], features={"user_mean": 0.5})])[0].logits for user in (3, 1000)]
    assert told[0] == told[1]  # and nothing else of it


def test_late_labels_cost(config: Path, tmp_path: Path) -> None:
    """A delay as long as the log: nothing is ever learned, and no statistic knows a label."""
    run("-c", str(config), "--set", "data.label_delay=30d")
    told = json.loads((tmp_path / "run/replay.json").read_text())
    assert told["label_delay"] == "30d"
    assert abs(told["metrics"]["prequential"]["y"]["auc"] - 0.5) < 0.1


def test_what_is_there_is_not_lost(config: Path, tmp_path: Path) -> None:
    settings = load(config)
    first = replay(settings)
    with pytest.raises(ConfigError, match=r"holds a run already; continue it with --resume, replace it with --overwrite"):
        replay(settings)
    again = replay(settings, resume=True)
    np.testing.assert_array_equal(first.prequential, again.prequential)
    with pytest.raises(ConfigError, match="was started with other settings; resume needs the same ones"):
        replay(load(config, ["training.seed=7"]), resume=True)
    assert summary([first, again])["frozen"]["y"]["auc"] == (pytest.approx(first.metrics["frozen"]["y"]["auc"]), 0.0)
    assert replay(load(config, ["training.seed=7"]), overwrite=True).folder == tmp_path / "run"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["data.split.kind=random"], "needs split.kind time"),
        (["data.split.test=0"], "the two protocols part where the test rows begin, and there are none"),
    ],
)
def test_logs_that_cannot_be_replayed_are_refused(config: Path, change: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replay(load(config, change))
