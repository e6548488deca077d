"""A log that is away is a quiet one: nothing is lost, nothing ends, and it is told of once."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest

from prerank.data import prepare
from prerank.online import Trainer
from prerank.online.intake import Intake
from prerank.stream import LeaseError, LogError, open_log
from tests.online.world import N, config, fill, frame, messages
from tests.stream.servers import RedisServer


class Switched:
    """A log that can be switched off."""

    def __init__(self, log: Any) -> None:
        self._log, self.off, self.asked = log, False, 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._log, name)
        if not callable(found):
            return found

        def call(*given: Any, **more: Any) -> Any:
            self.asked += 1
            if self.off:
                raise LogError("log 'rows': cannot be reached")
            return found(*given, **more)

        return call


@pytest.fixture
def log(tmp_path: Path):
    fill(tmp_path, frame())
    found = Switched(open_log(f"sqlite:///{tmp_path / 'rows.db'}"))
    yield found
    found.off = False
    found.close()


def drained(intake: Intake, rounds: int = 200) -> list[int]:
    found = []
    for n in range(rounds):
        intake.renew()
        intake.more(0.01, n)
        found += [int(r.impression.request) for r in intake.found]  # type: ignore[union-attr]
        intake.lag()
        if intake.found:
            intake.keep()
            intake.commit()
    return found


def test_rows_come_once_over_an_outage(log: Switched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prerank.online.intake.BACKOFF", (0.01, 0.02))
    said: list[str] = []
    intake = Intake(log, "two-tower:x", "me", [0], {}, 64, say=said.append)  # type: ignore[arg-type]
    before = drained(intake, 5)
    assert len(before) == 5 * 64
    log.off = True
    assert drained(intake, 20) == []
    assert N - 5 * 64 <= intake.lag() <= N  # as of before
    assert said == ["log 'rows': cannot be reached; it is tried again"]
    log.off = False
    after = drained(intake)
    assert before + after == list(range(N))
    assert said[1:] == [f"log '{log.name}': is there again"]
    log.off = True
    intake.release()


def test_pauses_grow(log: Switched, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("prerank.online.intake.time", type("Clock", (), {"monotonic": lambda: now[0], "sleep": lambda s: None}))
    intake = Intake(log, "two-tower:x", "me", [0], {}, 64)  # type: ignore[arg-type]
    log.off, tries = True, []
    for _ in range(3000):
        before = log.asked
        intake.more(0.0, 0)
        if log.asked > before:
            tries.append(now[0])
        now[0] += 0.01
    gaps = [round(b - a, 1) for a, b in itertools.pairwise(tries)]
    assert gaps[:6] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]
    assert set(gaps[6:]) == {5.0}


def test_who_wants_the_end_of_it_is_told(log: Switched) -> None:
    intake = Intake(log, "two-tower:x", "me", [0], {}, 64)  # type: ignore[arg-type]
    intake.patient, log.off = False, True
    with pytest.raises(LogError, match="cannot be reached"):
        intake.more(0.0, 0)


def test_a_trainer_outlives_its_redis(tmp_path: Path) -> None:
    frame().write_parquet(tmp_path / "log.parquet")
    server = RedisServer(durable=True)
    url = server.url("rows", 1)
    log = open_log(url)
    log.append(messages(frame().head(N // 2)))
    given = config(tmp_path, **{"online.rows": url, "online.checkpoint": "0s"})
    said: list[str] = []
    trainer = Trainer(given, prepare(given.data), tmp_path / "run", say=said.append)
    gone: list[float] = []

    def stop() -> bool:
        if trainer.told.rows == N // 2 and not gone:
            server.kill()
            gone.append(time.monotonic())
        elif gone and len(gone) == 1 and time.monotonic() > gone[0] + 1:
            server.start()
            log.append(messages(frame())[N // 2 :])
            gone.append(time.monotonic())
        return trainer.told.rows >= N or time.monotonic() > begun + 60

    begun = time.monotonic()
    try:
        told = trainer.run(stop)
    finally:
        log.close()
        trainer.log.close()
        server.close()
    assert (told.rows, told.skipped) == (N, 0)
    assert [line.partition(";")[2] for line in said if "tried again" in line] == [" it is tried again"]
    assert "log 'rows': is there again" in said


def test_another_owner_is_no_outage(log: Switched) -> None:
    mine = Intake(log, "two-tower:x", "me", [0], {}, 64)  # type: ignore[arg-type]
    with pytest.raises(LeaseError, match="belongs to 'me'"):
        Intake(log, "two-tower:x", "you", [0], {}, 64)  # type: ignore[arg-type]
    log.release("two-tower:x", 0, "me")
    log.claim("two-tower:x", 0, "you")
    mine._leases[0]._until = 0.0  # it is time to renew
    with pytest.raises(LeaseError, match="belongs to 'you'"):
        mine.renew()
