from __future__ import annotations

import pytest

from prerank import build
from prerank.config import Config, ConfigError, Model, TermConfig
from prerank.schema import Schema
from prerank.towers import TOWERS
from tests.conftest import SIZES, remember, small_batch, small_schema


def term(**raw: object) -> TermConfig:
    return TermConfig.model_validate(raw)


def test_every_registered_tower_builds_bare() -> None:
    for name in TOWERS:
        model = build.model(Model(name=name), small_schema(), SIZES)
        remember(model, 1)
        assert model(small_batch()).logits.shape == (24, 1, 1)


def test_a_history_needs_an_id_head_to_be_added_to() -> None:
    with pytest.raises(ConfigError, match="model 'dssm': id_history: needs id_head"):
        build.model(Model.model_validate({"name": "dssm", "id_history": True}), small_schema(), SIZES)


def test_unknown_names_say_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'intower'; did you mean 'inttower'\?"):
        build.model(Model(name="intower"), small_schema(), SIZES)
    with pytest.raises(ConfigError, match=r"unknown loss 'loglos'; did you mean 'logloss'\?"):
        build.objective([term(loss="loglos")], small_schema())


def test_a_model_without_features_on_a_side_says_which() -> None:
    bare = Schema(features=(), user_id="u", item_id="i")
    with pytest.raises(ConfigError, match="model 'dssm': needs at least one feature on each side; the schema has none on: user, item"):
        build.check_model(Model(name="dssm"), bare)
    build.check_model(Model(name="mf"), bare)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"loss": "logloss", "label": "lik"}, r"objective 'logloss': unknown label 'lik'; did you mean 'like'\?"),
        ({"loss": "cir", "temprature": 1}, r"objective 'cir': unknown option 'temprature'; did you mean 'temperature'\?"),
        ({"loss": "cir", "temperature": -1.0}, r"objective 'cir': temperature: must be positive; got -1\.0"),
        ({"loss": "logloss", "stages": ["shown"]}, "objective 'logloss': unknown stage 'shown'; valid: impression"),
    ],
)
def test_wrong_terms_say_what_is_right(raw: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build.objective([term(**raw)], small_schema())


def test_terms_carry_weight_label_and_stages() -> None:
    schema = small_schema(("click", "buy"))
    terms = [term(loss="logloss", label="buy", weight=0.5, stages=["impression", "random"]), term(loss="cir", weight=0.1)]
    objective = build.objective(terms, schema)
    first, second = objective.terms
    assert (first.name, first.objective, first.weight, first.stages) == ("logloss:buy", 1, 0.5, (0, 4))
    assert (second.name, second.weight) == ("cir", 0.1)


def test_terms_of_one_name_are_told_apart() -> None:
    terms = [term(loss="softsort", stages=["impression"]), term(loss="bpr"), term(loss="softsort", weight=0.5), term(loss="softsort")]
    assert [t.name for t in build.objective(terms, small_schema()).terms] == ["softsort", "bpr", "softsort-2", "softsort-3"]


def test_an_objective_needs_a_term() -> None:
    with pytest.raises(ConfigError, match="objective: needs at least one term"):
        build.objective([], small_schema())


def test_what_is_served_is_what_was_described() -> None:
    meta = {"model": {"name": "dssm", "hidden": [8], "width": 4}, "schema": small_schema().model_dump(mode="json"), "sizes": SIZES}
    assert build.served(meta).head.groups[0].width == 4


def test_a_category_that_is_no_item_feature_is_told() -> None:
    for feature, said in (("genre", r"'genre' is no item feature with a vocabulary; did you mean 'genres'\?"),
                          ("age", "'age' is no item feature with a vocabulary; valid: genres, item_id, price"),
                          ("picture", "'picture' is no item feature with a vocabulary")):  # fmt: skip
        with pytest.raises(ConfigError, match=f"objective 'category_alignment': feature: {said}"):
            build.objective([term(loss="category_alignment", feature=feature)], small_schema())
    with pytest.raises(ConfigError, match="'category_alignment': feature: must name the item feature that is the category; got none"):
        build.objective([term(loss="category_alignment")], small_schema())


@pytest.mark.parametrize("loss", ["mimic", "generator", "hard_mimic"])
def test_a_term_about_guesses_needs_a_model_that_makes_them(loss: str) -> None:
    terms = [term(loss="logloss"), term(loss=loss)]
    for name, options in (("dat", {}), ("hit", {}), ("ihm_dat", {"id_head": 4})):
        build.check_model(Model.model_validate({"name": name, **options}), small_schema(), terms)
    for name in ("dssm", "rcg", "mf"):
        refused = f"objective '{loss}': needs a model whose towers guess the other side's vectors, as dat's do; '{name}' does not"
        with pytest.raises(ConfigError, match=refused):
            build.check_model(Model(name=name), small_schema(), terms)


@pytest.mark.parametrize("loss", ["cir", "in_batch_softmax", "hard_negatives"])
def test_a_term_about_towers_needs_some(loss: str) -> None:
    terms = [term(loss="logloss"), term(loss=loss)]
    build.check_model(Model(name="dssm"), small_schema(), terms)
    with pytest.raises(ConfigError, match=f"objective '{loss}': looks at the vectors of user and item; 'mlp' is a ranker and has none"):
        build.check_model(Model(name="mlp"), small_schema(), terms)


def test_the_price_of_a_choice_needs_a_choice() -> None:
    terms = [term(loss="logloss"), term(loss="complexity")]
    build.check_model(Model(name="fscd"), small_schema(), terms)
    for raw in ({"name": "fscd", "keep": ["age", "price"]}, {"name": "cold"}, {"name": "dssm"}):
        refused = f"objective 'complexity': needs a model that learns which fields to keep, fscd without keep; '{raw['name']}' does not"
        with pytest.raises(ConfigError, match=refused):
            build.check_model(Model.model_validate(raw), small_schema(), terms)


def checked(objective: list[dict[str, object]], *, labels: tuple[str, ...] = ("like",), data: dict[str, object] | None = None,
            training: dict[str, object] | None = None) -> None:  # fmt: skip
    config = Config.model_validate({"data": data or {}, "objective": objective, "training": training or {}})
    build.check_terms(config, config.data, small_schema(labels))


LISTS = {"lists": {"stages": {"impression": "all", "ranking": 50}}}


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ([{"loss": "distillation"}],
         "objective 'distillation': reads the ranking model's score of each candidate, which the data do not give; set data.teacher"),
        ([{"loss": "lcron", "then": 0.5}], "objective 'lcron': reads the ranking model's score"),
        ([{"loss": "copr", "by": "label"}], "objective 'copr': reads the bid of each candidate, which the data do not give; set data.bid"),
        ([{"loss": "logloss"}, {"loss": "softsort", "stages": ["recall", "random"]}],
         "objective 'softsort': looks at the stages recall, random, of which training loads none .it loads impression, ranking.; "
         "name them in training.lists.stages"),
    ],
)  # fmt: skip
def test_terms_without_what_they_look_at(objective: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(objective, training=LISTS)


def test_terms_with_what_they_look_at() -> None:
    objective = [{"loss": "distillation"}, {"loss": "copr"}, {"loss": "am_rankmax", "stages": ["impression", "random"]}]
    checked(objective, training=LISTS, data={"teacher": {"column": "score"}, "bid": "bid"})


@pytest.mark.parametrize("term", [{"loss": "bpr"}, {"loss": "softsort"}, {"loss": "arf"}, {"loss": "distillation", "kind": "pairwise"}])
def test_own_lists_need_lists(term: dict[str, object]) -> None:
    data = {"teacher": {"column": "score"}}
    message = (f"objective '{term['loss']}': compares the candidates of a list, and every list here holds one .click rows.; set lists: "
               "batch to compare all rows of a batch, or training.lists to learn from lists")  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        checked([term], data=data)
    checked([term], data=data, training=LISTS)
    checked([{**term, "lists": "batch"}], data=data)


def test_labels_without_a_term_are_named() -> None:
    schema = small_schema(("click", "buy", "share"))
    assert build.unlearned([term(loss="logloss", label="click"), term(loss="bpr", label="share")], schema) == ["buy"]
    assert build.unlearned([term(loss="jrc", label="click", energy="buy")], schema) == ["share"]
    with pytest.raises(ConfigError, match="label 'click': the epoch is chosen on it, and no term of the objective looks at it"):
        checked([{"loss": "logloss", "label": "buy"}], labels=("click", "buy"))
    checked([{"loss": "logloss", "label": "click"}], labels=("click", "buy"))
