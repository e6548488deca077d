"""A model's name and its options."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """The model's name and its options; which options exist is the recipe's own signature."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "inttower"

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})
