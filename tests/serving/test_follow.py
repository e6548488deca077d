"""Generations and deltas from elsewhere: through a Redis and through fsspec, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prerank import build
from prerank.serving import GenerationError
from prerank.serving.delta import write_delta
from prerank.serving.follow import Mirror, Source, open_source, push
from prerank.serving.live import Live
from tests.serving.deltas import changes, learned
from tests.serving.test_live import EVERY, logits
from tests.serving.world import published, world
from tests.store.conftest import redis_url  # noqa: F401


@pytest.fixture(params=["fsspec", "redis"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Source]:
    if request.param == "redis":
        pytest.importorskip("redis")
        url = f"{request.getfixturevalue('redis_url')}?prefix={tmp_path.name}"
    else:
        pytest.importorskip("fsspec")
        url = f"file://{tmp_path}/bucket"
    return lambda: open_source(url)


def test_a_server_follows_what_a_trainer_pushes(source: Callable[[], Source], tmp_path: Path) -> None:
    data = world()
    own, far = tmp_path / "trainer", tmp_path / "server"
    made = published(own, data)
    with pytest.raises(GenerationError, match=r"holds no current\.json"):
        Live(far, build.served, Mirror(source(), far))
    push(own, source())
    live = Live(far, build.served, Mirror(source(), far))
    after = learned(made, 1)
    write_delta(own, changes(made, after, data, EVERY))
    push(own, source())
    assert live.refresh()
    here = Live(own, build.served)
    assert live.scorer.generation.sequence == here.scorer.generation.sequence == 1
    np.testing.assert_array_equal(logits(live.scorer, data, 2, EVERY), logits(here.scorer, data, 2, EVERY))
    for seed in range(3):
        published(own, data, seed=seed)
    push(own, source())
    assert live.refresh()
    assert live.scorer.generation.meta.number == 4
    assert sorted(p.name for p in far.glob("*-0*")) == ["gen-000002", "gen-000003", "gen-000004"] == sorted(source().names())
    assert not live.refresh()


def test_a_gap_is_told_to_the_source(source: Callable[[], Source], tmp_path: Path) -> None:
    data = world()
    own, far = tmp_path / "trainer", tmp_path / "server"
    made = published(own, data)
    push(own, source())
    live = Live(far, build.served, Mirror(source(), far))
    for n in range(2):
        write_delta(own, changes(made, learned(made, n), data, EVERY))
    push(own, source())
    source().remove("delta-000001-000001")
    with pytest.raises(GenerationError, match="delta 1 of generation 1 is missing"):
        live.refresh()
    asked = json.loads(source().read("wanted.json") or b"")
    assert (asked["generation"], asked["sequence"]) == (1, 0)


def test_what_is_uploaded_in_part_is_not_seen(tmp_path: Path) -> None:
    """An object store has no rename: what says that a name is whole comes last."""
    pytest.importorskip("fsspec")
    data = world()
    published(tmp_path / "trainer", data)
    bucket = open_source(f"file://{tmp_path}/bucket")
    written: list[str] = []
    put = bucket.put
    bucket.put = lambda path, content: (written.append(path), put(path, content))[1]  # type: ignore[method-assign]
    bucket.write("gen-000001", tmp_path / "trainer" / "gen-000001")
    assert written[-1] == "gen-000001/meta.json"
    (tmp_path / "bucket" / "gen-000001" / "meta.json").unlink()
    assert bucket.names() == []


def test_a_source_that_is_away_is_told_once(tmp_path: Path) -> None:
    pytest.importorskip("redis")
    data = world()
    published(tmp_path, data)
    live = Live(tmp_path, build.served, Mirror(open_source(f"unix://{tmp_path}/nothing"), tmp_path))
    assert live.scorer.generation.meta.number == 1  # what was copied before is served
    assert not live.refresh()
