"""What a PLC read by OPC UA has in ``config.yaml``: its server, its security, its nodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from services.protocols.opcua import node_ref
from services.runtime.base_model import Credentials, Duration, Model, Port
from services.runtime.judged import rule
from services.runtime.plc_model import Files, GroupBase, PlcBase


class OpcuaSecurity(Model):
    """How messages are protected; the server must offer it."""

    policy: Literal["Basic256Sha256", "Aes256_Sha256_RsaPss", "none"] = Field(
        "Basic256Sha256", description="`none`: anybody on the wire reads, and writes"
    )
    mode: Literal["sign_and_encrypt", "sign"] = Field(
        "sign_and_encrypt", description="`sign`: nobody changes, anybody reads"
    )


class OpcuaGroup(GroupBase):
    """Nodes that make one message together."""

    mode: Literal["subscribe", "scan"] = Field(
        "subscribe",
        description="`subscribe`: the server tells every change, `scan` says how often it tells;"
        " `scan`: the nodes are read, each `scan`",
    )
    sampling: Duration = Field(
        0.0,
        ge=0,
        le=3_600,
        description="`subscribe`: how often the server looks for changes; 0: as often as it can",
    )
    queue: int = Field(
        100,
        ge=1,
        le=10_000,
        description="`subscribe`: changes of one node that the server keeps between two tellings",
    )
    fields: list[Any] | None = Field(
        None, description="instead of a layout: fields with `node` and `type`"
    )

    def rendered(self, plc: PlcBase) -> dict[str, Any]:
        """What services/protocols/opcua/serve.py reads."""
        return {"mode": self.mode, "sampling_s": self.sampling, "queue": self.queue}


class OpcuaPlc(PlcBase, Credentials):
    """One OPC UA server, one reader process."""

    tag_keys: ClassVar[tuple[str, ...]] = ("node", "member")

    protocol: Literal["opcua"] = "opcua"
    port: Port = 4_840
    path: str = Field("", pattern=r"^(/[^\s?#]{0,200})?$", description="of its address: `/server`")
    security: OpcuaSecurity = Field(default_factory=OpcuaSecurity)
    user_certificate: Path | None = Field(None, description="instead of a password: PEM or DER")
    user_key: Path | None = Field(None, description="its private key")
    groups: list[OpcuaGroup] = Field(min_length=1)

    @rule
    def _whole_certificate(self) -> str | None:
        if (self.user_certificate is None) != (self.user_key is None):
            return "`user_certificate:` and `user_key:` belong together"
        return None

    @rule
    def _one_identity(self) -> str | None:
        if self.user_certificate is not None and self.username is not None:
            return "give either `username:` or `user_certificate:`"
        return None

    @rule
    def _no_password_in_clear(self) -> str | None:
        if self.security.policy == "none" and self.username is not None:
            return "`security: {policy: none}` sends the password readable: choose a policy"
        return None

    @classmethod
    def wrong_tag(cls, tag: Mapping[str, str]) -> tuple[str, str, str] | None:
        """What is wrong with a field's ``node`` or ``member``."""
        for key, parse in (("node", node_ref.parse), ("member", node_ref.parse_member)):
            if key in tag:
                try:
                    parse(tag[key])
                except ValueError as e:
                    message, _, hint = str(e).partition("; ")
                    return key, message, hint
        return None

    def rendered(self, files: Files) -> dict[str, Any]:
        """What services/protocols/opcua/connect.py reads."""
        return {
            "port": self.port,
            "path": self.path,
            "policy": self.security.policy,
            "mode": self.security.mode,
            "username": self.username,
            "password": files.secret(self, "password", self.id),
            "user_certificate": files.beside(self.user_certificate),
            "user_key": files.beside(self.user_key),
        }
