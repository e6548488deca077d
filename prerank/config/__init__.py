"""One YAML file <-> typed settings; an unknown key is an error that names the nearest valid one.

    config = load("configs/ml1m/honest-inttower.yaml", overrides=["training.seed=3"])

Everything a run depends on is here, so that a run folder's `config.yaml` reproduces it.
"""

from prerank.config.asof import AsOf, milliseconds
from prerank.config.data import Data, Derived, Label, Split
from prerank.config.errors import ConfigError, nearest
from prerank.config.file import checked, dump, load, override, parse, put, read
from prerank.config.growth import Growth
from prerank.config.model import Model
from prerank.config.online import Drift, Online, Publish, Recall
from prerank.config.run import Config, Optimizer, ParameterGroup, TermConfig, Training
from prerank.config.stages import Ecpm, Evaluation, Lists, StageColumn, Take, Teacher, monitored
from prerank.config.synergy import Cas, Cms, Cts, Synergy

__all__ = [
    "AsOf",
    "Cas",
    "Cms",
    "Config",
    "ConfigError",
    "Cts",
    "Data",
    "Derived",
    "Drift",
    "Ecpm",
    "Evaluation",
    "Growth",
    "Label",
    "Lists",
    "Model",
    "Online",
    "Optimizer",
    "ParameterGroup",
    "Publish",
    "Recall",
    "Split",
    "StageColumn",
    "Synergy",
    "Take",
    "Teacher",
    "TermConfig",
    "Training",
    "checked",
    "dump",
    "load",
    "milliseconds",
    "monitored",
    "nearest",
    "override",
    "parse",
    "put",
    "read",
]
