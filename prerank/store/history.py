"""How far back a store can be read: what was known at a moment of the past, and nothing later.

Time is cut into ticks. A read as of a moment sees what was blended up to the end of the tick before the moment's: that state no longer
changes, so that a read that is repeated after a crash is the same read.
"""

from __future__ import annotations

from typing import NamedTuple

ALWAYS = -(2**63)  # the tick of what was written without a time: it is seen at every moment


class History(NamedTuple):
    """Both in milliseconds.

    tick   within it a read sees nothing of what is blended: short ticks are fresher and take more room, as an id that is blended in every
           tick has keep / tick + 2 states
    keep   how far back a read may ask, from the newest blend; a multiple of tick. It covers how long a label is waited for, and what a
           writer may read again after a crash
    """

    tick: int
    keep: int

    def at(self, moment: int) -> int:
        """The tick of a moment."""
        return moment // self.tick

    def oldest(self, tick: int) -> int:
        """The oldest tick that may be asked for when something of this tick was blended."""
        return tick - self.keep // self.tick


def check_history(history: History | None) -> None:
    """Raise ValueError for ticks that keep nothing."""
    if history is not None and not (0 < history.tick <= history.keep and history.keep % history.tick == 0):
        raise ValueError(f"history: keep must be a multiple of tick, and tick above 0; got tick {history.tick}, keep {history.keep}")


def ticked(history: History | None, asof: int | None) -> int | None:
    """The tick of a read's moment, None: newest. Raises ValueError for a moment in a store that keeps no history."""
    if asof is None:
        return None
    if history is None:
        raise ValueError("asof: must be None in a store that keeps no history")
    return history.at(asof)
