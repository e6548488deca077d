"""docs/agreement.py on made-up results: what is measured is shown with its seeds, the leaky pool marked, what is not run yet named."""

import json

import pytest

from docs import agreement, tables

MACHINE = {"machine": {"cpu": "a CPU", "cores": 2, "load": 0.5}, "versions": {"torch": "9.9"}}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)

    def write(name, **record):
        (tmp_path / f"{name}.json").write_text(json.dumps({**MACHINE, "command": f"python -m benchmarks.{name}", **record}))

    return write


def metric(value):
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def test_nothing_measured_gives_nothing(results):
    assert {make() for make in agreement.TABLES.values()} == {""}


def test_agreement_has_every_seeds_interval_and_the_aucs(results):
    def seed(hybrid):
        one = {"requests": 600, "per_request": {"median": 265.0}, "auc": {"hybrid": 0.71, "impressions": 0.70},
               "hybrid": {"overlap@100": metric(hybrid)}, "impressions": {"overlap@100": metric(0.5)},
               "difference": {"overlap@100": metric(hybrid - 0.5)}}  # fmt: skip
        return {"DSSM": one}

    results("cascade-agreement", level=0.99, results={"0": seed(0.7), "1": seed(0.8)})
    text = agreement.agreement("cascade-agreement")()
    assert "600 requests a seed, 265 candidates in the median" in text
    assert "99 % intervals" in text
    assert "+0.2000 (+0.1900 .. +0.2100); +0.3000 (+0.2900 .. +0.3100)" in text
    assert "0.7500 ± 0.0707" in text  # mean and sample deviation of .7 and .8
    assert "+0.0100; +0.0100" in text


def test_the_leaky_pool_is_marked_and_no_other(results):
    found = {"values": {"hybrid, full-stage": [0.5, 0.7], "without both": [0.4, 0.4]}, "full_stage_minus": {"without both": metric(0.2)}}
    memory = {"with candidates": [{"ours recall@100": 0.11, "LEAKY recall@100": 0.22}, {"ours recall@100": 0.1, "LEAKY recall@100": 0.33}]}
    in_pools = {pool: {"recall@100": found} for pool in ("ours", "LEAKY")}
    results("candidate-pools", users=10, leaky="why it leaks", memory=memory, results=in_pools)
    text = agreement.pools()
    assert "0.3300" in text
    ours, leaky = text.split("**LEAKY:")
    assert "LEAKY" not in ours
    assert leaky.count("(LEAKY)") or leaky.count("LEAKY") >= 2
    assert "why it leaks" in leaky
    assert "+0.2000 (+0.1900 .. +0.2100)" in ours


def test_rows_that_are_not_run_yet_are_named(results):
    row = {"label": "hybrid", "seeds": [0], "leaky": None, "pool": {"recall@100": [0.5]}, "pool_said": "a pool", "kind": "two-tower"}
    board = {"title": "A board", "protocol": "how", "rows": [row, {"label": "other", "seeds": [], "leaky": None}], "baseline": "hybrid"}
    results("leaderboard-ml1m-ranktower", **board)
    text = agreement.ablations("ml1m-ranktower")()
    assert "0.5000" in text
    assert text.endswith("Not run yet: other.")
