"""What every part of the configuration has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the configuration: it can't be changed, and it knows all of its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
