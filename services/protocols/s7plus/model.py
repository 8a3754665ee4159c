"""What a PLC read by S7CommPlus has in ``config.yaml``: symbols instead of addresses, and who may
read them. Experimental (docs/s7plus.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from services.protocols.s7plus.symbols import SymbolError, parse_symbol
from services.runtime.base_model import Credentials, Duration, Port
from services.runtime.judged import rule
from services.runtime.plc_model import Files, GroupBase, PlcBase


def _fingerprint(value: str) -> str:
    digits = re.sub(r"[:\- ]", "", value)
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", digits):
        raise PydanticCustomError("fingerprint", "is no SHA-256: 64 hex digits")
    return digits.lower()


Fingerprint = Annotated[str, AfterValidator(_fingerprint)]


class S7PlusGroup(GroupBase):
    """Tags that are read together, at one rate."""

    fields: list[Any] | None = Field(
        None,
        description='instead of a layout: fields with a `symbol` (`"Motor 1".speed`) and its'
        " `type`, as `plc-edge browse` writes them",
    )


class S7PlusPlc(PlcBase, Credentials):
    """An S7-1200 or S7-1500, one reader process; its blocks may be optimised, PUT/GET off.

    Experimental: docs/s7plus.md says which firmware has been tried, by whom.
    """

    protocol: Literal["s7plus"] = "s7plus"
    port: Port = 102
    tls: Literal["auto", "required", "off"] = Field(
        "auto",
        description="`auto`: TLS, and without it only where the CPU has none and neither password"
        " nor `ca` nor `fingerprint` is given",
    )
    ca: Path | None = Field(
        None, description="CA of the CPU's certificate; then `host` must be its name"
    )
    fingerprint: Fingerprint | None = Field(
        None,
        description="SHA-256 of the CPU's certificate, in hex: no other is taken. `plc-edge probe`"
        " shows it",
    )
    program_check: Duration = Field(
        10.0,
        ge=1,
        le=3_600,
        description="how often it is looked whether the PLC's program was changed: until then a"
        " variable may come from another one's place. Two requests for each block",
    )
    groups: list[S7PlusGroup] = Field(min_length=1)
    secret_keys: ClassVar[tuple[str, ...]] = ("password",)
    tag_keys: ClassVar[tuple[str, ...]] = ("symbol",)
    caution: ClassVar[tuple[str, str]] = (
        "s7plus is experimental: tried with emulators only, not with a Siemens CPU",
        "compare its values with TIA Portal's watch table first; docs/s7plus.md has the firmware"
        " list and every limit known",
    )

    @rule
    def _tls_for_trust(self) -> str | None:
        if self.tls == "off" and (self.ca or self.fingerprint):
            return "`ca:` and `fingerprint:` are of TLS, and `tls:` is off"
        return None

    @rule
    def _whose_password(self) -> str | None:
        return None  # an access level's password has no user

    @rule
    def _user_with_password(self) -> str | None:
        if self.username is not None and not (self.password or self.password_file):
            return "`username:` needs `password:` or `password_file:`"
        return None

    @classmethod
    def wrong_tag(cls, tag: Mapping[str, str]) -> tuple[str, str, str] | None:
        """A symbol that cannot be one."""
        try:
            parse_symbol(tag["symbol"])
        except SymbolError as e:
            return "symbol", str(e), "copy it from `plc-edge browse`, or from TIA Portal"
        return None

    def rendered(self, files: Files) -> dict[str, Any]:
        """What services/protocols/s7plus/source.py reads."""
        return {
            "port": self.port,
            "tls": self.tls,
            "ca": files.beside(self.ca),
            "fingerprint": self.fingerprint,
            "username": self.username,
            "password": files.secret(self, "password", self.id),
            "program_check_s": self.program_check,
        }
