"""CS3's plug-ins for any two-tower (arXiv 2604.19269, Kuaishou 2026): CAS, CTS, CMS. The tower never hears of them.

    model = recipe(widened(schema, settings), sizes)
    apply(model, settings, schema, sizes, hidden_width)
"""

from prerank.synergy.apply import apply, teaching, widened
from prerank.synergy.cas import CycleAdaptive, cycle
from prerank.synergy.cms import RankerMemory
from prerank.synergy.cts import CrossMemory
from prerank.synergy.field import MemoryField

__all__ = ["CrossMemory", "CycleAdaptive", "MemoryField", "RankerMemory", "apply", "cycle", "teaching", "widened"]
