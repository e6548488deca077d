"""What a model's choice of fields costs: the prior of FSCD, as a term of the objective."""

from __future__ import annotations

from torch import Tensor

from prerank.batch import Batch, Output
from prerank.losses.objective import Term


class ComplexityTerm(Term):
    """sum_j c_j delta_j, which the model says of itself (`Output.extras['complexity']`).

    Ma et al., SIGIR 2021 (FSCD): with z_j ~ Bernoulli(1 - sigmoid(c_j)) a priori, -log p(z) = sum_j c_j z_j + const. Beside a loss
    that is a mean over rows its weight is 1 / (rows of train) in the derivation; a larger one gives up more fields.
    """

    needs_choice = True

    def __init__(self, *, weight: float = 1.0, objective: int = 0, stages: tuple[int, ...] | None = None) -> None:
        super().__init__("complexity", weight=weight, objective=objective, stages=stages)

    def __call__(self, batch: Batch, output: Output) -> Tensor:
        if "complexity" not in output.extras:
            raise ValueError("objective 'complexity': needs a model that learns which fields to keep: fscd without keep")
        return output.extras["complexity"]
