"""What the models of ``config.yaml`` are made of: the base of all, and the kinds of values."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from services.runtime import units
from services.runtime.judged import Judged

Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{1,31}$",
        description="2 to 32 of a-z, 0-9, `_`, `-`, beginning with a letter or digit",
    ),
]


Duration = Annotated[float, BeforeValidator(units.duration_s)]
Size = Annotated[int, BeforeValidator(units.size_bytes)]
Port = Annotated[int, Field(ge=1, le=65_535, strict=True)]


class Model(Judged, BaseModel):
    """Base of all: unknown keys are errors, a number is no string, and none is infinite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
