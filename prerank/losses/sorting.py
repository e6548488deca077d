"""Losses through a relaxed sort: the permutation matrix that sorts the logits should be the one that sorts the labels.

    loss = - (1/n) sum_i sum_j P(y)_ij log P(z)_ij        row i: which candidate stands at place i, best first

Labels and logits live on different scales, so each has a temperature. Lists whose labels are all equal say nothing of order and
are left out (our choice).

A list of n costs O(n^2) time. Its [n, n] matrices are there for a few lists at a time (`parts.py`), so memory does not grow with the
batch: on lists of 512 one matrix is 1 MB, and half a dozen of them are alive at once, not half a dozen for each list.

logits, labels [.., n], lists on the last axis; where False = left out; mean over lists; none that speaks gives 0.
"""

from __future__ import annotations

from torch import Tensor

from prerank.losses.lists import differ, kept, mean_over_lists
from prerank.losses.parts import by_parts
from prerank.losses.relaxation import NeuralSort, Relaxation, SoftSort, likeness


def neuralsort(logits: Tensor, labels: Tensor, *, where: Tensor | None = None, temperature: float = 1.0,
               label_temperature: float = 0.1) -> Tensor:  # fmt: skip
    """Cross entropy between NeuralSort's relaxed permutations of labels and logits.

        P(s)_i = softmax( ((n + 1 - 2i) s - A 1) / t ),   A_jk = |s_j - s_k|

    Grover et al., "Stochastic Optimization of Sorting Networks via Continuous Relaxations", ICLR 2019 (eq. 5). Candidates of equal
    labels share their places equally.

    temperature         t of the logits
    label_temperature   t of the labels: small against the gaps between labels
    """
    _positive(temperature, label_temperature)
    return _loss(logits, labels, where, NeuralSort(temperature), NeuralSort(label_temperature))


def softsort(logits: Tensor, labels: Tensor, *, where: Tensor | None = None, temperature: float = 1.0, label_temperature: float = 0.1,
             power: float = 2.0) -> Tensor:  # fmt: skip
    """Cross entropy between SoftSort's relaxed permutations of labels and logits.

        P(s)_i = softmax( - |s_[i] - s|^power / t ),   s_[i] the i-th largest

    Prillo and Eisenschlos, "SoftSort: A Continuous Relaxation for the argsort Operator", ICML 2020 (eq. 4); RankTower eq. 15-16 with
    power 2. Candidates of equal labels share their places equally.

    temperature         t of the logits
    label_temperature   t of the labels: small against the gaps between labels
    """
    _positive(temperature, label_temperature)
    if power < 1:
        raise ValueError(f"power: must be at least 1; got {power}")
    return _loss(logits, labels, where, SoftSort(temperature, power), SoftSort(label_temperature, power))


def _loss(logits: Tensor, labels: Tensor, where: Tensor | None, of_logits: Relaxation, of_labels: Relaxation) -> Tensor:
    def values(z: Tensor, keep: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return likeness(z, y, keep, of_logits, of_labels)

    keep = kept(logits, where)
    return mean_over_lists(by_parts(values, logits, keep, labels.to(logits.dtype)), differ(labels, keep))


def _positive(temperature: float, label_temperature: float) -> None:
    for name, value in (("temperature", temperature), ("label_temperature", label_temperature)):
        if value <= 0:
            raise ValueError(f"{name}: must be positive; got {value}")
