"""Many callers to a transaction: each hears when its own is durable, or that it is not."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from prerank.serving.commits import Commits
from prerank.stream import LogError


class Slow:
    """A log that takes its time, and says what came together."""

    name, partitions = "slow", 1

    def __init__(self, seconds=0.05):
        self.calls, self.seconds, self.away = [], seconds, False

    def append(self, messages, keys=None, *, partition=None):
        time.sleep(self.seconds)
        if self.away:
            raise LogError("away")
        self.calls.append((list(messages), list(keys)))
        return list(range(len(messages)))


def run(log, *callers):
    """Calls at once -> what each came to."""

    async def together():
        return await asyncio.gather(*callers, return_exceptions=True)

    return asyncio.run(together())


def test_callers_share_transactions_in_their_order():
    log = Slow()
    commits = Commits(log)
    commits.start()
    found = run(log, *(commits.append([b"%d a" % n, b"%d b" % n], [b"k%d" % n] * 2) for n in range(50)))
    commits.close()
    assert found == [None] * 50
    assert len(log.calls) <= 3
    assert [m for messages, _ in log.calls for m in messages] == [b"%d %s" % (n, c) for n in range(50) for c in (b"a", b"b")]
    assert [k for _, keys in log.calls for k in keys] == [b"k%d" % n for n in range(50) for _ in range(2)]


def test_a_transaction_is_bounded(monkeypatch):
    monkeypatch.setattr("prerank.serving.commits.BATCH", 10)
    log = Slow(0.0)
    commits = Commits(log)
    run_late = [commits.append([b"m"] * n, [b"k"] * n) for n in (4, 4, 4, 25, 1)]
    threading.Timer(0.1, commits.start).start()
    assert run(log, *run_late) == [None] * 5
    commits.close()
    assert [len(messages) for messages, _ in log.calls] == [8, 4, 25, 1]


def test_everyone_hears_that_the_log_is_away_and_the_next_that_it_is_back():
    log = Slow()
    commits = Commits(log)
    commits.start()
    log.away = True
    assert [str(e) for e in run(log, *(commits.append([b"m"], [b"k"]) for _ in range(5)))] == ["away"] * 5
    log.away = False
    assert run(log, commits.append([b"m"], [b"k"])) == [None]
    commits.close()
    with pytest.raises(LogError, match="the server ends"):
        asyncio.run(commits.append([b"m"], [b"k"]))


def test_too_many_are_refused_at_once_and_whoever_goes_away_is_not_told(monkeypatch):
    monkeypatch.setattr("prerank.serving.commits.CALLS", 3)
    log = Slow(0.3)
    commits = Commits(log)
    commits.start()

    async def impatient():
        await asyncio.wait_for(commits.append([b"m"], [b"k"]), 0.05)

    found = run(log, *(impatient() for _ in range(5)))
    commits.close()
    assert [type(e).__name__ for e in found] == ["TimeoutError"] * 3 + ["LogError"] * 2
    assert "3 calls wait for it already" in str(found[-1])
