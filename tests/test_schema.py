from __future__ import annotations

import pytest
from pydantic import ValidationError

from prerank.schema import Feature, Schema
from tests.conftest import small_schema


def test_context_joins_the_user_side_and_order_is_kept() -> None:
    schema = small_schema()
    assert [f.name for f in schema.on("user")] == ["user_id", "age", "history", "hour"]
    assert [f.name for f in schema.fields("item")] == ["item_id", "genres", "price", "picture"]


def test_ids_exist_even_when_they_are_no_features() -> None:
    schema = Schema(features=(Feature(name="age", side="user"),), user_id="u", item_id="i")
    assert [f.name for f in schema.fields("user")] == ["age"]
    assert [f.name for f in schema.on("user")] == ["age", "u"]
    assert [f.name for f in schema.on("item")] == ["i"]


def test_a_shared_feature_has_its_owners_vocabulary_and_width() -> None:
    features = (Feature(name="i", side="item", width=16), Feature(name="h", side="user", kind="sequence", share="i"))
    schema = Schema(features=features, user_id="u", item_id="i")
    assert (schema.vocabulary_of(schema["h"]), schema.width_of(schema["h"])) == ("i", 16)


def test_the_fingerprint_changes_with_anything() -> None:
    one = small_schema()
    assert one.fingerprint() == small_schema().fingerprint()
    assert len({one.fingerprint(), one.model_copy(update={"width": 7}).fingerprint(), small_schema(("a", "b")).fingerprint()}) == 3


def test_keys_that_came_later_leave_fingerprints_as_they_were_until_they_are_set() -> None:
    plain = Feature(name="a", side="user", kind="numeric")
    assert not {"meta_embeddings", "temperature"} & set(plain.model_dump())
    set_ = Feature(name="a", side="user", kind="numeric", encoding="autodis", meta_embeddings=8, temperature=0.5)
    assert Feature.model_validate(set_.model_dump(mode="json")) == set_


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([{"name": "a", "side": "user"}] * 2, "feature 'a': names must be unique, it occurs 2 times"),
        ([{"name": "u", "side": "item"}], "feature 'u': an id must be categorical on the user side, it is categorical on item"),
        ([{"name": "a", "side": "user", "share": "b"}], "feature 'a': share must name a feature, got 'b'"),
        ([{"name": "a", "side": "user", "kind": "vector"}], "feature 'a': a vector needs dim"),
        ([{"name": "a", "side": "user", "bins": 5}], "feature 'a': bins belong to kind numeric"),
        ([{"name": "a", "side": "user", "encoding": "autodis"}],
         "feature 'a': encoding autodis belongs to kind numeric without bins, this is categorical"),
        ([{"name": "a", "side": "user", "kind": "numeric", "bins": 4, "encoding": "autodis"}], "this is numeric with bins"),
        ([{"name": "a", "side": "user", "kind": "numeric", "share": "u"}], "feature 'a': share needs a vocabulary"),
    ],
)
def test_what_is_inconsistent_is_named(features: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Schema.model_validate({"features": features, "user_id": "u", "item_id": "i"})


def test_its_repr_says_its_size() -> None:
    assert repr(small_schema()) == "<Schema 4 user + 4 item fields, D=6, objectives like>"
