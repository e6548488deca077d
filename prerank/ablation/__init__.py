"""What CS3 adds, so that it can be believed: backbones x subsets x seeds in both protocols, with paired tests and a control."""

from prerank.ablation.ablate import ablate
from prerank.ablation.plan import Backbone, Cell, Plan, load

__all__ = ["Backbone", "Cell", "Plan", "ablate", "load"]
