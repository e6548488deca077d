from __future__ import annotations

import pytest
import torch

from prerank.config import Optimizer as Settings
from prerank.config import ParameterGroup
from prerank.losses import LossTerm, Objective, logloss
from prerank.training import Optimizer, train_step
from prerank.training.optimizer import RowwiseAdagrad
from tests.conftest import SIZES, remember, small_batch, small_model

COUNTS = {name: torch.arange(n) + 1 for name, n in SIZES.items()}
OBJECTIVE = Objective([LossTerm("logloss", logloss)])


def test_rowwise_adagrad_is_its_formula_and_leaves_other_rows_alone() -> None:
    table = torch.nn.Parameter(torch.randn(6, 3))
    before, total = table.detach().clone(), torch.zeros(6)
    optimizer = RowwiseAdagrad({"t": table}, lr=0.1)
    for ids in ([1, 4, 1], [4, 5, 5]):
        table.grad = None
        vectors = torch.nn.functional.embedding(torch.tensor(ids), table, sparse=True)
        (vectors * torch.arange(9.0).view(3, 3)).sum().backward()
        gradient = table.grad.to_dense()
        optimizer.step()
        for r in set(ids):
            total[r] += gradient[r].square().mean()
            before[r] -= 0.1 * gradient[r] / (total[r].sqrt() + 1e-8)
        torch.testing.assert_close(table.detach(), before)


def test_dense_adam_matches_torch() -> None:
    one, two = small_model("inttower"), small_model("inttower")
    ours = Optimizer(one, Settings(lr=0.01, l2=0.001), COUNTS)
    theirs = torch.optim.Adam(two.parameters(), lr=0.01, weight_decay=0.001)
    for seed in range(3):
        batch = small_batch(seed)
        train_step(one, OBJECTIVE, ours, batch)
        theirs.zero_grad()
        OBJECTIVE(batch, two(batch))[0].backward()
        theirs.step()
    for (name, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        if not name.endswith("linear.bias"):  # before BatchNorm its gradient is rounding noise, which Adam blows up
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4, msg=name)


def test_groups_give_rates_and_the_first_match_counts() -> None:
    model = small_model("inttower-id-head")
    groups = (
        ParameterGroup(match="*ids.table", lr=0.5), ParameterGroup(match="*ids*", lr=0.25, l2=0.1), ParameterGroup(match="head*", l2=0.0),
    )  # fmt: skip
    optimizer = Optimizer(model, Settings(lr=0.01, l2=0.2, groups=groups), COUNTS)
    found = {optimizer.names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.dense.param_groups for p in g["params"]}
    assert found["user.ids.ids.table"] == (0.5, 0.2)
    assert found["item.ids.ids.bias"] == (0.25, 0.1)
    assert found["head.bias"] == (0.01, 0.0)
    assert found["user.inner.heads.0.weight"] == (0.01, 0.2)
    assert len(found) == len(list(model.parameters()))


def test_count_weighted_decay_grows_with_the_root_of_the_count() -> None:
    """At data gradient 0, plain SGD-like reading of the gradient: l2 * (n / mean n) ** 0.5 * w."""
    model = small_model("mf")
    counts = {"user_id": torch.tensor([0, 0, 0, *range(1, 28)]), "item_id": torch.ones(40)}
    optimizer = Optimizer(model, Settings(groups=(ParameterGroup(match="user.ids.table", l2=0.3, count_power=0.5),)), counts)
    table = model.user.ids.table
    table.grad = torch.zeros_like(table)
    before = table.detach().clone()
    optimizer.step()
    seen = counts["user_id"][3:].float()
    expected = 0.3 * (seen / seen.mean()).sqrt().unsqueeze(1) * before[3:]
    torch.testing.assert_close(table.grad[3:], expected)
    assert table.grad[:3].abs().sum() == 0


@pytest.mark.parametrize("sparse_from", [1, 10_000])
def test_state_goes_round_through_tensors(sparse_from: int) -> None:
    settings = Settings(lr=0.01, sparse_from=sparse_from)
    one = small_model("inttower-id-head")
    first = Optimizer(one, settings, COUNTS)
    for seed in range(3):
        train_step(one, OBJECTIVE, first, small_batch(seed))
    two = small_model("inttower-id-head")
    two.load_state_dict(one.state_dict())
    second = Optimizer(two, settings, COUNTS)
    second.load_tensors({k: v.clone() for k, v in first.tensors().items()})
    for model, optimizer in ((one, first), (two, second)):
        train_step(model, OBJECTIVE, optimizer, small_batch(9))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("name", ["dssm", "dssm-dot-id-head", "inttower-id-history"])
def test_tables_above_the_line_alone_are_updated_row_by_row(name: str) -> None:
    """Tables of one model lie on both sides of `sparse_from`: each takes its own way, and every parameter moves."""
    model, batch = small_model(name), small_batch()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    rows = {n: p.shape[0] for n, p in model.named_parameters()}
    optimizer = Optimizer(model, Settings(sparse_from=35), COUNTS)
    assert optimizer.rowwise is not None
    tables = {n for n in rows if ("tables" in n or ".ids." in n) and "factors" not in n}
    assert set(optimizer.rowwise.parameters) == {n for n in tables if rows[n] >= 35} < tables
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        remember(model, 1, batch=batch)
        model(batch).logits.square().sum().backward()
        optimizer.step()
    still = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert [n for n in still if not n.endswith("linear.bias")] == []


def test_parameters_apart_have_the_plain_rate_no_decay_and_a_state() -> None:
    model, own = small_model("mf"), torch.nn.Parameter(torch.tensor(2.0))
    settings = Settings(lr=0.1, l2=0.5, groups=(ParameterGroup(match="*", lr=0.01),))
    optimizer = Optimizer(model, settings, COUNTS, apart={"arf.relaxed": own})
    own.grad = torch.tensor(4.0)
    optimizer.step()
    assert own.item() == pytest.approx(2.0 - 0.1)  # Adam's first step is the rate, whatever the gradient; decay would not show
    (group,) = (g for g in optimizer.dense.param_groups if any(p is own for p in g["params"]))
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.0)
    assert "objective.arf.relaxed/exp_avg" in optimizer.tensors()
