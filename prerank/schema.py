"""Which column feeds which tower, how it is encoded, and how wide it is.

A `Schema` is the ground floor of the house: data preparation encodes by it, towers are sized by
it, a generation carries its fingerprint, and a request is checked against it. Nothing here knows
about files or tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Side = Literal["user", "item", "context"]
Kind = Literal["categorical", "numeric", "multi", "sequence", "vector"]

# The first rows of every vocabulary; real values start at FIRST.
PADDING, MISSING, UNKNOWN, FIRST = 0, 1, 2, 3


class Feature(BaseModel):
    """One column of the user's data and how it enters a tower."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="the feature's name, unique in the schema")
    side: Side = Field(description="the tower it feeds; context (of the request) joins the user tower")
    kind: Kind = "categorical"
    column: str | None = Field(None, description="the column it is read from; default: its name")
    width: int | None = Field(None, ge=1, description="embedding width; default: the schema's")
    share: str | None = Field(None, description="another feature whose vocabulary and table this one uses")
    min_count: int = Field(1, ge=1, description="values seen fewer times in train become 'unknown'")
    bins: int | None = Field(None, ge=2, description="numeric: equal-frequency bins; none: standardised")
    encoding: Literal["learned", "raw", "autodis"] = Field(
        "learned", description="numeric without bins: x w + b, x itself and zeros, or soft bins"
    )
    # Not told where they are as they always were: a fingerprint of before these keys stays what it was.
    meta_embeddings: int = Field(16, ge=2, exclude_if=lambda n: n == 16, description="autodis: how many soft bins")
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False, exclude_if=lambda t: t == 1.0,
                               description="autodis: smaller makes the bins harder")  # fmt: skip
    separator: str = Field("|", min_length=1, description="multi, sequence: splits a string column")
    max_length: int = Field(32, ge=1, description="multi: first n values kept; sequence: last n kept")
    pooling: Literal["mean", "attention"] = Field("mean", description="multi, sequence: how values become one field")
    dim: int | None = Field(None, ge=1, description="vector: its length")
    field: bool = Field(True, description="false: encoded, but no field of a tower (an id only)")

    @model_validator(mode="after")
    def _consistent(self) -> Feature:
        if self.kind == "vector" and self.dim is None:
            raise ValueError(f"feature '{self.name}': a vector needs dim (its length)")
        if self.kind != "vector" and self.dim is not None:
            raise ValueError(f"feature '{self.name}': dim belongs to kind vector, this is {self.kind}")
        if self.kind != "numeric" and self.bins is not None:
            raise ValueError(f"feature '{self.name}': bins belong to kind numeric, this is {self.kind}")
        if self.encoding == "autodis" and (self.kind != "numeric" or self.bins is not None):
            kind = self.kind if self.bins is None else f"{self.kind} with bins"
            raise ValueError(f"feature '{self.name}': encoding autodis belongs to kind numeric without bins, this is {kind}")
        if self.share is not None and self.kind in ("numeric", "vector"):
            raise ValueError(f"feature '{self.name}': share needs a vocabulary, kind {self.kind} has none")
        return self

    @property
    def source(self) -> str:
        """The column of the user's file."""
        return self.column or self.name

    @property
    def many(self) -> bool:
        """True when a row holds a padded list of values, [max_length] of them."""
        return self.kind in ("multi", "sequence")

    @property
    def embedded(self) -> bool:
        """True when values are rows of an embedding table (int32); false for float columns."""
        return self.kind in ("categorical", "multi", "sequence") or self.bins is not None

    @property
    def on_user_side(self) -> bool:
        """Context joins the user tower."""
        return self.side != "item"


class Schema(BaseModel):
    """All features, the two ids, and the objectives (one logit each), in a fixed order.

    The id features always exist: when the user does not list `user_id` or `item_id` among the
    features, it is added with `field: false`, so that towers which want ids have them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: tuple[Feature, ...]
    user_id: str = Field(description="name of the user-id feature")
    item_id: str = Field(description="name of the item-id feature")
    objectives: tuple[str, ...] = Field(("label",), min_length=1, description="label names; one logit each")
    width: int = Field(32, ge=1, description="field width D")

    @model_validator(mode="before")
    @classmethod
    def _ids_exist(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        features = list(data.get("features", ()))
        names = {f.name if isinstance(f, Feature) else f.get("name") for f in features}
        for key, side in (("user_id", "user"), ("item_id", "item")):
            if key in data and data[key] not in names:
                features.append({"name": data[key], "side": side, "field": False})
        return {**data, "features": features}

    @model_validator(mode="after")
    def _consistent(self) -> Schema:
        names = [f.name for f in self.features]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"feature '{name}': names must be unique, it occurs {names.count(name)} times")
        for name, side in ((self.user_id, "user"), (self.item_id, "item")):
            f = self[name]
            if f.kind != "categorical" or f.side != side:
                raise ValueError(f"feature '{name}': an id must be categorical on the {side} side, it is {f.kind} on {f.side}")
        for f in self.features:
            if f.share is None:
                continue
            if f.share not in names:
                raise ValueError(f"feature '{f.name}': share must name a feature, got '{f.share}'")
            if self[f.share].share is not None or self[f.share].kind in ("numeric", "vector"):
                raise ValueError(f"feature '{f.name}': share must name a feature with its own vocabulary, '{f.share}' has none")
        return self

    def __getitem__(self, name: str) -> Feature:
        for f in self.features:
            if f.name == name:
                return f
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(f.name == name for f in self.features)

    def on(self, side: Literal["user", "item"]) -> Iterator[Feature]:
        """Features that feed a tower; context features come with the user side."""
        return (f for f in self.features if f.on_user_side == (side == "user"))

    def fields(self, side: Literal["user", "item"]) -> list[Feature]:
        """The features of `on(side)` that are fields [F, D] of the tower."""
        return [f for f in self.on(side) if f.field]

    def vocabulary_of(self, feature: Feature) -> str:
        """Name of the vocabulary (and table) that a feature uses."""
        return feature.share or feature.name

    def width_of(self, feature: Feature) -> int:
        """Width of a feature's table; a shared table has the width of its owner."""
        owner = self[feature.share] if feature.share else feature
        return owner.width or self.width

    def fingerprint(self) -> str:
        """16 hex digits that change whenever anything in the schema does."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        u, i = len(self.fields("user")), len(self.fields("item"))
        return f"<Schema {u} user + {i} item fields, D={self.width}, objectives {', '.join(self.objectives)}>"
