"""The C extension, or None where it was not compiled (no gcc): then the same work is done by torch and numpy, slower."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

NAME = "prerank.index._maxsim"
maxsim: Any = importlib.import_module(NAME) if importlib.util.find_spec(NAME) else None
