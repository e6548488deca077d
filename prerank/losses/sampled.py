"""In-batch sampled softmax: a batch's own items are the negatives, corrected for how often each of them turns up."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prerank.batch import Batch, Output, Representation
from prerank.losses.objective import Term


class SampledSoftmaxTerm(Term):
    """- sum_p y_p log softmax_v( s(u_p, v) / t - log Q(v) )_{v_p} / sum_p y_p over the batch's positives p and distinct items v.

    Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019 (eq. 4-6, their reward r
    is the label y). s is the model's logit without the user's bias, which cancels. Q(v) is the chance that v is among the distinct
    items of a batch of R candidates, 1 - (1 - q_v)^R with q_v its share of the train rows: what the paper estimates while it streams
    (algorithm 2) is counted here beforehand, so that a resumed run is the run that was killed (our choice).

    Needs a model whose logit is the sum of MaxSim over its head groups plus biases; the first batch is checked.

    logq          false: no correction, the ablation
    temperature   t
    item_id, item_counts   name of the item id's column and train counts of its rows; build.py gives them
    """

    needs_towers = True

    def __init__(self, *, weight: float = 1.0, objective: int = 0, stages: tuple[int, ...] | None = None, logq: bool = True,
                 temperature: float = 1.0, item_id: str = "item_id", item_counts: Tensor | None = None) -> None:  # fmt: skip
        super().__init__("in_batch_softmax", weight=weight, objective=objective, stages=stages)
        if temperature <= 0:
            raise ValueError(f"temperature: must be positive; got {temperature}")
        self.logq, self.temperature, self.item_id = logq, temperature, item_id
        self.share = None if item_counts is None else item_counts.double() / item_counts.sum().clamp(min=1)
        self.checked = False

    def __call__(self, batch: Batch, output: Output) -> Tensor:
        if output.user is None or output.item is None:
            raise ValueError("objective 'in_batch_softmax': compares user and item representations, a ranking model has none")
        seen = self.seen(batch)
        mass = batch.labels[..., self.objective].clamp(min=0).masked_fill(~seen, 0.0)
        rows, columns = mass.nonzero(as_tuple=True)
        if rows.numel() == 0:
            return output.logits.new_zeros(())
        items = batch.item_index[rows, columns]  # [P]
        scores = self._scores(output, batch.user_index[rows], output.item)  # [P, N]
        self._check(output, batch, rows, columns, scores)
        scores = scores / self.temperature
        if self.logq:
            scores = scores - self._log_chance(batch, int(seen.sum()))
        each = F.cross_entropy(scores, items, reduction="none")
        weights = mass[rows, columns]
        return (weights * each).sum() / weights.sum()

    def _scores(self, output: Output, users: Tensor, items: Representation) -> Tensor:
        """Logits of users [P] against all items, without the users' bias.  # [P, N]"""
        assert output.user is not None
        scores = 0.0 if items.bias is None else items.bias[:, self.objective].float()
        for group, u, v in zip(output.groups, output.user.groups, items.groups, strict=True):
            if group.objective != self.objective:
                continue
            heads = u.index_select(0, users)  # [P, Hu, K]
            if group.item_heads == 1:  # the largest of one: a sum of products is a product of sums
                scores = scores + (heads.sum(dim=1) @ v.squeeze(1).T).float()
            else:
                scores = scores + torch.einsum("phk,njk->pnhj", heads, v).amax(dim=3).sum(dim=2).float()
        assert isinstance(scores, Tensor)
        return scores

    def _log_chance(self, batch: Batch, candidates: int) -> Tensor:
        """log Q of the batch's items.  # [N]"""
        if self.share is None:
            raise ValueError("objective 'in_batch_softmax': its correction needs the items' train counts; "
                             "give build.objective the data set's counts, or set logq: false")  # fmt: skip
        self.share = self.share.to(batch.user_index.device)
        share = self.share[batch.item[self.item_id].long()].clamp(min=1e-12)
        return torch.log(-torch.expm1(candidates * torch.log1p(-share))).float()

    def _check(self, output: Output, batch: Batch, rows: Tensor, columns: Tensor, scores: Tensor) -> None:
        """That the scores are the model's own; the tolerance leaves room for bf16."""
        if self.checked:
            return
        with torch.no_grad():
            own = output.logits[rows, columns, self.objective]
            found = scores.gather(1, batch.item_index[rows, columns].unsqueeze(1)).squeeze(1)
            if output.user is not None and output.user.bias is not None:
                found = found + output.user.bias[batch.user_index[rows], self.objective]
            if ((found - own).abs() > 0.05 * own.abs().clamp(min=1)).any():
                raise ValueError("objective 'in_batch_softmax': needs a model whose logit is the MaxSim of its head groups plus biases; "
                                 "this one compares its pairs in another way")  # fmt: skip
        self.checked = True
