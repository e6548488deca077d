"""What a leaderboard file may say, and by what a training is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from prerank.config import ConfigError
from prerank.leaderboard import load


def digests(path: Path) -> list[str]:
    return [entry.digest for entry in load(path)[1]]


def test_a_row_is_a_config_and_what_differs(board, tmp_path):
    rows = [{"config": str(tmp_path / "dssm.yaml"), "label": "DSSM"},
            {"config": str(tmp_path / "dssm.yaml"), "label": "wide",
             "set": {"model.width": 16, "training.optimizer.lr": 0.02}}]  # fmt: skip
    _, (base, wide) = load(board(rows=rows))
    assert (base.config.model.options["width"], wide.config.model.options["width"]) == (8, 16)
    assert wide.config.training.optimizer.lr == 0.02
    assert (base.label, wide.label, wide.kind) == ("DSSM", "wide", "two-tower")


def test_the_kind_is_the_models(board, tmp_path):
    rows = [{"config": str(tmp_path / "dssm.yaml"), "label": "DSSM"},
            {"config": str(tmp_path / "mf.yaml"), "label": "FM", "set": {"model": {"name": "fm"}}}]  # fmt: skip
    assert [entry.kind for entry in load(board(rows=rows))[1]] == ["two-tower", "ranker"]


def test_settings_that_decide_a_training_change_its_digest(board, tmp_path):
    path = board()
    before = digests(path)
    for key, value, changes in (("output", "elsewhere", False), ("name", "other", False), ("model", {"name": "mf", "width": 4}, True)):
        raw = yaml.safe_load((tmp_path / "mf.yaml").read_text())
        (tmp_path / "mf.yaml").write_text(yaml.safe_dump({**raw, key: value}))
        assert (digests(path)[1] != before[1]) is changes, key
        assert digests(path)[0] == before[0]
    (tmp_path / "dssm.yaml").write_text("# said otherwise\n" + (tmp_path / "dssm.yaml").read_text())
    assert digests(path)[0] == before[0]


def test_seeds_and_threads_are_the_boards(board, tmp_path):
    _, (entry, _) = load(board())
    one, two = (entry.seeded(seed, tmp_path / "runs") for seed in (0, 7))
    assert (one.training.seed, two.training.seed, two.training.threads) == (0, 7, 1)
    assert one.output != two.output
    assert entry.digest in two.output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"basline": "DSSM"}, "unknown key 'basline'; did you mean 'baseline'?"),
        ({"baseline": "DSM"}, "baseline: no row is called 'DSM'; did you mean 'DSSM'?"),
        ({"seeds": 0}, "seeds: Input should be greater than or equal to 1; got 0"),
        ({"rows": []}, "rows: Tuple should have at least 1 item"),
        ({"rows": [{"config": "nowhere.yaml"}]}, "rows.0: config 'nowhere.yaml': cannot be read"),
        ({"rows": [{"config": "HERE/mf.yaml", "sets": {}}]}, "unknown key 'rows.0.sets'; did you mean 'set'?"),
        ({"rows": [{"config": "HERE/mf.yaml", "kind": "tower"}]}, "rows.0.kind: Input should be 'two-tower' or 'ranker'; got 'tower'"),
        ({"rows": [{"config": "HERE/mf.yaml", "set": {"training.epoch": 2}}]}, "unknown key 'training.epoch'; did you mean 'epochs'?"),
        ({"rows": [{"config": "HERE/mf.yaml", "label": "DSSM"}] * 2}, "rows: label 'DSSM' stands twice"),
        ({"bars": [{"label": "MF", "auc": 90.2, "source": "x"}]}, "bars.0.auc: Input should be less than or equal to 1; got 90.2"),
    ],
)
def test_what_is_wrong_is_named(board, tmp_path, changes, message):
    text = yaml.safe_dump(changes).replace("HERE", str(tmp_path))
    with pytest.raises(ConfigError) as error:
        load(board(**yaml.safe_load(text)))
    assert message in str(error.value)


def test_every_wrong_row_is_named_at_once(board, tmp_path):
    rows = [{"config": str(tmp_path / "mf.yaml"), "set": {"training.epochs": n}} for n in (0, 1, -1)]
    with pytest.raises(ConfigError) as error:
        load(board(rows=rows))
    assert ["rows.0" in str(error.value), "rows.1" in str(error.value), "rows.2" in str(error.value)] == [True, False, True]
