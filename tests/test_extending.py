"""docs/extending.md does what it says: each file of the page, with its one entry, is trained and keeps its room's contract."""

from __future__ import annotations

import doctest
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from prerank import build, datasets, losses, rankers, towers
from prerank.config import ConfigError, Data, Model, TermConfig, parse
from prerank.data import DataError
from prerank.run import open_run, train
from prerank.serving import Request, Scorer, export, open_current
from tests.conftest import MODELS, SIZES, small_batch, small_model, small_schema
from tests.contracts import test_losses as loss_contract
from tests.contracts import test_rankers as ranker_contract
from tests.contracts import test_towers as tower_contract
from tests.rankers.conftest import RANKERS, small_ranker
from tests.training.conftest import planted, settings

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/extending.md").read_text()
HUNK = re.compile(r"^The entry, in `(?P<catalogue>[\w/.]+)`.*?^```diff\n(?P<lines>.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"^`(?P<path>[\w/]+)\.py`:\n\n```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)

__all__ = ["planted"]


@dataclass(frozen=True)
class Added:
    """A file of the page as a module, and what its entry adds to the catalogue."""

    module: ModuleType
    name: str
    thing: Any


def added(room: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Added:
    """The room's example: the file imported under the name that it would have, the entry's line evaluated."""
    file = next(f for f in FILE.finditer(PAGE) if f["path"].startswith(f"{room}/"))
    hunk = next(h for h in HUNK.finditer(PAGE) if h["catalogue"] == f"prerank/{room}/__init__.py")
    lines = hunk["lines"].splitlines()
    catalogue = (ROOT / hunk["catalogue"]).read_text().splitlines()
    assert all(line[1:] in catalogue for line in lines if not line.startswith("+")), f"{hunk['catalogue']} has other lines now"
    imported, entry = (line[1:] for line in lines if line.startswith("+"))
    dotted, noun = re.fullmatch(r"from (\S+) import (\w+)", imported).groups()
    assert dotted == f"prerank.{file['path'].replace('/', '.')}"
    path = folder / f"{Path(file['path']).name}.py"
    path.write_text(file["code"])
    spec = importlib.util.spec_from_file_location(dotted, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, dotted, module)
    spec.loader.exec_module(module)
    thing = getattr(module, noun)
    name, value = re.fullmatch(r'    (?:"(\w+)": )?(\w+),', entry).groups()
    assert value == noun
    return Added(module, name or thing.name, thing)


def trained(folder: Path, out: Path, **changes: Any) -> Any:
    raw = settings(folder, output=str(out), **{"training.epochs": 2, "objective": [{"loss": "logloss"}], **changes})
    run, result = train(parse(raw))
    again = open_run(run.folder)
    assert np.array_equal(again.logits("test")[0], run.logits("test")[0])
    return run, result


def served(run: Any, folder: Path) -> None:
    """Exported, opened by name and asked: the logits are the run's own."""
    export(run.dataset, run.model, folder=folder, options=run.config.model.model_dump())
    scorer = Scorer(open_current(folder), build.served)
    rows = run.dataset.rows("test")[:20]
    pairs = [(run.dataset.user_ids[int(run.dataset.user_row[r])], run.dataset.item_ids[int(run.dataset.item_row[r])]) for r in rows]
    answers = scorer.score([Request(user=u, candidates=[i]) for u, i in pairs])
    np.testing.assert_allclose([a.logits["click"][0] for a in answers], run.logits("test")[0][:20, 0], atol=1e-5, rtol=1e-5)


def test_the_page_has_one_file_and_one_entry_a_room() -> None:
    rooms = ["towers", "rankers", "losses", "datasets"]
    assert [f["path"].partition("/")[0] for f in FILE.finditer(PAGE)] == rooms
    assert [h["catalogue"] for h in HUNK.finditer(PAGE)] == [f"prerank/{room}/__init__.py" for room in rooms]
    assert all(sum(line.startswith("+") for line in h["lines"].splitlines()) == 2 for h in HUNK.finditer(PAGE))
    assert PAGE.count("```python") == PAGE.count("```diff") == 4
    assert not [f["path"] for f in FILE.finditer(PAGE) if (ROOT / f"prerank/{f['path']}.py").exists()]


def test_a_tower(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = added("towers", tmp_path, monkeypatch)
    for catalogue in (towers.TOWERS, build.MODELS):  # the second is made of the first
        monkeypatch.setitem(catalogue, new.name, new.thing)
    monkeypatch.setitem(MODELS, new.name, {"name": new.name, "width": 8})
    for objectives in (("like",), ("click", "buy")):
        for shape in tower_contract.LISTS:
            tower_contract.test_shapes(new.name, shape=shape, objectives=objectives)
    for check in (
        tower_contract.test_logits_are_the_sum_over_groups_that_architecture_promises,
        tower_contract.test_changing_an_item_never_moves_a_user,
        tower_contract.test_permuting_candidates_permutes_logits,
        tower_contract.test_padding_never_enters_a_tower_or_the_loss,
        tower_contract.test_permuting_a_batch_changes_nothing,
        tower_contract.test_each_distinct_row_encoded_once_or_every_time_is_the_same,
    ):
        check(small_model(new.name))
    tower_contract.test_at_learning_rate_zero_a_label_never_reaches_its_own_logit(new.name)
    said = small_model(new.name).eval()
    batch, table = small_batch(), said.embeddings
    u = torch.stack([f.sum(0) for f in table("user", batch.user)]) @ said.user.project.weight.T + said.user.project.bias
    v = torch.stack([f.sum(0) for f in table("item", batch.item)]) @ said.item.project.weight.T + said.item.project.bias
    expected = (u[batch.user_index] * v[batch.item_index[:, 0]]).sum(1) + said.head.bias
    torch.testing.assert_close(said(batch).logits[:, 0, 0], expected)
    with pytest.raises(ConfigError, match="model 'pooled': unknown option 'widht'; did you mean 'width'"):
        build.model(Model.model_validate({"name": new.name, "widht": 8}), small_schema(), SIZES)
    with pytest.raises(ConfigError, match="model 'pooled': width: must be at least 1; got 0"):
        build.model(Model.model_validate({"name": new.name, "width": 0}), small_schema(), SIZES)
    run, _ = trained(planted, tmp_path / "run", model={"name": new.name, "width": 8})
    assert run.evaluate("test", resamples=0)["click"].auc > 0.6
    served(run, tmp_path / "generations")


def test_a_ranker(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = added("rankers", tmp_path, monkeypatch)
    for catalogue in (rankers.RANKERS, build.MODELS):
        monkeypatch.setitem(catalogue, new.name, new.thing)
    monkeypatch.setitem(RANKERS, new.name, {"name": new.name})
    for objectives in (("like",), ("click", "buy")):
        for shape in ranker_contract.LISTS:
            ranker_contract.test_shapes(new.name, shape=shape, objectives=objectives)
    ranker_contract.test_hidden_is_what_the_last_linear_layer_reads(new.name, ("click", "buy"))
    ranker_contract.test_every_parameter_learns(new.name)
    ranker_contract.test_docstrings_cite_their_source(new.name)
    ranker_contract.test_an_unknown_option_names_the_valid_ones(new.name)
    ranker_contract.test_wrong_values_of_the_usual_options(new.name, "id_head", 0, "id_head: must be at least 1 or null; got 0")
    for check in (
        ranker_contract.test_permuting_candidates_permutes_logits_and_hidden,
        ranker_contract.test_padding_changes_nothing,
        ranker_contract.test_permuting_a_batch_changes_nothing,
        ranker_contract.test_a_row_alone_scores_as_in_its_batch,
        ranker_contract.test_bf16_is_near_and_ends_in_fp32,
        ranker_contract.test_cold_rows_are_filled,
    ):
        model = small_ranker(new.name)
        model.wide.weights.tables["1"].data.normal_()  # it starts at zero and would hide what it reads
        check(model)
    network, fields = new.module.FwFM(4, 1), torch.randn(3, 4, 5)
    pairs = [(fields[:, i] * fields[:, j]).sum(1) for i in range(4) for j in range(i + 1, 4)]
    expected = sum(r * p for r, p in zip(network.weights.weight[0], pairs, strict=True))
    torch.testing.assert_close(network(fields)[0][:, 0], expected)
    run, _ = trained(planted, tmp_path / "run", model={"name": new.name})
    assert run.evaluate("test", resamples=0)["click"].auc > 0.6
    served(run, tmp_path / "generations")


def test_a_loss(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = added("losses", tmp_path, monkeypatch)
    for catalogue in (losses.POINTWISE, losses.LOSSES):  # the second is made of the first, and build reads it
        monkeypatch.setitem(catalogue, new.name, new.thing)
    loss_contract.test_all_masked_is_zero_with_zero_gradient(new.thing, False)
    for check in (
        loss_contract.test_a_positive_finite_scalar,
        loss_contract.test_an_all_masked_list_among_others_changes_nothing,
        loss_contract.test_permuting_a_list_changes_nothing,
        loss_contract.test_permuting_the_lists_changes_nothing,
        loss_contract.test_what_is_masked_does_not_matter,
        loss_contract.test_padding_a_list_changes_nothing,
        loss_contract.test_gradient_against_finite_differences,
        loss_contract.test_descending_puts_the_better_ones_first,
    ):
        for graded in (False, True):
            check(new.thing, graded)
    for size in (1e4, -1e4):
        loss_contract.test_extreme_logits_stay_finite(new.thing, False, size)
    for term in (
        loss_contract.test_a_term_is_zero_without_candidates,
        loss_contract.test_a_term_is_finite_without_positives_and_without_negatives,
        loss_contract.test_a_term_does_not_mind_the_order_of_lists_and_candidates,
        loss_contract.test_a_term_stays_finite_for_extreme_models,
        loss_contract.test_a_term_teaches_both_towers,
        loss_contract.test_click_rows_are_refused_where_they_say_nothing,
        loss_contract.test_a_pointwise_loss_has_no_lists,
    ):
        term(new.name)
    assert doctest.testmod(new.module) == (0, 1)
    z, y = torch.randn(50, dtype=torch.float64), torch.randint(0, 2, (50,)).double()
    p = torch.where(y > 0, torch.sigmoid(z), 1 - torch.sigmoid(z)).numpy()
    assert new.thing(z, y, gamma=3.0).item() == pytest.approx(np.mean(-((1 - p) ** 3) * np.log(p)))
    torch.testing.assert_close(new.thing(z, y, gamma=0.0), losses.logloss(z, y))
    with pytest.raises(ConfigError, match=r"objective 'focal': gamma: must be 0 or at least 1; got 0\.5"):
        build.objective([TermConfig.model_validate({"loss": new.name, "gamma": 0.5})], small_schema())
    run, result = trained(planted, tmp_path / "run", objective=[{"loss": new.name, "gamma": 1.0}])
    assert run.evaluate("test", resamples=0)["click"].auc > 0.6
    assert result.best_epoch >= 1


def official(folder: Path) -> Path:
    """Tiny files of MovieLens-100K's format."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    ratings = [f"{u}\t{i}\t{rng.integers(1, 6)}\t{880_000_000 + u}" for u in range(1, 41) for i in rng.choice(30, 15, replace=False) + 1]
    (folder / "u.data").write_text("\n".join(ratings) + "\n")
    (folder / "u.user").write_text("".join(f"{u}|{20 + u % 30}|{'MF'[u % 2]}|writer|T{u:04}\n" for u in range(1, 41)))
    return folder


def test_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRERANK_CACHE", str(tmp_path / "cache"))
    new = added("datasets", tmp_path, monkeypatch)
    monkeypatch.setitem(datasets.RECIPES, new.name, new.thing)
    options = {"from": str(official(tmp_path / "ml-100k"))}
    raw = {
        "data": {"recipe": new.name, "options": options, "width": 8},
        "model": {"name": "dssm", "hidden": [8], "width": 4},
        "training": {"epochs": 1, "batch_size": 128, "threads": 1},
        "output": str(tmp_path / "run"),
    }
    run, result = train(parse(raw))
    assert (len(run.dataset.labels), len(run.dataset.user_ids), len(run.dataset.item_ids)) == (600, 40, 30)
    assert np.isfinite(run.logits("test")[0]).all()
    assert result.best_epoch == 1
    leaking = Data.model_validate({"recipe": new.name, "options": options, "features": [{"name": "rating", "side": "user"}]})
    with pytest.raises(ConfigError, match="column 'rating' cannot be a feature: the label is made from it"):
        datasets.resolve(leaking)
    with pytest.raises(ConfigError, match=r"recipe 'ml100k': u\.data, u\.user not found; get the official archive ml-100k\.zip"):
        new.thing.require({})
    (tmp_path / "ml-100k" / "u.data").write_text("1\t2\t9\t880000000\n")
    with pytest.raises(DataError, match=r"u\.data' line 1: rating must be one of 1, 2, 3, 4, 5"):
        datasets.resolve(Data.model_validate({"recipe": new.name, "options": options}))
