"""A log on brokers: Kafka, or what speaks its protocol (extra `kafka`, confluent-kafka).

    log = KafkaLog("broker1:9092,broker2:9092", "events", partitions=8)

A partition is the topic's. Producers are idempotent and wait for all replicas. Offsets of groups are Kafka's own, so that its tools see
the lag. Leases are a topic beside it, `TOPIC.leases`, whose partition 0 holds claims (claims.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import msgspec

from prerank.stream.claims import Claim, holder
from prerank.stream.log import TTL, Entry, Lease, LogError, NoLogError, beyond, check_partition, refuse, spread

CLAIMS = 5000  # records of the leases that are read again: far more than are written in one lease's time


class KafkaLog:
    """See the module's first lines and log.py.

    brokers      host:port, several with commas
    topic        made when it is not there: with `partitions`, else by the brokers' own rule, else with one
    partitions   another number than the topic's is refused
    create       false: a topic that is not there is an error
    timeout      seconds after which brokers that do not answer count as unreachable
    settings     of librdkafka: {"security.protocol": "SASL_SSL", ...}
    """

    def __init__(self, brokers: str, topic: str = "events", partitions: int | None = None, *, create: bool = True,
                 timeout: float = 10.0, settings: Mapping[str, str] | None = None) -> None:  # fmt: skip
        """Raises LogError when no broker can be reached, or the topic has other partitions."""
        if partitions is not None and partitions < 1:
            raise ValueError(f"partitions: must be at least 1; got {partitions}")
        self._kafka = _kafka()
        self.name, self._timeout = topic, timeout
        self._settings: dict[str, Any] = {"bootstrap.servers": brokers, "log_level": 0, "socket.timeout.ms": round(timeout * 1000)}
        self._settings |= settings or {}
        self._lock = threading.RLock()
        self._consumers: dict[tuple[str, int], Any] = {}
        self._places: dict[tuple[str, int], int] = {}
        self._topics: dict[str, int] = {}
        self._told: list[Any] | None = None  # what became of the last commit: errors
        with self._reached():
            self._producer = self._fresh()
            if not create and topic not in self._producer.list_topics(timeout=timeout).topics:
                raise NoLogError(f"log '{topic}': the brokers have no such topic")
            self.partitions = self._topic(topic, partitions)
        if partitions not in (None, self.partitions):
            raise LogError(f"log '{topic}': must have {partitions} partitions; the topic has {self.partitions}")

    def append(self, messages: Sequence[bytes], keys: Sequence[bytes] | None = None, *, partition: int | None = None) -> list[int]:
        """See log.py. After an error, some of the messages may be there."""
        offsets = [-1] * len(messages)
        where = spread(messages, keys, partition, self.partitions)
        with self._lock, self._reached():
            for p, which in where.items():
                for i in which:
                    self._send(self.name, p, messages[i], None if keys is None else keys[i], _Delivered(offsets, i))
            self._producer.flush(self._timeout)
        missing = sum(offset < 0 for offset in offsets)
        if missing:
            self._producer = self._fresh()  # what waited in the old one must not be sent after what comes next
            raise LogError(f"log '{self.name}': {missing} of {len(messages)} messages were not acknowledged within {self._timeout:.0f} s")
        return offsets

    def read(self, partition: int, offset: int, limit: int = 1000, wait: float = 0.0) -> list[Entry]:
        """See log.py."""
        check_partition(partition, self.partitions)
        deadline, pause = time.monotonic() + wait, 0.002
        while True:
            with self._lock, self._reached():
                low, high = self._ends(self.name, partition)
                if high < offset:
                    raise beyond(self.name, partition, offset, high)
                found = self._fetch(self.name, partition, max(offset, low), min(limit, high - max(offset, low)))
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.05)

    def start(self, partition: int) -> int:
        """See log.py."""
        check_partition(partition, self.partitions)
        with self._lock, self._reached():
            return self._ends(self.name, partition)[0]

    def end(self, partition: int) -> int:
        """See log.py."""
        check_partition(partition, self.partitions)
        with self._lock, self._reached():
            return self._ends(self.name, partition)[1]

    def commit(self, group: str, partition: int, offset: int) -> None:
        """See log.py."""
        check_partition(partition, self.partitions)
        with self._lock, self._reached():
            member, self._told = self._member(group), None
            member.commit(offsets=[self._kafka.TopicPartition(self.name, partition, offset)], asynchronous=True)
            deadline = time.monotonic() + self._timeout  # a synchronous one waits for a coordinator as long as it likes
            while self._told is None and time.monotonic() < deadline:
                member.poll(0.01)
            if self._told is None:
                raise LogError(f"log '{self.name}': cannot be reached: an offset was not committed within {self._timeout:.0f} s")
            if self._told:
                raise self._kafka.KafkaException(self._told[0])

    def committed(self, group: str, partition: int) -> int | None:
        """See log.py."""
        with self._lock, self._reached():
            (found,) = self._member(group).committed([self._kafka.TopicPartition(self.name, partition)], timeout=self._timeout)
            if found.error:
                raise self._kafka.KafkaException(found.error)
        return None if found.offset < 0 else int(found.offset)

    def trim(self, partition: int, *, before: int | None = None, older: int | None = None) -> None:
        """See log.py. A topic's own retention.ms does the same without being asked."""
        check_partition(partition, self.partitions)
        with self._lock, self._reached():
            from confluent_kafka.admin import AdminClient

            low, high = self._ends(self.name, partition)
            if older is not None:
                place = self._kafka.TopicPartition(self.name, partition, older)
                (young,) = self._consumer(self.name, partition).offsets_for_times([place], timeout=self._timeout)
                before = max(before or 0, high if young.offset < 0 else young.offset)
            if before is not None and before > low:
                place = self._kafka.TopicPartition(self.name, partition, min(before, high))
                admin = AdminClient(self._settings)
                for future in admin.delete_records([place], request_timeout=self._timeout).values():
                    future.result()

    def claim(self, group: str, partition: int, owner: str, ttl: float = TTL) -> Lease:
        """See log.py. Times are of the claimers' clocks: keep them within a fraction of the time to live of each other."""
        check_partition(partition, self.partitions)
        has = self._claimed(group, partition, owner, ttl)
        if has.owner != owner:
            raise refuse(self.name, group, partition, has.owner, (has.until - _now()) / 1000)
        return Lease(self, group, partition, owner, ttl)

    def release(self, group: str, partition: int, owner: str) -> None:
        """See log.py."""
        self._claimed(group, partition, owner, 0.0)

    def close(self) -> None:
        """See log.py."""
        with self._lock:
            for consumer in self._consumers.values():
                consumer.close()
            self._consumers.clear()

    def __repr__(self) -> str:
        return f"<KafkaLog {self.name}: {self.partitions} partitions>"

    def _claimed(self, group: str, partition: int, owner: str, ttl: float) -> Claim:
        """Writes a claim and reads who has the partition after it."""
        topic, now = f"{self.name}.leases", _now()
        offsets = [-1]
        with self._lock, self._reached():
            self._topic(topic, None)
            claim = msgspec.json.encode(Claim(group, partition, owner, now, now + round(ttl * 1000)))
            self._send(topic, 0, claim, group.encode(), _Delivered(offsets, 0))
            self._producer.flush(self._timeout)
            if offsets[0] < 0:
                raise LogError(f"log '{topic}': a claim was not acknowledged within {self._timeout:.0f} s")
            first = max(self._ends(topic, 0)[0], offsets[0] - CLAIMS)
            found = self._fetch(topic, 0, first, offsets[0] + 1 - first)
        claimed = holder((entry.data for entry in found), group, partition)
        assert claimed is not None, "our own is among them"
        return claimed

    def _fresh(self) -> Any:
        """A producer. One that failed stays failed: its messages have numbers, and none may be left out."""
        timeout = round(self._timeout * 1000)
        return self._kafka.Producer(
            {**self._settings, "enable.idempotence": True, "acks": "all", "linger.ms": 1, "delivery.timeout.ms": timeout}
        )

    def _send(self, topic: str, partition: int, message: bytes, key: bytes | None, told: _Delivered) -> None:
        while True:
            try:
                self._producer.produce(topic, message, key, partition=partition, on_delivery=told)
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return

    def _fetch(self, topic: str, partition: int, offset: int, count: int) -> list[Entry]:
        """So many entries, which must be there; fewer where the broker has none at some offsets (its own marks)."""
        if count <= 0:
            return []
        consumer = self._consumer(topic, partition)
        if self._places.get((topic, partition)) != offset:
            consumer.assign([self._kafka.TopicPartition(topic, partition, offset)])
        self._places.pop((topic, partition), None)
        found: list[Entry] = []
        deadline = time.monotonic() + self._timeout
        while not found or found[-1].offset + 1 < offset + count:
            messages = consumer.consume(count - len(found), timeout=min(0.2, self._timeout))
            for message in messages:
                if message.error() is not None:
                    if message.error().code() == self._kafka.KafkaError._PARTITION_EOF:
                        return found
                    raise self._kafka.KafkaException(message.error())
                found.append(Entry(message.offset(), message.timestamp()[1], message.value() or b""))
            if not messages and time.monotonic() > deadline:
                raise LogError(f"log '{topic}': cannot be reached: no answer within {self._timeout:.0f} s")
        self._places[topic, partition] = found[-1].offset + 1
        return found

    def _ends(self, topic: str, partition: int) -> tuple[int, int]:
        found = self._consumer(topic, partition).get_watermark_offsets(self._kafka.TopicPartition(topic, partition), timeout=self._timeout)
        if found is None:
            raise LogError(f"log '{topic}': cannot be reached: no answer within {self._timeout:.0f} s")
        return int(found[0]), int(found[1])

    def _consumer(self, topic: str, partition: int) -> Any:
        return self._connected((topic, partition), "prerank-reader")

    def _member(self, group: str) -> Any:
        return self._connected((f"group {group}", -1), group)

    def _connected(self, key: tuple[str, int], group: str) -> Any:
        if key not in self._consumers:
            settings = {**self._settings, "group.id": group, "enable.auto.commit": False, "enable.partition.eof": True,
                        "auto.offset.reset": "earliest", "fetch.wait.max.ms": 50, "on_commit": self._on_commit,
                        "session.timeout.ms": max(1000, round(self._timeout * 1000))}  # fmt: skip
            self._consumers[key] = self._kafka.Consumer(settings)
        return self._consumers[key]

    def _on_commit(self, error: Any, places: list[Any]) -> None:
        self._told = [e for e in (error, *(place.error for place in places)) if e is not None]

    def _topic(self, topic: str, partitions: int | None) -> int:
        """Its partitions. A topic that is not there is made by us with that many; without, by the brokers, else by us with one."""
        if topic not in self._topics:
            if partitions is not None and topic not in self._producer.list_topics(timeout=self._timeout).topics:
                self._create(topic, partitions)
            deadline = time.monotonic() + min(1.0, self._timeout)  # metadata take a moment to go round
            while not (found := self._producer.list_topics(topic, timeout=self._timeout).topics[topic].partitions):
                if time.monotonic() > deadline:
                    self._create(topic, 1)
                    deadline = time.monotonic() + self._timeout
                time.sleep(0.02)
            self._topics[topic] = len(found)
        return self._topics[topic]

    def _create(self, topic: str, partitions: int) -> None:
        from confluent_kafka.admin import AdminClient, NewTopic

        admin = AdminClient(self._settings)
        try:
            admin.create_topics([NewTopic(topic, partitions)], request_timeout=self._timeout)[topic].result()
        except self._kafka.KafkaException as error:
            if error.args[0].code() != self._kafka.KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except self._kafka.KafkaException as error:
            raise LogError(f"log '{self.name}': cannot be reached: {error.args[0].str()}") from None


class _Delivered:
    """Notes a message's offset when the brokers have it."""

    def __init__(self, offsets: list[int], i: int) -> None:
        self.offsets, self.i = offsets, i

    def __call__(self, error: Any, message: Any) -> None:
        if error is None:
            self.offsets[self.i] = message.offset()


def _now() -> int:
    return time.time_ns() // 1_000_000


def _kafka() -> ModuleType:
    try:
        import confluent_kafka
    except ImportError:
        raise LogError("log: the Kafka client is not installed; pip install 'prerank[kafka]'") from None
    found: ModuleType = confluent_kafka
    return found
