"""A/B tests read from the log that label waiting writes: from a server's answers to the comparison in a straight line."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from prerank.cli import app
from prerank.data import DataError
from prerank.experiments import Columns, Settings, compare, read
from prerank.serving import Client, Experiment
from prerank.stream import Correction, Feedback, Impression, Row, Source, Tick, now, open_log
from tests.serving.test_recorder import wait
from tests.serving.world import published, server, world

COLUMNS = Columns(user="user", rates=("click",), values=("click*bid", "watched"), latency="latency", request="request", time="ts")


def row(n: int, kind: type = Row, **changes) -> Row:
    """A row of a log: request n // 3 of user n // 6, an experiment that deals by parity."""
    user = n // 6
    shown = {"request": f"r{n // 3}", "user": user, "item": n, "ts": 1000 + n, "experiment": "first", "arm": ("old", "new")[user % 2],
             "bid": 0.5, "latency": float(n // 3), **changes}  # fmt: skip
    labels = {"click": float(n % 4 == 0), "watched": 2.0 * (n % 4 == 0)}
    more = {"kind": "click"} if kind is Correction else {}
    return kind(impression=Impression(**shown), labels=labels, delay=5, appended=9, source=Source(n, 0), **more)


def log_of(tmp_path: Path, rows: list[Row], partitions: int = 2) -> str:
    url = f"sqlite:///{tmp_path}/rows.db?partitions={partitions}"
    log = open_log(url)
    for p in range(partitions):
        log.append([msgspec.json.encode(r) for r in rows if hash(r.impression.request) % partitions == p], partition=p)
    log.close()
    return url


def test_columns_of_a_log(tmp_path):
    rows = [row(n) for n in range(600)]
    seen = read(log_of(tmp_path, rows), COLUMNS)
    assert seen.arms == ("new", "old")
    assert (len(seen.arm), len(np.unique(seen.user)), seen.said) == (600, 100, ())
    assert seen.rates["click"].sum() == 150
    assert seen.values["click*bid"].sum() == 75
    assert seen.values["watched"].sum() == 300
    assert seen.latency is not None
    assert np.isfinite(seen.latency).sum() == 200  # once a request
    assert np.nansum(seen.latency) == sum(range(200))
    assert seen.ts is not None
    assert sorted(seen.ts.tolist()) == list(range(1000, 1600))
    record = compare(seen, Settings("old"))
    assert record["metrics"]["click*bid per 1,000"]["arms"]["old"]["value"] == pytest.approx(
        1000 * np.mean([0.5 * (n % 4 == 0) for n in range(600) if n // 6 % 2 == 0]))  # fmt: skip


def test_a_corrected_row_counts_as_corrected_and_once(tmp_path):
    rows = [row(n) for n in range(60)]
    late = [row(1, Correction)]
    late[0].labels = {"click": 1.0, "watched": 0.0}
    late[0].source = Source(99, 0)
    seen = read(log_of(tmp_path, rows + late), COLUMNS)
    assert (len(seen.arm), seen.rates["click"].sum()) == (60, 16)


def test_a_request_of_nobody_is_a_user_of_its_own(tmp_path):
    seen = read(log_of(tmp_path, [row(n, **({"user": None} if n < 30 else {})) for n in range(60)]), COLUMNS)
    assert len(np.unique(seen.user)) == 10 + 5
    assert not seen.said


def test_experiments_are_told_apart(tmp_path):
    rows = [row(n, **({"experiment": "second"} if n % 6 == 5 else {"experiment": None} if n % 6 == 4 else {})) for n in range(120)]
    url = log_of(tmp_path, rows)
    with pytest.raises(DataError, match="has rows of 2 experiments, first, second; choose one"):
        read(url, COLUMNS)
    with pytest.raises(DataError, match="has no row of experiment 'third'; it has first, second"):
        read(url, Columns(user="user", rates=("click",), experiment="experiment", name="third"))
    seen = read(url, Columns(user="user", rates=("click",), experiment="experiment", name="first"))
    assert len(seen.arm) == 80
    assert seen.said == ("20 rows are of no experiment: left out", "20 rows are not of experiment 'first': left out")


def test_latency_that_nobody_logged_is_not_told(tmp_path):
    assert read(log_of(tmp_path, [row(n, latency=None) for n in range(60)]), COLUMNS).latency is None


@pytest.mark.parametrize(("change", "told"), [
    ({"rates": ("clik",)}, "has no column 'clik'; did you mean 'click'"),
    ({"values": ("watched*bit",)}, "did you mean 'watched\\*bid'"),
    ({"rates": ("watched",)}, "must be 0 or 1; .* is it a --value"),
])  # fmt: skip
def test_a_wrong_column_is_named(tmp_path, change, told):
    from dataclasses import replace

    with pytest.raises(DataError, match=told):
        read(log_of(tmp_path, [row(n) for n in range(60)]), replace(COLUMNS, **change))


def test_a_log_that_is_not_there_is_one_line(tmp_path):
    done = CliRunner().invoke(app, ["abtest", f"sqlite:///{tmp_path}/no.db", "--control", "old", "--rate", "click"])
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "there is no such file" in done.output


def test_from_the_server_to_the_comparison(tmp_path):
    """Answers, clicks by POST /events, label waiting, abtest: only the arm 'new' is worth more clicks."""
    data, random = world(users=300, items=60), np.random.default_rng(0)
    for name in ("old", "new"):
        published(tmp_path / name, data, "mf", seed=len(name))
    arms = [{"name": name, "folder": str(tmp_path / name), "share": 0.5} for name in ("old", "new")]
    experiment = {"name": "first", "arms": arms, "allow_forced": True}
    events, rows = (f"sqlite:///{tmp_path}/{name}.db" for name in ("events", "rows"))
    ids, clicks = data.item_ids.to_list(), {"old": 0, "new": 0}
    with server(None, experiment=experiment, log=events) as (url, _), Client(url) as client:
        client.wait_until_ready(240)
        for user in data.user_ids.to_list():
            said = client.score(ids, user=user, k=10, bids=[0.5] * len(ids))
            liked = [i for i in said.items if random.random() < {"old": 0.2, "new": 0.4}[said.arm]]
            clicks[said.arm] += len(liked)
            told = client.send([Feedback(request=said.request, item=i, ts=now(), kind="click") for i in liked])
            assert told["accepted"] == len(liked)
        client.score(ids, user=data.user_ids[0], k=10, arm="new")
        logged = "prerank_logged_events_total"
        wait(lambda: f"{logged} 3010.0" in httpx.get(f"{url}/metrics").text)
    log = open_log(events)
    log.append([msgspec.json.encode(Tick(ts=now() + 60_000))])
    log.close()
    run = CliRunner().invoke
    waited = run(app, ["events", "wait", events, "--to", rows, "--state", str(tmp_path / "labels"), "--kind", "click=10s", "--until-end",
                       "--lateness", "1s"])  # fmt: skip
    assert waited.exit_code == 0, waited.output
    call = ["abtest", rows, "--control", "old", "--rate", "click", "--value", "click*bid"]
    done = run(app, [*call, "--out", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    assert "10 rows are of no experiment: left out" in done.output
    record = json.loads(run(app, [*call, "--json"]).stdout.splitlines()[-1])
    dealt = Experiment.model_validate(experiment)
    users = {name: sum(dealt.arm_of(u) == name for u in data.user_ids) for name in ("old", "new")}
    assert record["users"] == users
    assert record["rows"] == {name: 10 * n for name, n in users.items()}
    for name in ("old", "new"):
        assert record["metrics"]["click"]["arms"][name]["value"] == pytest.approx(clicks[name] / (10 * users[name]))
        assert record["latency"][name]["requests"] == users[name]
    assert record["metrics"]["click"]["arms"]["new"]["difference"]["low"] > 0.1
    assert (tmp_path / "report/abtest.html").exists()
    log = open_log(events)
    assert log.end(0) == 3010 + sum(clicks.values()) + 1
    log.close()
