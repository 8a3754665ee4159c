"""What the models of ``config.yaml`` are made of: the base of all, and the kinds of values."""

from __future__ import annotations

import difflib
import ipaddress
import re
import zoneinfo
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
)
from pydantic_core import PydanticCustomError

from services.runtime import units
from services.runtime.judged import Judged, rule

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


def _host(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        pass
    else:
        return value
    # 192.168.0.300 and 10.1 are no names: some systems make addresses of them that nobody meant.
    if not re.fullmatch(r"[\w.-]+", value) or re.fullmatch(r"[\d.]+", value):
        raise PydanticCustomError("host", "is no host name or address")
    try:
        value.encode("idna")
    except UnicodeError:
        raise ValueError("a host has 1 to 63 characters between two dots") from None
    return value


Host = Annotated[str, AfterValidator(_host)]


def _zone(value: str) -> str:
    # "localtime" is this PC's, which is none of the PLC's business.
    known = zoneinfo.available_timezones() - {"localtime"}
    if value not in known:
        folded = {name.casefold(): name for name in known}
        near = difflib.get_close_matches(value.casefold().replace(" ", "_"), folded, n=1)
        hint = f"did you mean `{folded[near[0]]}`?" if near else "e.g. `America/Sao_Paulo`"
        raise ValueError(f"is no time zone of the IANA: {hint}")
    return value


Zone = Annotated[str, AfterValidator(_zone)]


class Model(Judged, BaseModel):
    """Base of all: unknown keys are errors, a number is no string, and none is infinite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def one_of(models: Sequence[type[Model]], key: str) -> Any:
    """The type of what is one of these models, told apart by ``key``: each has a default for it,
    and what does not give it is the first.
    """
    if len(models) == 1:
        return models[0]
    first = models[0].model_fields[key].default

    def tag(given: Any) -> str | None:
        value = given.get(key, first) if isinstance(given, dict) else getattr(given, key, None)
        return value if isinstance(value, str) else None

    kinds = tuple(Annotated[m, Tag(m.model_fields[key].default)] for m in models)
    return Annotated[Union[kinds], Discriminator(tag)]  # noqa: UP007


class Credentials(Model):
    """User and password; the password as a file or `${VARIABLE}`."""

    username: str | None = None
    password_file: Path | None = None
    password: str | None = Field(None, description="`${VARIABLE}`; in clear it earns a warning")

    @rule
    def _one_password(self) -> str | None:
        if self.password is not None and self.password_file is not None:
            return "give `password_file:` or `password:`, not both"
        return None

    @rule
    def _whose_password(self) -> str | None:
        if not self.username and (self.password is not None or self.password_file is not None):
            return "a password needs `username:`"
        return None
