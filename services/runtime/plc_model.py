"""What a PLC of any protocol has in ``config.yaml``. Each protocol's own model is
``services/protocols/<protocol>/model.py``; ``AnyPlc`` (services/runtime/config.py) is their table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import Field

from services.runtime.base_model import Credentials, Duration, Host, Model, Name, Port
from services.runtime.judged import rule


class GroupBase(Model):
    """Fields that are read together, at one rate."""

    name: Name
    measurement: str = Field("s7_db1", pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")
    scan: Duration = Field(1.0, ge=0.01, le=3_600, description="time from one read to the next")
    layout: Path | None = Field(None, description="layout file, relative to the configuration")
    fields: list[Any] | None = None
    publish: Literal["on_change", "always"] = Field(
        "on_change", description="the whole group goes out when any field passes its deadband"
    )
    max_silence: Duration = Field(60.0, ge=0.1, description="`on_change` repeats at least so often")
    trend: list[str] = Field([], description="fields whose trend the panel always keeps")

    @rule
    def _one_source(self) -> str | None:
        if (self.layout is None) == (self.fields is None):
            return "give either `layout:` (a file) or `fields:` (a list)"
        return None

    def block(self) -> int | None:
        """The data block that it reads, where it is one: ``db`` of its messages."""
        return None

    def bases(self) -> range:
        """First byte of each machine; 0 alone where nothing repeats."""
        return range(1)

    def records(self) -> list[tuple[str | None, int]]:
        """(name, first byte) of each machine; one nameless one where nothing repeats."""
        return [(None, 0)]

    def rendered(self, plc: PlcBase) -> dict[str, Any]:
        """What its source needs besides what each group's JSON has (services/runtime/render.py)."""
        return {}


class Files(Protocol):
    """How a rendered JSON, which never holds a secret, names files and secrets."""

    def beside(self, file: Path | None) -> str | None:
        """A path of the configuration, made absolute."""

    def secret(self, holder: Credentials, key: str, owner: str) -> dict[str, str] | None:
        """A reference to the secret under ``key``, for services/runtime/secrets.py in the reader.
        ``owner`` is a name for its file, where it stands in clear: the PLC's id.
        """


class PlcBase(Model):
    """One PLC, one reader process."""

    id: Name
    protocol: str
    """A ``Literal`` in each protocol's model."""
    host: Host | None = Field(None, description="address or name of its network interface")
    hosts: list[Host] = Field(
        [],
        max_length=8,
        description="instead of `host`, for a redundant PLC (S7-400H): one is read; another where"
        " that one is lost or its CPU stops",
    )
    locatario: Name | None = Field(None, description="tenant, if not the default")
    timeout: Duration = Field(2.0, ge=0.05, le=60)
    heartbeat: Duration = Field(10.0, ge=0.5, le=3_600)
    groups: Sequence[GroupBase]
    if TYPE_CHECKING:  # each protocol has its own default
        port: Port

    tag_keys: ClassVar[tuple[str, ...]] = ()
    """Where fields are tags: the key of a field that names one (`node`, `symbol`), and keys that
    may stand beside it. Empty where fields lie in memory."""

    caution: ClassVar[tuple[str, str]] = ("", "")
    """(what `check` says of the protocol itself, what to do about it); nothing where empty."""

    @rule
    def _some_host(self) -> str | None:
        if self.host is None and not self.hosts:
            return "`host:` is missing (or `hosts:`, the addresses of a redundant PLC)"
        if self.host is not None and self.hosts:
            return "give either `host:` (one address) or `hosts:` (a redundant PLC's)"
        return None

    @rule
    def _different_hosts(self) -> str | None:
        return (
            "`hosts:` names one address twice" if len(set(self.hosts)) < len(self.hosts) else None
        )

    @property
    def all_hosts(self) -> list[str]:
        """Every address, the first to try first."""
        return self.hosts or [str(self.host)]

    @classmethod
    def wrong_tag(cls, tag: Mapping[str, str]) -> tuple[str, str, str] | None:
        """(key, what is wrong with it, how to mend it) of a field's ``tag_keys``; None where
        nothing is.
        """
        return None

    def rendered(self, files: Files) -> dict[str, Any]:
        """What its source needs besides what every PLC's JSON has (id, locatario, hosts, protocol,
        timeout_s, heartbeat_s).
        """
        return {}
