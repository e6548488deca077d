"""Two-tower models. A model is a recipe: a function (schema, sizes, options) -> TwoTower."""

from collections.abc import Callable

from prerank.towers.cross_maxsim import CrossMaxSim
from prerank.towers.dat import dat
from prerank.towers.dssm import dssm
from prerank.towers.heads import MaxSim, maxsim
from prerank.towers.history_mf import history_mf
from prerank.towers.hit import hit
from prerank.towers.ihm_dat import ihm_dat
from prerank.towers.inttower import inttower
from prerank.towers.mf import mf
from prerank.towers.ranktower import ranktower
from prerank.towers.rcg import rcg
from prerank.towers.two_tower import TwoTower
from prerank.towers.two_tower_fm import two_tower_fm

TOWERS: dict[str, Callable[..., TwoTower]] = {
    "mf": mf, "history_mf": history_mf, "dssm": dssm, "inttower": inttower, "ranktower": ranktower, "dat": dat, "ihm_dat": ihm_dat,
    "hit": hit, "rcg": rcg, "two_tower_fm": two_tower_fm,
}  # fmt: skip

__all__ = [
    "TOWERS",
    "CrossMaxSim",
    "MaxSim",
    "TwoTower",
    "dat",
    "dssm",
    "history_mf",
    "hit",
    "ihm_dat",
    "inttower",
    "maxsim",
    "mf",
    "ranktower",
    "rcg",
    "two_tower_fm",
]
