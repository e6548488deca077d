"""What is Kafka's own: brokers that are gone, and a claim that stands in a topic."""

from __future__ import annotations

import pytest

from prerank.stream import LogError
from prerank.stream.kafka import KafkaLog
from tests.stream.servers import Brokers


def test_brokers_that_are_gone_are_told_and_nothing_hangs():
    brokers = Brokers()
    log = KafkaLog(brokers.address, "events", timeout=5)
    offsets = log.append([b"a"], partition=0)
    assert log.read(0, offsets[0])[0].data == b"a"
    producer = log._producer
    del brokers._host
    log._timeout = 0.2
    with pytest.raises(LogError, match="1 of 1 messages were not acknowledged within 0 s"):
        log.append([b"b"], partition=0)
    assert log._producer is not producer  # its unsent message is not sent later on
    with pytest.raises(LogError, match="cannot be reached"):
        log.read(0, offsets[0] + 1)
    with pytest.raises(LogError):
        log.commit("g", 0, 1)
    log.close()
