"""Where InfluxDB's tokens lie: files that only the control plane's user can read, named as those of
infra/influxdb's script, and one environment file a tenant for Telegraf.

In the database stand their ids and hashes: it alone opens nothing.
"""

from __future__ import annotations

from pathlib import Path

from services.infra import tenant
from services.runtime import files
from services.runtime.files import write_whole


class Secrets:
    """Those of every tenant."""

    def __init__(self, state: Path) -> None:
        self._tokens = state / "tokens"
        self._telegraf = state / "telegraf"
        for folder in (self._tokens, self._telegraf):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _file(self, tenant_id: str, token: tenant.Token) -> Path:
        return self._tokens / token.file(tenant_id)

    def environment(self, tenant_id: str) -> Path:
        """What Telegraf is started with."""
        return self._telegraf / f"{tenant_id}.env"

    def read(self, tenant_id: str, token: tenant.Token) -> str | None:
        """None where there is no such file, or none that can be read."""
        try:
            return files.read(self._file(tenant_id, token), files.SECRET_MAX_BYTES).decode()
        except (files.Unreadable, UnicodeDecodeError):
            return None

    def write(self, tenant_id: str, token: tenant.Token, secret: str) -> None:
        """Whole, and on the disk before this returns."""
        write_whole(self._file(tenant_id, token), secret.encode())

    def write_environment(self, tenant_id: str) -> None:
        """Of all writers; left alone where it says the same."""
        lines = []
        for token in tenant.WRITERS:
            secret = self.read(tenant_id, token)
            lines.append(f"{tenant.telegraf_variable(tenant_id, token)}='{secret}'\n")
        content, file = "".join(lines).encode(), self.environment(tenant_id)
        if not file.exists() or file.read_bytes() != content:
            write_whole(file, content)

    def forget(self, tenant_id: str) -> None:
        """All of a tenant."""
        for token in tenant.TOKENS:
            self._file(tenant_id, token).unlink(missing_ok=True)
        self.environment(tenant_id).unlink(missing_ok=True)
