"""ARF: the ground truth among the first places, and the whole order, weighted by what the data let be learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prerank.batch import Batch, Output
from prerank.losses.lists import differ, kept, mean_over_lists
from prerank.losses.objective import Lists, Term
from prerank.losses.parts import by_parts
from prerank.losses.relaxation import TINY, NeuralSort
from prerank.losses.survival import Passes, check_passes, first_places, places_of, speak, truth


def arf(logits: Tensor, labels: Tensor, *, where: Tensor | None = None, passes: Passes = 0.25, top: int | None = None,
        temperature: float = 1.0, label_temperature: float = 0.1) -> tuple[Tensor, Tensor]:  # fmt: skip
    """L_relax and L_global of lists, from NeuralSort's P of logits z and labels y.

        L_relax  = - 1/k sum over the k ground-truth candidates j of log( 1/m sum_{i <= m} P(z)_ij )
        L_global = - 1/n sum_ij P(y)_ij log P(z)_ij

    L_relax asks the ground truth into the first m places, in any order (Recall@m@k); L_global asks for the whole order.

    logits, labels [.., n], lists on the last axis; where False = left out. Lists whose labels are all equal say nothing, nor to L_relax
    those of m candidates or fewer, or without both ground truth and something else; means over the others, 0 where there is none.
    Wang et al., "Adaptive Neural Ranking Framework: Toward Maximized Business Goal for Cascade Ranking Systems", WWW 2024; the mean over
    the first m rows as in the released code; means over k and n are our choice, as are positives (y > 0) for ground truth.
    """
    check_passes("passes", passes)
    for name, t in (("temperature", temperature), ("label_temperature", label_temperature)):
        if t <= 0:
            raise ValueError(f"{name}: must be positive; got {t}")
    if top is not None and top < 1:
        raise ValueError(f"top: must be at least 1; got {top}")
    of_logits, of_labels = NeuralSort(temperature), NeuralSort(label_temperature)

    def values(z: Tensor, keep: Tensor, y: Tensor) -> Tensor:
        said, first = of_logits.rows(z, keep), places_of(passes, keep)
        with torch.no_grad():
            wanted = of_labels.rows(y, keep).clamp(min=TINY).exp()
            real, number = truth(y, keep, top)
        relaxed = (first_places(said, first) - first.to(z.dtype).log().unsqueeze(1)).masked_fill(~keep, 0.0)
        inside = (torch.arange(z.shape[1], device=z.device) < keep.sum(dim=1, keepdim=True)).unsqueeze(2) & keep.unsqueeze(1)
        whole = (wanted * said).masked_fill(~inside, 0.0).sum(dim=(1, 2))
        return -torch.stack([(real * relaxed).sum(dim=1) / number.clamp(min=1), whole / keep.sum(dim=1).clamp(min=1)], dim=1)

    keep = kept(logits, where)
    found = by_parts(values, logits, keep, labels.to(logits.dtype))
    relaxes = speak(labels, keep, top) & (keep.sum(dim=-1) > places_of(passes, keep))
    return mean_over_lists(found[..., 0], relaxes), mean_over_lists(found[..., 1], differ(labels, keep))


class ARFTerm(Term):
    """L_relax / (2 a^2) + L_global / (2 b^2) + log(a b) of `arf`: a and b are learned, so that what cannot be reached weighs less.

    They begin at 1 and are learned as log a^2 and log b^2, which keeps them positive (Kendall, Gal, Cipolla, CVPR 2018). A part that
    no list of the batch speaks to is left out with its logarithm.

    passes               m, the candidates that pass the stage: a count, or a share of the list
    top                  k largest labels that are the ground truth; default: all positives
    temperature          t of the logits
    label_temperature    t of the labels: small against the gaps between labels
    lists                'own' or 'batch', as in LossTerm
    """

    def __init__(self, *, weight: float = 1.0, objective: int = 0, stages: tuple[int, ...] | None = None, passes: int | float = 0.25,
                 top: int | None = None, temperature: float = 1.0, label_temperature: float = 0.1, lists: str = "own") -> None:  # fmt: skip
        super().__init__("arf", weight=weight, objective=objective, stages=stages)
        self.options = {"passes": passes, "top": top, "temperature": temperature, "label_temperature": label_temperature}
        arf(torch.zeros(1, 1), torch.zeros(1, 1), **self.options)  # type: ignore[arg-type]  # a wrong option is told now
        self.lists, self.compares = Lists("arf", lists), lists == "own"
        self.variances = {"relaxed": nn.Parameter(torch.zeros(())), "global": nn.Parameter(torch.zeros(()))}  # logarithms

    def parameters(self) -> dict[str, nn.Parameter]:
        return self.variances

    def __call__(self, batch: Batch, output: Output) -> Tensor:
        lists = self.lists(output.logits[..., self.objective], batch.labels[..., self.objective], self.seen(batch))
        parts = arf(lists[0], lists[1], where=lists[2], **self.options)  # type: ignore[arg-type]
        return weighted(parts, self.variances)


def weighted(parts: tuple[Tensor, ...], variances: dict[str, nn.Parameter]) -> Tensor:
    """sum of part / (2 a^2) + log a  over the parts that are not 0, given log a^2."""
    total = parts[0].new_zeros(())
    for part, variance in zip(parts, variances.values(), strict=True):
        own = 0.5 * (part * torch.exp(-variance) + variance)
        total = total + torch.where(part == 0, part, own)
    return total
