"""The one error of the room, and what the system refuses when a file is written.

`DataError`: the user's data breaks a rule. Raised at the border, where files and requests are read;
the message names the thing, the rule and what came, one line a problem.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IN_WORDS = re.compile(r"\(os error (\d+)\)")


class DataError(ValueError):
    """Something in the data is wrong; the message says what, where and what would be right."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A full disk, or whatever else the system refuses, is an OSError that names the file or folder.

    Plain writes do not say where they failed; polars and safetensors raise errors of their own that say
    "... (os error 28)" in words only.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None
    except Exception as error:
        found = _IN_WORDS.search(str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None
