"""What a store outside the process says of itself, written by whoever comes first: width, space, and how its time is cut."""

from __future__ import annotations

from prerank.store.contract import SpaceError
from prerank.store.history import History


def claim(width: int, space: str) -> bytes:
    """Of what a store holds."""
    return f"{width} {space}".encode()


def ticks(history: History | None) -> bytes | None:
    """Of its time."""
    return None if history is None else f"{history.tick} {history.keep}".encode()


def agreed(store: str, claimed: bytes, held: bytes | None, history: History | None, kept: bytes | None) -> History | None:
    """The store's history: as whoever came first said. Raises SpaceError when the store is of another width, space or history.

    held, kept   what the store says; None: it is new, or nobody asked for a history yet
    """
    if held not in (None, claimed):
        raise SpaceError(f"store '{store}': must be of width and space '{claimed.decode()}'; it holds '{held.decode()}'")
    if kept is None:
        return history
    found = History(*map(int, kept.split()))
    if history not in (None, found):
        raise SpaceError(f"store '{store}': must have {_told(history)}; it has {_told(found)}")
    return found


def _told(history: History) -> str:
    return f"ticks of {history.tick:,} ms, {history.keep:,} ms of them"
