"""The kinds of fields that requests and answers are made of."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from services.control_plane.problems import Refusal

ID_PATTERN = r"^[a-z0-9][a-z0-9_-]{1,31}$"
# Names of tenants, sites and devices, as config.yaml has them: they become topics.
Id = Annotated[
    str,
    Field(
        pattern=ID_PATTERN,
        description="2 to 32 of a-z, 0-9, `_`, `-`, beginning with a letter or digit",
    ),
]
TenantId = Annotated[str, Path(pattern=ID_PATTERN)]
SiteId = Annotated[str, Path(pattern=ID_PATTERN)]
DeviceId = Annotated[str, Path(pattern=ID_PATTERN)]

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# PostgreSQL holds no NUL in a text.
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")


def _one_line(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("holds a control character")
    return value


def _storable(value: str) -> str:
    if _UNSTORABLE.search(value):
        raise ValueError("holds a NUL or half of a surrogate pair")
    return value


Line = Annotated[str, Field(max_length=200), AfterValidator(_one_line)]
Text = Annotated[str, AfterValidator(_storable)]


class Form(BaseModel):
    """A request's body: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class View(BaseModel):
    """An answer, or what the audit keeps of a row."""

    model_config = ConfigDict(from_attributes=True)


def moment(ms: int) -> datetime:
    """Unix ms as a date."""
    return datetime.fromtimestamp(ms / 1_000, UTC)


def moment_or_none(ms: int | None) -> datetime | None:
    """The same of what may be absent."""
    return None if ms is None else moment(ms)


T = TypeVar("T", bound=BaseModel)


class Page(BaseModel, Generic[T]):
    """A part of a list; ``next`` is the cursor of the following part, null at the end."""

    items: list[T]
    next: str | None


Limit = Annotated[int, Query(ge=1, le=500, description="rows in one answer")]
Cursor = Annotated[str | None, Query(max_length=400, description="`next` of the part before")]


def page(
    session: Session,
    query: Select[Any],
    keys: Sequence[InstrumentedAttribute[Any]],
    cursor: str | None,
    limit: int,
    view: Callable[[Any], T],
    *,
    newest_first: bool = False,
) -> Page[T]:
    """One part of a list in the order of ``keys``, which together are unique.

    A cursor is the keys of the last row, so a row that comes or goes meanwhile moves no other.
    """
    if cursor is not None:
        after = tuple_(*_keys(cursor, keys))
        query = query.where(tuple_(*keys) < after if newest_first else tuple_(*keys) > after)
    order = [key.desc() for key in keys] if newest_first else list(keys)
    rows = session.execute(query.add_columns(*keys).order_by(*order).limit(limit + 1)).all()
    following = None
    if len(rows) > limit:
        following = _cursor(rows[limit - 1][-len(keys) :])
    return Page(items=[view(row[0]) for row in rows[:limit]], next=following)


def _cursor(values: Sequence[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(list(values)).encode()).decode().rstrip("=")


def _keys(cursor: str, keys: Sequence[InstrumentedAttribute[Any]]) -> list[Any]:
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        kinds = [type(v) for v in values]
    except (ValueError, TypeError, RecursionError, binascii.Error):
        kinds = []
    wanted = [key.expression.type.python_type for key in keys]
    if kinds != wanted or not all(map(_plain, values)):
        raise Refusal("invalid-request", problems=[{"key": "cursor", "message": "is none of ours"}])
    return list(values)


def _plain(value: str | int) -> bool:
    """Whether both databases can compare with it."""
    if isinstance(value, int):
        return value.bit_length() < 63
    return not _UNSTORABLE.search(value)
