"""Settings whose unknown keys are errors."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Frozen; neither unknown keys nor NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
