"""The models of an ``opcua`` output (docs/opcua-server.md)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from services.runtime.base_model import Credentials, Host, Model, Name, Port
from services.runtime.judged import rule
from services.runtime.loopback import is_loopback

OpcuaPolicy = Literal["Basic256Sha256", "Aes256_Sha256_RsaPss"]
OpcuaMode = Literal["sign", "sign_and_encrypt"]


class OpcuaUser(Credentials):
    """Who may look, by password, by certificate, or either."""

    username: str = Field(pattern=r"^[\w.@-]{1,64}$")
    certificate: Path | None = Field(
        None, description="DER or PEM; whoever holds its key is this user, with no password"
    )
    locatarios: list[Name] | None = Field(
        None, min_length=1, description="only these tenants' values; default: all"
    )
    secret_keys: ClassVar[tuple[str, ...]] = ("password",)

    @rule
    def _some_proof(self) -> str | None:
        if self.password is None and self.password_file is None and self.certificate is None:
            return "how does he prove who he is? Give `password_file:` or `certificate:`"
        return None


class OpcuaServing(Model):
    """What the server of an ``opcua`` output is."""

    host: Host = Field("127.0.0.1", description="address to listen at; `0.0.0.0`: all")
    port: Port = 4840
    policies: list[OpcuaPolicy] = Field(["Basic256Sha256", "Aes256_Sha256_RsaPss"], min_length=1)
    modes: list[OpcuaMode] = Field(["sign", "sign_and_encrypt"], min_length=1)
    insecure: bool = Field(
        False, description="also without signature and encryption: for clients on this machine only"
    )
    anonymous: bool = Field(
        False, description="whose certificate is trusted needs no user, and sees all tenants"
    )
    users: list[OpcuaUser] = Field([], max_length=100)
    trusted: Path | None = Field(
        None,
        description="folder with the certificates of the clients that may connect; default"
        " `<state>/opcua_server/<output>/trusted`",
    )
    certificate: Path | None = Field(
        None, description="the server's own; default: made at the first start"
    )
    key: Path | None = Field(None, description="its private key")

    @rule
    def _safe(self) -> str | None:
        if self.insecure and not is_loopback(self.host):
            return f"`insecure: true`, and the network can reach {self.host}: bind to 127.0.0.1"
        return None

    @rule
    def _somebody(self) -> str | None:
        if not self.users and not self.anonymous:
            return "nobody could sign in: give `users:`, or `anonymous: true`"
        return None

    @rule
    def _own_pair(self) -> str | None:
        if (self.certificate is None) != (self.key is None):
            return "`certificate:` and `key:` go together"
        return None

    @rule
    def _different_users(self) -> str | None:
        twice = [n for n, count in Counter(u.username for u in self.users).items() if count > 1]
        return f"`users:` names {twice[0]!r} twice" if twice else None
