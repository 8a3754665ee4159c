"""The model of ``fleet:`` in ``config.yaml``: the control plane that this box belongs to."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field

from services.runtime.base_model import Duration, Model
from services.runtime.judged import rule


class Fleet(Model):
    """The control plane that this box takes its configuration from (docs/frota.md)."""

    url: str = Field(
        pattern=r"^https?://[^\s/?#@]+/?$", description="e.g. `https://central.example:8443`"
    )
    ca: Path | None = Field(
        None, description="CA of the control plane's certificate; default: the system's"
    )
    claim_file: Path | None = Field(
        None, description="holds the one-time code; or `plc-edge fleet claim`"
    )
    watch: Duration | None = Field(
        None,
        ge=5,
        le=3_600,
        description="what worked before must work so long after a change, or it is taken back;"
        " default: as long as the control plane says, `60s`",
    )

    @rule
    def _encrypted(self) -> str | None:
        host = urlsplit(self.url).hostname or ""
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = host == "localhost"
        if self.url.startswith("http:") and not loopback:
            return "`url:` must begin with https:// (http only to this machine itself)"
        return None
