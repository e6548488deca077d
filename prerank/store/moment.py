"""When and by whom a batch is learned: what a cache must know to read as of then and to write once."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Moment(NamedTuple):
    """Of a batch of B rows.

    asof      memory is read as it was at this time, milliseconds: the batch's earliest impression; None: newest
    writer    see Stamp
    offsets   [B] int64, of the batch's rows in the log
    known     when the latest label so far was known, milliseconds; see Stamp
    """

    asof: int | None
    writer: str
    offsets: Tensor
    known: int
