"""Leases where all there is is a log: claims stand in one order, and whoever reads them finds the same holder.

The first claim after the last holder's time ran out has the partition. Ours; Kafka's own groups hand partitions round, but do
not say who has one.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Claim(msgspec.Struct):
    """A line of the log of claims. Times are the claimer's clock, ms; a release is a claim until now."""

    group: str
    partition: int
    owner: str
    at: int
    until: int


def holder(messages: Iterable[bytes], group: str, partition: int) -> Claim | None:
    """Whose claim holds after all of them; None without any of the group and partition.

    >>> lines = [Claim("g", 0, "a", 0, 10), Claim("g", 0, "b", 5, 15), Claim("g", 0, "a", 6, 16), Claim("g", 0, "c", 16, 26)]
    >>> [holder(map(msgspec.json.encode, lines[:n]), "g", 0).owner for n in (1, 2, 3, 4)]
    ['a', 'a', 'a', 'c']
    """
    found: Claim | None = None
    for message in messages:
        claim = msgspec.json.decode(message, type=Claim)
        if (claim.group, claim.partition) == (group, partition) and (
            found is None or claim.owner == found.owner or claim.at >= found.until
        ):
            found = claim
    return found
