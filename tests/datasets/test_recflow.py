"""RecFlow: a Feather file a day, flags for the stages, labels of what was shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from prerank.batch import Stage
from prerank.config import ConfigError, Data, Lists
from prerank.data import ALL, DataError, ListLoader, prepare
from prerank.datasets import notes, resolve
from tests.datasets.tiny import write


@pytest.fixture
def official(tmp_path: Path) -> Path:
    return write("recflow", tmp_path / "official")


def settings(folder: Path, **more: object) -> Data:
    return Data.model_validate({"recipe": "recflow", "options": {"from": str(folder)}, **more})


def test_flags_become_the_furthest_stage(official: Path) -> None:
    data = resolve(settings(official))
    log = pl.read_parquet(data.log or "")
    assert log.height == 3 * 40
    assert log["stage"].to_list()[:10] == ["impression", "ranking", "ranking", "pre_ranking", "recall"] * 2
    said = notes(Path(data.log or "").parent)
    assert (said["days"], said["rows_of_no_stage"]) == (3, 3)
    assert log["rank_score"].to_list()[:5] == [0.0, -1.0, -2.0, None, None]


def test_videos_and_users_are_there_once(official: Path) -> None:
    data = resolve(settings(official))
    users, items = pl.read_parquet(data.users or ""), pl.read_parquet(data.items or "")
    assert sorted(users["user_id"]) == [0, 1, 2]
    assert users["province"].unique().to_list() == [2]  # as they were last
    assert items["video_id"].is_unique().all()
    assert items.filter(pl.col("video_id") == 9)["author_id"].to_list() == [2]


def test_only_what_was_shown_is_a_row_and_requests_are_lists(official: Path) -> None:
    dataset = prepare(resolve(settings(official)))
    assert dataset.stage is not None
    assert [len(dataset.rows(s)) for s in ("train", "validation", "test")] == [8, 8, 8]
    assert [len(dataset.rows(s, ALL)) for s in ("train", "validation", "test")] == [40, 40, 40]
    assert dataset.labels[dataset.stage != Stage.IMPRESSION].sum() == 0
    stages = {"impression": "all", "ranking": 2, "pre_ranking": "all", "recall": "all"}
    loader = ListLoader(dataset, "train", Lists.model_validate({"stages": stages}), 4)
    (batch,) = loader.epoch(0)
    assert batch.stage is not None
    assert batch.teacher is not None
    assert sorted(batch.stage[0][batch.where[0]].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    np.testing.assert_array_equal(batch.teacher[batch.where].isnan(), (batch.stage >= Stage.PRE_RANKING)[batch.where])


@pytest.mark.parametrize("column", ["rank_score", "playing_time", "realshow", "like"])
def test_outcomes_are_no_features(official: Path, column: str) -> None:
    with pytest.raises(ConfigError, match=f"column '{column}' cannot be a feature"):
        resolve(settings(official, features=[{"name": column, "side": "item"}]))


def test_wrong_files_are_named(official: Path) -> None:
    day = official / "all_stage" / "2024-02-17.feather"
    whole = pl.read_ipc(day.read_bytes())
    whole.drop("coarse_neg").write_ipc(day)
    with pytest.raises(DataError, match=r"2024-02-17.feather': must have the official columns; missing: coarse_neg"):
        resolve(settings(official))
    day.write_bytes(day.read_bytes()[:100])
    with pytest.raises(DataError, match="is not a whole Feather file"):
        resolve(settings(official))
    (official / "all_stage" / "2024-02-18.feather").unlink()
    with pytest.raises(ConfigError, match=r"missing: all_stage/2024-02-18.feather"):
        resolve(settings(official))
