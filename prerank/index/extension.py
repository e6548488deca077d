"""The C extension, or None where it was not compiled (no gcc): then the same work is done by torch and numpy, slower."""

from __future__ import annotations

from typing import Any

maxsim: Any
try:
    from prerank.index import _maxsim as maxsim
except ImportError:
    maxsim = None
