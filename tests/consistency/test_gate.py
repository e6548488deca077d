from __future__ import annotations

from pathlib import Path

import pytest

from prerank.config import ConfigError
from prerank.consistency import broken, check, load

VALUE = {"value": 0.6, "low": 0.55, "high": 0.65, "requests": 9, "skipped": 0}
NOTHING = {"value": None, "low": None, "high": None, "requests": 0, "skipped": 9}
ALONE = {"value": 0.6, "low": None, "high": None, "requests": 1, "skipped": 8}
RECORD = {
    "metrics": {"rbo": ALONE, "overlap@10": VALUE, "regret@10": VALUE, "overlap@500": NOTHING},
    "slices": {"cold users (<= 3 train events)": {"metrics": {"overlap@10": VALUE}}},
    "against": {"difference": {"overlap@10": {"value": 0.02, "low": -0.01, "high": 0.05, "p": 0.2}}},
}


def lines(tmp_path: Path, text: str, record=RECORD) -> list[str]:
    (tmp_path / "gate.yaml").write_text(text)
    return broken(check(load(tmp_path / "gate.yaml"), record, "gate.yaml"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metrics: {overlap@10: {min: 0.6}}", []),
        ("metrics: {overlap@10: {min: 0.601}}", ["overlap@10: must be at least 0.601; it is 0.6"]),
        ("metrics: {overlap@10: {min: 0.55, sure: true}}", []),
        ("metrics: {overlap@10: {min: 0.56, sure: true}}", ["overlap@10: must be at least 0.56; its interval's lower end is 0.55"]),
        ("metrics: {regret@10: {max: 0.6}}", []),
        ("metrics: {regret@10: {max: 0.6, sure: true}}", ["regret@10: must be at most 0.6; its interval's upper end is 0.65"]),
        ("metrics: {regret@10: {min: 0.7, max: 0.8}}", ["regret@10: must be at least 0.7; it is 0.6"]),
        ("metrics: {overlap@500: {min: 0.1}}", ["overlap@500: must be at least 0.1; no request has a value for it"]),
        ("metrics: {rbo: {min: 0.1}}", []),
        ("metrics: {rbo: {min: 0.1, sure: true}}", ["rbo: must be at least 0.1; too few requests for an interval"]),
        ("slices: {cold users: {overlap@10: {min: 0.7}}}", ["cold users: overlap@10: must be at least 0.7; it is 0.6"]),
        ("difference: {overlap@10: {min: 0}}", []),
        ("difference: {overlap@10: {min: 0, sure: true}}",
         ["difference of overlap@10: must be at least 0; its interval's lower end is -0.01"]),
    ],
)  # fmt: skip
def test_bounds(tmp_path: Path, text, expected) -> None:
    assert lines(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a gate without a threshold lets everything pass; give metrics, slices or difference"),
        ("metrics: {overlap@10: {}}", "metrics.overlap@10: needs min, max or both; got neither"),
        ("metrics: {overlap@10: {min: 2, max: 1}}", "min must not be above max; got 2.0 and 1.0"),
        ("metrics: {overlap@10: {mn: 2}}", "unknown key 'metrics.overlap@10.mn'; did you mean 'min'?"),
        ("metrics: {overlap@11: {min: 0}}", "gate.yaml: metrics: no metric 'overlap@11'; did you mean 'overlap@10'?"),
        ("slices: {cold usr: {overlap@10: {min: 0}}}", "slices: no slice 'cold usr' in these requests; did you mean 'cold users'?"),
        ("slices: {cold users: {auc: {min: 0}}}", "gate.yaml: slices.cold users: no metric 'auc'; valid: overlap@10"),
        ("difference: {auc: {min: 0}}", "gate.yaml: difference: no metric 'auc'"),
    ],
)
def test_a_gate_that_cannot_be_is_named(tmp_path: Path, text, message) -> None:
    with pytest.raises(ConfigError) as error:
        lines(tmp_path, text)
    assert message in str(error.value)


def test_a_difference_needs_somebody_to_differ_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="difference: needs a second pre-ranker; give --against"):
        lines(tmp_path, "difference: {overlap@10: {min: 0}}", {k: v for k, v in RECORD.items() if k != "against"})
