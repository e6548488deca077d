"""A/B tests read back: what each arm's users did, and whether the difference is more than chance."""

from prerank.experiments.compare import Settings, compare
from prerank.experiments.read import Columns, Seen, read

__all__ = ["Columns", "Seen", "Settings", "compare", "read"]
