"""Addresses of logs."""

from __future__ import annotations

import pytest

from prerank.stream import LogError, open_log
from prerank.stream.kafka import KafkaLog


def test_a_path_may_be_relative_or_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_log("sqlite:///here.db?partitions=3&sync=off").close()
    again = open_log(f"sqlite:///{tmp_path}/here.db")
    assert again.partitions == 3
    again.close()


@pytest.mark.parametrize(("url", "told"), [
    ("events.db", "must be an address that begins with sqlite://, redis://"), ("mysql://x/y", "must be an address that begins with"),
    ("sqlite:///", "must look like sqlite:///events.db"), ("sqlite:///e.db?sync=maybe", "sync be on or off"),
    ("sqlite:///e.db?partition=3", "no option 'partition'; did you mean 'partitions'"),
    ("sqlite:///e.db?partitions=0", "from 1 on; got '0'"), ("kafka:///topic", "must look like kafka://"),
    ("kafka://host:1", "must look like kafka://"), ("kafka://h:1/t?acks=1", "no option 'acks'"),
])  # fmt: skip
def test_wrong_addresses(url, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=told.replace("?", r"\?")):
        open_log(url)


def test_a_log_that_is_only_looked_at_is_not_made(tmp_path):
    with pytest.raises(LogError, match="there is no such file"):
        open_log(f"sqlite:///{tmp_path}/none.db", create=False)
    assert not (tmp_path / "none.db").exists()


def test_what_cannot_be_opened_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"no database, but long enough to be one" * 100)
    with pytest.raises(LogError, match="file is not a database"):
        open_log(f"sqlite:///{tmp_path}/file")
    with pytest.raises(LogError, match="unable to open database file"):
        open_log(f"sqlite:///{tmp_path}/no/folder.db")
    with pytest.raises(LogError, match="log 'e': cannot be reached"):
        open_log(f"unix://{tmp_path}/none?log=e")
    with pytest.raises(LogError, match="cannot be reached"):
        KafkaLog("127.0.0.1:1", "t", timeout=0.3)
