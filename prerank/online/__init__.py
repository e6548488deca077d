"""The living system's trainers: rows in, predicted, scored, learned from, observed; generations out."""

from prerank.online.run import train_online
from prerank.online.told import Told
from prerank.online.trainer import Trainer

__all__ = ["Told", "Trainer", "train_online"]
