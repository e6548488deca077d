"""Training: a step, an offline run around it, and what makes a run resumable."""

from prerank.training.checkpoint import Checkpoint
from prerank.training.lock import FolderInUseError
from prerank.training.offline import Result, fit
from prerank.training.optimizer import Optimizer
from prerank.training.predict import evaluating, predict
from prerank.training.progress import Progress, Quiet, console_progress
from prerank.training.step import DivergedError, train_step
from prerank.training.stop import Interrupted

__all__ = ["Checkpoint", "DivergedError", "FolderInUseError", "Interrupted", "Optimizer", "Progress", "Quiet", "Result",
           "console_progress", "evaluating", "fit", "predict", "train_step"]  # fmt: skip
