"""What is published lies in a second place, too; a place that is away holds up nobody."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prerank import build
from prerank.data import prepare
from prerank.online import Trainer, train_online
from prerank.online import elsewhere as elsewhere_module
from prerank.online.elsewhere import Elsewhere
from prerank.run import train
from prerank.serving import GenerationError
from prerank.serving.follow import Mirror, open_source
from prerank.serving.generation import WANTED, Generation
from prerank.serving.live import Live
from tests.online.world import config, fill, frame
from tests.serving.world import published, world
from tests.store.conftest import redis_url  # noqa: F401


def until(holds, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["redis", "fsspec"])
def test_a_server_elsewhere_has_what_the_trainer_published(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = f"{request.getfixturevalue('redis_url')}?prefix={tmp_path.name}" if kind == "redis" else f"file://{tmp_path}/bucket"
    frame().write_parquet(tmp_path / "log.parquet")
    fill(tmp_path, frame())
    near = tmp_path / "near"
    given = config(tmp_path, **{"online.publish": {"folder": str(near), "to": url, "every": "0s", "deltas": 5}})
    train_online(given, until_empty=True)
    live, here = Live(tmp_path / "far", build.served, Mirror(open_source(url), tmp_path / "far")), Live(near, build.served)
    states = [(x.scorer.generation.meta.number, x.scorer.generation.sequence) for x in (live, here)]
    assert states[0] == states[1]
    assert states[0][0] > 1
    assert sorted(p.name for p in near.glob("*-0*")) == sorted(open_source(url).names())


def test_who_asks_there_gets_a_whole_generation_once(tmp_path: Path) -> None:
    frame().write_parquet(tmp_path / "log.parquet")
    fill(tmp_path, frame())
    url = f"file://{tmp_path}/bucket"
    given = config(tmp_path, **{"online.publish": {"folder": str(tmp_path / "near"), "to": url, "every": "1h"}})
    trainer = Trainer(given, prepare(given.data), tmp_path / "run")
    publisher = trainer.publisher
    assert publisher is not None
    for _ in range(2):
        trainer.learn(trainer._take(lambda: False, True))
        trainer.publish()
    assert (trainer.told.published, trainer.told.sequence) == (1, 1)
    open_source(url).ask(b'{"generation": 1, "sequence": 1}')
    until(lambda: publisher._elsewhere.asked)  # type: ignore[union-attr]
    trainer.publish()
    assert (trainer.told.published, trainer.told.sequence) == (2, 0)
    until(lambda: "gen-000002" in open_source(url).names())
    assert open_source(url).read(WANTED) is not None  # what was asked stays, and asks for no more
    trainer.learn(trainer._take(lambda: False, True))
    trainer.publish()
    assert (trainer.told.published, trainer.told.sequence) == (2, 1)
    publisher.close()
    assert "delta-000002-000001" in open_source(url).names()


def test_first_weights_are_published_before_any_row(tmp_path: Path) -> None:
    """A server must have something to begin with: it is what makes the first impressions."""
    frame().write_parquet(tmp_path / "log.parquet")
    fill(tmp_path, frame().head(0))
    first = config(tmp_path, output=str(tmp_path / "first"))
    train(first.model_copy(update={"online": None, "training": first.training.model_copy(update={"epochs": 1})}))
    publish = {"folder": str(tmp_path / "near"), "every": "1h"}
    drawn = config(tmp_path, **{"online.publish": publish})
    train_online(drawn, until_empty=True)
    assert not (tmp_path / "near" / "current.json").exists()
    begun = config(tmp_path, **{"online.publish": publish, "online.start": str(tmp_path / "first")})
    train_online(begun, until_empty=True, overwrite=True)
    kept = Generation(tmp_path / "near" / "gen-000001").weights
    learned = load_file(tmp_path / "first" / "model.safetensors")
    assert all(torch.equal(kept[name], learned[name]) for name in kept)
    train_online(begun, until_empty=True, resume=True)
    assert [p.name for p in (tmp_path / "near").glob("gen-*")] == ["gen-000001"]


def test_a_place_that_is_away_is_told_of_once_and_tried_again(tmp_path: Path) -> None:
    published(tmp_path / "near", world())
    (tmp_path / "bucket").write_text("a file where a folder is to be")
    said: list[str] = []
    elsewhere = Elsewhere(tmp_path / "near", f"file://{tmp_path}/bucket/shop", said.append)
    begun = time.monotonic()
    elsewhere.copy()
    assert time.monotonic() - begun < 0.1
    until(lambda: said)
    assert said[0].startswith(f"generations cannot be copied to 'file://{tmp_path}/bucket/shop': ")
    time.sleep(1.2)
    assert len(said) == 1
    (tmp_path / "bucket").unlink()
    until(lambda: open_source(f"file://{tmp_path}/bucket/shop").names() == ["gen-000001"])
    until(lambda: len(said) == 2)
    assert said[1].endswith("again")
    elsewhere.close()
    shutil.rmtree(tmp_path / "bucket")


def test_a_generation_that_goes_while_it_is_copied_is_no_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(tmp_path / "near", world())
    tries, push = list[float](), elsewhere_module.push

    def going(*given) -> None:
        tries.append(time.monotonic())
        if len(tries) == 1:
            raise FileNotFoundError(2, "No such file or directory", "gen-000001/items.npy")
        push(*given)

    monkeypatch.setattr(elsewhere_module, "push", going)
    said: list[str] = []
    elsewhere = Elsewhere(tmp_path / "near", f"file://{tmp_path}/bucket", said.append)
    elsewhere.copy()
    until(lambda: len(tries) == 2)
    elsewhere.close()
    assert open_source(f"file://{tmp_path}/bucket").names() == ["gen-000001"]
    assert said == []


def test_an_address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(GenerationError, match="source 'nothing://x'"):
        Elsewhere(tmp_path, "nothing://x", print)
