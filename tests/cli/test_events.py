"""`prerank events`."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import polars as pl
import pytest
from typer.testing import CliRunner

from prerank.cli import app
from prerank.stream import Joiner, Rows, Waiting, open_log


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["events", *arguments])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def log(tmp_path: Path) -> str:
    rows = {"user_id": [1, 2], "item_id": [7, 8], "ts": [1000, 2000], "is_click": [0, 1], "tab": [3, 4]}
    pl.DataFrame(rows).write_parquet(tmp_path / "log.parquet")
    url = f"sqlite:///{tmp_path}/events.db"
    code, out, _ = run("replay", str(tmp_path / "log.parquet"), "--to", url, "--feedback", "click=is_click@5s", "--close", "1h", "-q")
    assert code == 0
    assert f"{url}: 3 events in " in out
    return url


def test_from_parquet_to_rows(log, tmp_path):
    to, dead = f"sqlite:///{tmp_path}/rows.db", f"sqlite:///{tmp_path}/dead.db"
    opened = open_log(log)
    opened.append([b"poison"])
    opened.close()
    state = str(tmp_path / "s")
    code, out, _ = run("wait", log, "--to", to, "--dead", dead, "--state", state, "--kind", "click=10m", "--early", "--until-end", "-q")
    assert code == 0
    assert "events 5" in out
    assert "rows 2" in out
    assert "dead malformed 1" in out
    rows = Rows(open_log(to))
    assert {r.impression.item: (r.labels, r.impression.features) for r in rows.take()} == {
        7: ({"click": 0.0}, {"tab": 3}), 8: ({"click": 1.0}, {"tab": 4}),
    }  # fmt: skip
    rows.log.close()
    code, out, _ = run("tail", dead)
    assert '"reason":"malformed"' in out
    code, out, _ = run("tail", log, "-n", "2")
    assert [line.split(" ", 4)[1] for line in out.splitlines()] == ["3", "4"]
    assert out.splitlines()[0].endswith('{"type":"tick","ts":3607000}')
    assert out.splitlines()[1].endswith("poison")


def test_a_stop_is_heard_and_the_state_saved(log, tmp_path):
    to, state = f"sqlite:///{tmp_path}/rows.db", str(tmp_path / "s")
    command = [sys.executable, "-m", "prerank", "events", "wait", log, "--to", to, "--state", state, "--kind", "click=10m",
               "--every", "1000"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        rows, deadline = open_log(f"sqlite:///{tmp_path}/rows.db"), time.monotonic() + 30
        while rows.end(0) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "rows 2" in out
    rows.close()
    assert (tmp_path / "s" / "labels-0.state").exists()


def test_values_of_wrong_types_are_refused_by_a_runs_config(log, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("data:\n  log: log.csv\n  labels: {click: {column: is_click}}\n"
                      "  features: [{name: tab, side: context, kind: multi}]\nmodel: {name: dssm}\n")  # fmt: skip
    to, state = f"sqlite:///{tmp_path}/r.db", str(tmp_path / "s")
    _, out, err = run("wait", log, "--to", to, "--state", state, "--kind", "click=10m", "--early", "--until-end", "-c", str(config))
    assert "dead malformed 2" in out, err


@pytest.mark.parametrize(("arguments", "told"), [
    (("tail", "events.db"), "must be an address that begins with sqlite://"),
    (("wait", "LOG", "--to", "LOG", "--state", "S", "--kind", "click"), "--kind 'click': must look like click=10m"),
    (("wait", "LOG", "--to", "LOG", "--state", "S", "--kind", "click=ten"), "kinds.click.window: a time span must be a number"),
    (("wait", "LOG", "--to", "LOG", "--state", "S", "--kind", "click=1m", "--idle", "x"), "--idle: a time span must be"),
    (("wait", "LOG", "--to", "LOG", "--state", "S", "--kind", "click=1m"), "e.db': there is no such file; whoever sends events makes it"),
    (("replay", "none.parquet", "--to", "LOG"), "'none.parquet': cannot be read as Parquet"),
    (("replay", "none.parquet", "--to", "LOG", "--speed", "fast"), "--speed: must be max, or a number above 0 and x"),
])  # fmt: skip
def test_mistakes_are_one_line(arguments, told, tmp_path):
    code, _, err = run(*(f"sqlite:///{tmp_path}/e.db" if a == "LOG" else str(tmp_path / a) if a == "S" else a for a in arguments))
    assert code == 2
    assert told in err
    assert "Traceback" not in err
    assert arguments[0] != "wait" or not (tmp_path / "e.db").exists()


def test_a_log_that_nobody_has_made_yet_is_waited_for_when_asked(tmp_path):
    log, to = (f"sqlite:///{tmp_path}/{name}.db" for name in ("events", "rows"))
    code, out, _ = run("wait", log, "--to", to, "--state", str(tmp_path / "s"), "--kind", "click=1m", "--create", "--until-end", "-q")
    assert (code, out) == (0, "nothing yet\n")
    assert (tmp_path / "events.db").exists()


def test_prometheus_is_told(log, tmp_path):
    to, port = f"sqlite:///{tmp_path}/rows.db", 0
    command = [sys.executable, "-m", "prerank", "events", "wait", log, "--to", to, "--state", str(tmp_path / "s"), "--kind", "click=10m",
               "--metrics-port", str(port), "-q"]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        url, deadline, page = line.removeprefix("metrics: ").strip(), time.monotonic() + 30, ""
        while 'what="rows"} 2.0' not in page and time.monotonic() < deadline:
            page = httpx.get(url).text
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert 'prerank_labels_total{partition="0",what="rows"} 2.0' in page
    assert 'prerank_labels_watermark_seconds{partition="0"} 3547.0' in page  # the tick, less a minute
    assert 'prerank_labels_lag{partition="0"} 0.0' in page


def test_old_entries_are_trimmed_but_none_that_a_group_has_not_read(log, tmp_path, monkeypatch):
    opened = open_log(log)  # four entries of now
    monkeypatch.setattr("prerank.stream.sqlite._now", lambda: time.time_ns() // 1_000_000 + 10 * 86_400_000)
    opened.append([b"young"] * 2)
    opened.commit("two-tower:shop", 0, 2)
    monkeypatch.setattr(time, "time_ns", lambda before=time.time_ns: before() + 10 * 86_400_000 * 1_000_000)
    code, out, _ = run("trim", log, "--older", "7d", "--read-by", "two-tower:shop", "--read-by", "two-tower:other")
    assert (code, out) == (0, f"{log}: 0 entries trimmed\n")
    assert run("trim", log, "--older", "7d", "--read-by", "two-tower:shop")[1] == f"{log}: 2 entries trimmed\n"
    assert [e.offset for e in opened.read(0, 0)] == [2, 3, 4, 5]
    assert run("trim", log, "--older", "7d")[1] == f"{log}: 2 entries trimmed\n"
    assert [e.data for e in opened.read(0, 0)] == [b"young", b"young"]
    assert run("trim", log, "--older", "0s")[1] == f"{log}: 2 entries trimmed\n"
    assert run("trim", log, "--older", "0s")[1] == f"{log}: 0 entries trimmed\n"
    assert opened.end(0) == 6
    opened.close()
    code, _, err = run("trim", f"sqlite:///{tmp_path}/none.db", "--older", "7d")
    assert (code, "there is no such file" in err) == (2, True)


def test_who_was_killed_is_followed_at_once(log, tmp_path):
    """His lease lives for half a minute, but the kernel says that he is dead."""
    to, state = f"sqlite:///{tmp_path}/rows.db", str(tmp_path / "s")
    command = [sys.executable, "-m", "prerank", "events", "wait", log, "--to", to, "--state", state, "--kind", "click=10m", "--early", "-q"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        rows, deadline = open_log(to), time.monotonic() + 60
        while rows.end(0) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        other = Joiner(open_log(log), open_log(to), Waiting(kinds={"click": "10m"}, early=True), state)
        other.step()
        assert other.parts == {}  # he lives, in his folder as everywhere
        other.close()
        process.kill()
    begun = time.monotonic()
    after = Joiner(open_log(log), open_log(to), Waiting(kinds={"click": "10m"}, early=True), state)
    after.step()
    assert list(after.parts) == [0]
    assert time.monotonic() - begun < 5
    after.close()
    rows.close()
    for joiner in (other, after):
        joiner.events.close()
        joiner.rows.close()
