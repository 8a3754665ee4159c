"""A node as a layout names it: namespace by URI, for a server may number its namespaces anew at
every start. The text is OPC 10000-6 §5.3.1.11: ``nsu=URI;s=Name``; without ``nsu=`` it is a node of
the standard's own namespace (``i=2258``, the server's clock).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from uuid import UUID

STANDARD_URI = "http://opcfoundation.org/UA/"
_TEXT = re.compile(r"(?:nsu=(?P<uri>[^;]+);)?(?P<kind>[isgb])=(?P<value>.+)", re.DOTALL)
_INDEXED = re.compile(r"ns=\d+;")
# One step into a structure or an array: `.name` or `[n]`.
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class NodeRef:
    """One node of a server."""

    uri: str
    kind: str
    """``i`` number, ``s`` string, ``g`` GUID, ``b`` bytes (base64)."""
    value: str

    def __str__(self) -> str:
        place = "" if self.uri == STANDARD_URI else f"nsu={_escape(self.uri)};"
        return f"{place}{self.kind}={self.value}"


def parse(text: str) -> NodeRef:
    """The node that ``text`` names. Raises ValueError with the mistake and its fix."""
    if _INDEXED.match(text):
        raise ValueError(
            f"{text!r} counts the namespace; give its URI: `nsu=URI;…` (a server may number its"
            " namespaces anew at every start; `plc-edge browse` shows the URI)"
        )
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no node; write `nsu=URI;s=Name` or `nsu=URI;i=1001`")
    kind, value = match["kind"], match["value"]
    try:
        if kind == "i" and not 0 <= int(value) < 2**32:
            raise ValueError
        if kind == "g":
            UUID(value)
        if kind == "b":
            base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        what = {"i": "number from 0 to 4294967295", "g": "GUID", "b": "base64 text"}[kind]
        raise ValueError(f"{text!r}: {value!r} is no {what}") from None
    return NodeRef(_unescape(match["uri"] or STANDARD_URI), kind, value)


def parse_member(text: str) -> tuple[str | int, ...]:
    """``motor.trips[2]`` -> ("motor", "trips", 2). Raises ValueError."""
    steps: list[str | int] = []
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None or (at == 0 and text[0] == "."):
            raise ValueError(f"{text!r} is no member; write `name.name[0]`")
        steps.append(match[1] if match[1] is not None else int(match[2]))
        at = match.end()
    if not steps:
        raise ValueError("a member has a name; write `name.name[0]`")
    return tuple(steps)


def _escape(uri: str) -> str:
    return uri.replace("%", "%25").replace(";", "%3B")


def _unescape(uri: str) -> str:
    return uri.replace("%3B", ";").replace("%3b", ";").replace("%25", "%")
