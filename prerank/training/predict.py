"""Logits of a loader's rows, in its order: eval mode, no gradient."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from prerank.batch import Batch


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, and afterwards in the mode it was in."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def predict(model: nn.Module, batches: Iterable[Batch], device: torch.device | str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of all candidates that are not padding.  # float32 [n, T], [n, T]"""
    logits, labels = [], []
    with evaluating(model), torch.inference_mode():
        for batch in batches:
            moved = batch.to(device)
            out = model(moved).logits
            logits.append(out[moved.where].float().cpu().numpy())
            labels.append(batch.labels[batch.where].numpy())
    return np.concatenate(logits), np.concatenate(labels)
