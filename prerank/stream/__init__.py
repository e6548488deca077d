"""Events in, training rows out: logs, what is written into them, and label waiting. Knows no model and no torch."""

from prerank.stream.event import Event, Feedback, Impression, Rejected, Removal, Shadow, Tick, Upsert, decode, encode
from prerank.stream.joiner import Joiner
from prerank.stream.log import Entry, Lease, LeaseError, Log, LogError, owner, partition_of
from prerank.stream.producer import Client, key_of, now
from prerank.stream.row import Correction, DeadLetter, Row, Source, read_dead, read_row
from prerank.stream.rows import Position, Rows
from prerank.stream.settings import Wait, Waiting
from prerank.stream.url import open_log
from prerank.stream.waiting import LabelWaiting, Ready, StateError

__all__ = [
    "Client", "Correction", "DeadLetter", "Entry", "Event", "Feedback", "Impression", "Joiner", "LabelWaiting", "Lease",
    "LeaseError", "Log", "LogError", "Position", "Ready", "Rejected", "Removal", "Row", "Rows", "Shadow", "Source", "StateError", "Tick",
    "Upsert", "Wait", "Waiting", "decode", "encode", "key_of", "now", "open_log", "owner", "partition_of", "read_dead", "read_row",
]  # fmt: skip
