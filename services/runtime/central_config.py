"""The models of ``central.yaml``: what the centre's one process needs to know.

``docs/central-configuration.md`` is generated from these descriptions. The process itself reads
its rendered JSON (``render``), as every other.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pydantic import Field, PrivateAttr, field_validator

from bus.topology import IPC_PATH_MAX_BYTES, process_name
from services.runtime import central_oidc, central_outside, loader
from services.runtime import render as rendering
from services.runtime.central_outside import Grafana, Influxdb
from services.runtime.config import Host, HttpTls, Model, Port, Tls
from services.runtime.document import KeyPath
from services.runtime.errors import ConfigError
from services.runtime.files import write_whole
from services.runtime.judged import Unknown, rule
from services.runtime.loopback import is_loopback
from services.runtime.tls import EncryptedKey, refuse_encrypted
from services.runtime.validate import validate

ENV_PREFIX = "PLC_EDGE_CENTRAL__"
DEFAULT_FILES = (Path("/etc/plc-edge/central.yaml"), Path("central.yaml"))
# A key, what is wrong there, and the fix.
Broken = tuple[KeyPath, str, str]
# supervisord binds a longer name first (socket.pid) and links it.
_SOCKET_SUFFIX_BYTES = len("/supervisor.sock.4194304")


class Listen(Model):
    """Where the API answers."""

    host: Host = "127.0.0.1"
    port: Port = 8443
    tls: HttpTls | Literal[False] = Field(
        False, description="certificate and key; `false` only on this machine's loopback"
    )

    @rule
    def _safe(self) -> str | None:
        if self.tls or is_loopback(self.host):
            return None
        return (
            f"{self.host} can be reached from the network: set `tls: {{cert: …, key: …}}`, or"
            " bind to 127.0.0.1"
        )


class CentralBroker(Model):
    """Mosquitto with its dynamic-security plugin, whose accounts the centre keeps."""

    host: Host = "127.0.0.1"
    port: Port = 8883
    username: str = Field("admin", description="the plugin's administrator (`dynsec init`)")
    password_file: Path = Field(description="its password")
    tls: Tls | Literal[False] = Field(
        default_factory=Tls, description="`false` only to this machine's loopback"
    )

    @rule
    def _safe(self) -> str | None:
        if self.tls or is_loopback(self.host):
            return None
        return f"the passwords of all accounts would go to {self.host} in clear: set `tls:`"


class CentralPaths(Model):
    """Where files lie; relative to the configuration."""

    state: Path = Field(Path("central-state"), description="keys, logs, what was rendered")
    runtime: Path | None = Field(
        None, description="locks and supervisord's socket; default `<state>/run`"
    )


class Central(Model):
    """The centre: one API for tenants, boxes, credentials, quotas and usage."""

    listen: Listen = Field(default_factory=Listen)
    database: str = Field(
        description="`sqlite:///central.db` (relative to the configuration) or"
        " `postgresql://user@host/name`"
    )
    database_password_file: Path | None = Field(
        None, description="PostgreSQL's password; in the URL it earns a warning"
    )
    broker: CentralBroker | None = Field(
        None, description="whose accounts are kept; without it they are made by hand"
    )
    influxdb: Influxdb | None = Field(
        None, description="whose organisations are kept; without it they are made by hand"
    )
    grafana: Grafana | None = Field(None, description="the same; needs `influxdb`")
    oidc: central_oidc.Oidc | None = Field(
        None, description="people sign in with it on the admin page; without it, with an API key"
    )
    alerts: bool = Field(False, description="evaluate the tenants' alert rules here")
    alert_receivers: Literal["public", "any"] = Field(
        "public",
        description="`any`: tenants may also have addresses of this machine and its networks told",
    )
    paths: CentralPaths = Field(default_factory=CentralPaths)

    @rule
    def _grafana_shows_influxdb(self) -> str | None:
        if self.grafana is not None and self.influxdb is None:
            return "`grafana` shows what InfluxDB holds: set `influxdb:` too"
        return None

    _warnings: list[str] = PrivateAttr(default_factory=list)

    @field_validator("database")
    @classmethod
    def _known_database(cls, value: str) -> str:
        try:
            url = urlsplit(value)
            named = bool(url.path.strip("/")) and url.port != 0
        except ValueError:
            named = False
        if not named or not value.startswith(("sqlite:///", "postgresql://")):
            raise ValueError(
                "is no database URL: `sqlite:///FILE` or `postgresql://user@host:5432/name`"
            )
        return value

    @rule
    def _alerts_need_a_broker(self) -> str | None:
        if self.alerts and self.broker is None:
            return "`alerts: true` needs `broker:`: that is where the values come from"
        return None

    @property
    def warnings(self) -> list[str]:
        """What is allowed but not wise."""
        return self._warnings


@dataclass(frozen=True, slots=True)
class Centre:
    """A checked ``central.yaml``."""

    file: Path
    config: Central
    state: Path
    runtime: Path
    database: str
    """The URL without a password, a file's path absolute."""
    password: dict[str, str] | None
    """Reference to PostgreSQL's password (services/runtime/secrets.py)."""
    clear_password: str | None
    """What stood in the URL; ``write_clear_password`` puts it where the reference points."""


def find(given: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The configuration to use: ``--config``, else PLC_EDGE_CENTRAL_CONFIG, else the usual."""
    if given is None and "PLC_EDGE_CENTRAL_CONFIG" in environ:
        given = Path(environ["PLC_EDGE_CENTRAL_CONFIG"])
    if given is not None:
        return given
    return next((f for f in DEFAULT_FILES if f.exists()), DEFAULT_FILES[0])


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Centre:
    """Reads, overrides, validates. Raises ConfigError carrying every problem found."""
    begin = "`listen:` and `database:` (deploy/central.example.yaml)"
    document = loader.read(path, environ, ENV_PREFIX, begin)
    config, wrong = validate(document, Central)
    base = path.absolute().parent
    problems = [*document.problems, *wrong]
    for check in (_password, _certificate, _broker, _outside, _oidc, _sockets):
        with suppress(Unknown):
            problems += [document.problem(*p) for p in check(config, base)]
    if problems:
        raise ConfigError(loader.in_order(problems))
    for section in (config.influxdb, config.grafana):
        address = urlsplit(section.url if section else "")
        if address.scheme == "http" and not is_loopback(address.hostname or ""):
            config._warnings.append(
                f"{path}: what opens {address.netloc} goes there in clear; use https://"
            )
    state = base / config.paths.state
    url, clear = _without_password(config.database, base)
    password = None
    if config.database_password_file is not None:
        password = {"file": str(base / config.database_password_file)}
    elif clear is not None:
        password = {"file": str(state / "secrets" / "database.password")}
        config._warnings.append(
            f"{path}: the password in `database` is in clear; use `database_password_file:`"
        )
    return Centre(path, config, state, _runtime(config, base, state), url, password, clear)


def _password(config: Central, base: Path) -> Iterator[Broken]:
    if config.database_password_file is None:
        return
    file = base / config.database_password_file
    if not os.access(file, os.R_OK):
        hint = "create it, readable by the user that runs plc-edge (chmod 640)"
        yield ("database_password_file",), f"{file} cannot be read", hint
    if _without_password(config.database, base)[1] is not None:
        hint = "remove it from the URL"
        yield ("database",), "has a password, and there is a password file", hint


def _certificate(config: Central, base: Path) -> Iterator[Broken]:
    if config.listen.tls:
        yield from _pem_files(config.listen.tls, base, ("listen", "tls"))


def _broker(config: Central, base: Path) -> Iterator[Broken]:
    if config.broker is None:
        return
    file = base / config.broker.password_file
    if not os.access(file, os.R_OK):
        hint = "create it, readable by the user that runs plc-edge (chmod 640)"
        yield ("broker", "password_file"), f"{file} cannot be read", hint
    if config.broker.tls:
        yield from _pem_files(config.broker.tls, base, ("broker", "tls"))


def _outside(config: Central, base: Path) -> Iterator[Broken]:
    yield from central_outside.unreadable(config.influxdb, config.grafana, base)


def _oidc(config: Central, base: Path) -> Iterator[Broken]:
    if config.oidc is not None:
        yield from central_oidc.broken(config.oidc, base)


def _pem_files(tls: HttpTls | Tls, base: Path, at: KeyPath) -> Iterator[Broken]:
    good = {name: base / file for name, file in tls if file is not None}
    for name, file in list(good.items()):
        if not os.access(file, os.R_OK):
            hint = "copy the file there, readable by the user that runs plc-edge"
            yield (*at, name), f"{good.pop(name)} cannot be read", hint
    if "key" in good and "cert" in good:
        try:
            refuse_encrypted(good["cert"], good["key"])
        except EncryptedKey as e:
            yield (*at, "key"), e.args[0], e.hint


def _sockets(config: Central, base: Path) -> Iterator[Broken]:
    state = base / config.paths.state
    runtime = _runtime(config, base, state)
    if len(os.fsencode(runtime)) + _SOCKET_SUFFIX_BYTES > IPC_PATH_MAX_BYTES:
        message = f"{runtime} is too long for a Unix socket in it ({IPC_PATH_MAX_BYTES} bytes)"
        yield ("paths", "runtime"), message, "choose a shorter one, e.g. /run/plc-edge-central"
    if config.paths.runtime is None and runtime.parent != state and not _ours(runtime):
        hint = f"remove it, or set `paths: {{runtime: …}}` (it cannot lie in {state}: too long)"
        yield ("paths", "runtime"), f"{runtime} is not yours alone", hint


def _without_password(database: str, base: Path) -> tuple[str, str | None]:
    if database.startswith("sqlite:///"):
        return f"sqlite:///{base / database.removeprefix('sqlite:///')}", None
    url = urlsplit(database)
    if url.password is None:
        return database, None
    user, host = quote(unquote(url.username or "")), url.netloc.rpartition("@")[2]
    return urlunsplit(url._replace(netloc=f"{user}@{host}")), unquote(url.password)


def _runtime(config: Central, base: Path, state: Path) -> Path:
    if config.paths.runtime is not None:
        return base / config.paths.runtime
    runtime = state / "run"
    if len(os.fsencode(runtime)) + _SOCKET_SUFFIX_BYTES <= IPC_PATH_MAX_BYTES:
        return runtime
    # Somewhere deep in a home directory no socket can lie; one of its own in /tmp can.
    mark = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"plc-edge-central-{os.getuid()}-{mark}"


def _ours(folder: Path) -> bool:
    """Whether nobody else can put a socket there: in /tmp anybody can make a folder first."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return True
    private = not stat.S_IMODE(found.st_mode) & 0o077
    return stat.S_ISDIR(found.st_mode) and private and found.st_uid == os.getuid()


def write_clear_password(centre: Centre) -> None:
    """Puts a password of the URL into a file of its own: no rendered file holds one."""
    if centre.clear_password is not None and centre.password is not None:
        file = Path(centre.password["file"])
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(file, centre.clear_password.encode())


def render(centre: Centre) -> rendering.Rendered:
    """The JSON of the centre's processes, by process name; control_plane's first."""
    listen = centre.config.listen
    base = centre.file.absolute().parent
    broker = _rendered_broker(centre.config.broker, base)
    rendered: rendering.Rendered = {}

    def add(folder: str, **content: Any) -> None:
        name = process_name(folder)
        rendered[name] = {
            "process": name,
            "folder": folder,
            "item": "",
            "where": "centre",
            "runtime": str(centre.runtime),
            "state": str(centre.state),
            "logs": str(centre.state / "log"),
            **content,
        }

    own = {"database": centre.database, "password": centre.password, "broker": broker}
    where = {
        "host": listen.host,
        "port": listen.port,
        "tls": {k: str(base / f) for k, f in listen.tls} if listen.tls else None,
    }
    receivers = centre.config.alert_receivers
    add(
        "control_plane",
        listen=where,
        oidc=central_oidc.rendered(centre.config.oidc, base),
        alerts=centre.config.alerts,
        alert_receivers=receivers,
        **central_outside.render(centre.config.influxdb, centre.config.grafana, base),
        **own,
    )
    if broker is not None:
        add("meter", **own)
    if centre.config.alerts and broker is not None:
        # Not the administrator's account: each tenant's session has its own.
        sessions = {k: broker[k] for k in ("host", "port", "tls")}
        add("alerts", broker=sessions, alert_receivers=receivers)
    return rendered


def _rendered_broker(broker: CentralBroker | None, base: Path) -> dict[str, Any] | None:
    if broker is None:
        return None
    tls = {k: str(base / f) if f else None for k, f in broker.tls} if broker.tls else None
    return {
        "host": broker.host,
        "port": broker.port,
        "username": broker.username,
        "password": {"file": str(base / broker.password_file)},
        "tls": tls,
    }
