"""The models of ``central.yaml`` for what the centre keeps outside: InfluxDB and Grafana."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from services.runtime.config import Model
from services.runtime.document import KeyPath


class Influxdb(Model):
    """InfluxDB 2, where each tenant gets an organisation, buckets, tasks and tokens."""

    url: str = Field(description="of its API, e.g. `http://127.0.0.1:8086`")
    token_file: Path = Field(
        description="an operator's token: it makes organisations and reaches into all of them"
    )
    ca: Path | None = Field(None, description="CA certificate; default: the system's")

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        return _http_url(value)


class Grafana(Model):
    """Grafana, where each tenant gets an organisation, a data source and dashboards."""

    url: str = Field(description="of its API, e.g. `http://127.0.0.1:3000`")
    username: str = Field(
        "admin",
        description="a server administrator; no service account can make organisations",
    )
    password_file: Path = Field(description="its password")
    ca: Path | None = Field(None, description="CA certificate; default: the system's")
    influxdb_url: str | None = Field(
        None, description="InfluxDB as Grafana reaches it; default: `influxdb.url`"
    )

    @field_validator("url", "influxdb_url")
    @classmethod
    def _plain_url(cls, value: str | None) -> str | None:
        return None if value is None else _http_url(value)


def _http_url(value: str) -> str:
    try:
        url = urlsplit(value)
        good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        good, url = False, urlsplit("")
    if not good or url.query or url.fragment:
        raise ValueError("is no address: `https://host:port`")
    if "@" in url.netloc:
        raise ValueError("holds a user or password: these have keys of their own")
    return value.rstrip("/")


def unreadable(
    influxdb: Influxdb | None, grafana: Grafana | None, base: Path
) -> Iterator[tuple[KeyPath, str, str]]:
    """Files that are named and cannot be read: the key, what is wrong, the fix."""
    for name, section, secret in (
        ("influxdb", influxdb, "token_file"),
        ("grafana", grafana, "password_file"),
    ):
        for key in (secret, "ca"):
            file = None if section is None else getattr(section, key)
            if file is not None and not os.access(base / file, os.R_OK):
                hint = "create it, readable by the user that runs plc-edge (chmod 640)"
                yield (name, key), f"{base / file} cannot be read", hint


def render(influxdb: Influxdb | None, grafana: Grafana | None, base: Path) -> dict[str, Any]:
    """References to secrets, absolute paths."""
    found: dict[str, Any] = {"influxdb": None, "grafana": None}
    if influxdb is not None:
        found["influxdb"] = {
            "url": influxdb.url,
            "token": {"file": str(base / influxdb.token_file)},
            "ca": str(base / influxdb.ca) if influxdb.ca else None,
        }
    if grafana is not None and influxdb is not None:
        found["grafana"] = {
            "url": grafana.url,
            "username": grafana.username,
            "password": {"file": str(base / grafana.password_file)},
            "ca": str(base / grafana.ca) if grafana.ca else None,
            "influxdb_url": grafana.influxdb_url or influxdb.url,
        }
    return found
