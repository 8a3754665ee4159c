"""The admin page as an ASGI application in front of the API.

Who is signed in, which language, whether a form is ours: decided here, once for all pages. What a
page shows is the API's (client.py), what it looks like the templates'.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import jinja2
from anyio.to_thread import run_sync
from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp

from services.control_plane import problems
from services.control_plane.app import as_refusal
from services.control_plane.pages import sessions
from services.control_plane.pages.client import Client, Refused
from services.control_plane.pages.sessions import Person
from services.control_plane.pages.words import LANGUAGES, Words
from services.control_plane.unit import Core
from services.runtime.log import Log
from services.runtime.static_files import StaticFiles, security_headers

if TYPE_CHECKING:
    from services.control_plane.pages.oidc import Provider

HOME, SIGN_IN = "/admin/", "/admin/sign-in"
# Sent over TLS only (to this machine itself too), to this host only, to no script.
SESSION_COOKIE = "__Host-plce-session"
PREFERENCES_COOKIE = "plce-preferences"
PREFERENCES_S = 365 * 86_400
THEMES = ("auto", "light", "dark")
MAX_FORM_BYTES = 64 * 1024
# Of a page that looks again by itself: nobody is there because of it.
POLL_HEADER = "x-poll"
_FOLDER = Path(__file__).parent
_OURS = re.compile(r"/admin(/[\w.~-]*)*(\?[\w.~%&=+-]*)?", re.ASCII)


class Forged(Exception):
    """A form that does not come from a page of ours."""


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "once": lambda: secrets.token_urlsafe(16),
        "now": lambda: datetime.now(UTC).isoformat(timespec="seconds"),
        "changes": changes,
    }
    environment.filters |= {"when": _when, "local": _local}
    return environment


def _when(at: str) -> str:
    """A moment without a script, which shows it in the reader's zone (admin.js)."""
    return f"{datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _local(url: URL) -> str:
    return f"{url.path}?{url.query}" if url.query else url.path


def changes(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> list[tuple[str, str, str]]:
    """(key, before, after) of every member of either, as texts."""
    old, new = before or {}, after or {}

    def text(members: Mapping[str, Any], key: str) -> str:
        value = members.get(key)
        return value if isinstance(value, str) else "–" if value is None else json.dumps(value)

    return [(key, text(old, key), text(new, key)) for key in {**old, **new}]


class Site:
    """What every page works with."""

    def __init__(self, core: Core, api: ASGIApp, log: Log, provider: Provider | None) -> None:
        self.core = core
        self.api = api
        self.log = log
        self.provider = provider
        self.files = StaticFiles(_FOLDER / "static")
        self.templates = _environment()

    @property
    def roles(self) -> Mapping[str, Any]:
        """Of people whom the provider vouches for."""
        return self.provider.roles if self.provider else {}


@dataclass(slots=True)
class Visit:
    """One request of a browser."""

    site: Site
    request: Request
    person: Person | None
    form: dict[str, str] = field(default_factory=dict, repr=False)
    problem: dict[str, Any] | None = None
    """Why what was asked with ``form`` was refused, for the page to say."""

    @property
    def words(self) -> Words:
        """In the language that was chosen, else in the browser's."""
        chosen = self._preferences()[0]
        if chosen not in LANGUAGES:
            chosen = problems.language(self.request.headers.get("accept-language", ""))
        return Words(chosen)

    @property
    def theme(self) -> str:
        """``auto``, ``light`` or ``dark``."""
        chosen = self._preferences()[1]
        return chosen if chosen in THEMES else "auto"

    def _preferences(self) -> tuple[str, str]:
        language, _, theme = self.request.cookies.get(PREFERENCES_COOKIE, "").partition(".")
        return language, theme

    @property
    def api(self) -> Client:
        """The API, as whoever is signed in."""
        assert self.person is not None, "a page for people who are signed in"
        return Client(self.site.api, self.person.actor, self.words.language)

    @property
    def tenant(self) -> str | None:
        """The one that this person belongs to; None: the platform's operator."""
        return self.person.actor.tenant_id if self.person else None

    def may(self, *roles: str) -> bool:
        """For what is shown; what may be done, the API decides."""
        return self.person is not None and self.person.actor.role in roles

    def query(self, name: str) -> str | None:
        """A parameter of the address."""
        return self.request.query_params.get(name) or None

    def render(self, template: str, status: int = 200, **context: Any) -> Response:
        """A page."""
        words = self.words
        done = f"done_{self.query('done')}"
        html = self.site.templates.get_template(template).render(
            visit=self,
            person=self.person,
            t=words,
            theme=self.theme,
            here=self.here(),
            done=words(done) if self.problem is None and words.has(done) else None,
            problem=self.problem,
            given=self.form if self.problem else {},
            **context,
        )
        headers = {**security_headers(forms=True), "cache-control": "no-store"}
        return Response(html, status, headers, "text/html")

    def say(self, key: str, status: int) -> Response:
        """A page that tells of one thing, and leads on."""
        return self.render("message.html", status, key=key)

    def here(self) -> str:
        """This page, to come back to after a choice of language; of a form, where it began."""
        if self.request.method != "GET":
            return HOME
        query = self.request.url.query
        return self.request.url.path + (f"?{query}" if query else "")


def ours(address: str) -> str:
    """Where to go on; never to somebody else's page."""
    return address if _OURS.fullmatch(address) else HOME


Handler = Callable[[Visit], Awaitable[Response]]


def page(
    site: Site, handler: Handler, *, public: bool = False
) -> Callable[..., Awaitable[Response]]:
    """A page as Starlette takes it: for people who are signed in, unless it is ``public``."""

    async def endpoint(request: Request) -> Response:
        visit = Visit(site, request, None)
        try:
            visit.person = await _person(site, request)
            if request.method == "POST":
                visit.form = await _form(request, visit.person)
            if visit.person is None and not public:
                return _sign_in_first(request)
            return await handler(visit)
        except Refused as e:
            return visit.render("problem.html", e.status, refusal=e.document)
        except Forged as e:
            site.log.warning("form refused", path=request.url.path, reason=str(e))
            return visit.say("forged", 403)
        except Exception as e:  # answered as the API would, and told
            refusal = as_refusal(e)
            said = {"path": request.url.path, "error": repr(e)}
            site.log.error("page failed", code=refusal.code, **said)
            document = problems.document(refusal, visit.words.language, request.url.path)
            return visit.render("problem.html", refusal.status, refusal=document)

    return endpoint


async def _person(site: Site, request: Request) -> Person | None:
    token = request.cookies.get(SESSION_COOKIE)
    if token is None:
        return None
    active = POLL_HEADER not in request.headers

    def find() -> Person | None:
        return sessions.find(site.core.database, token, site.roles, active=active)

    return await run_sync(find)


def _sign_in_first(request: Request) -> Response:
    ended = SESSION_COOKIE in request.cookies
    address = SIGN_IN + ("?ended=1" if ended else "")
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={"hx-redirect": address})
    return RedirectResponse(address, 303)


async def _form(request: Request, person: Person | None) -> dict[str, str]:
    """The fields of a form of ours; raises Forged of any other."""
    headers = request.headers
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Forged("sent from another site")
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        raise Forged("sent from another origin")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM_BYTES:
            raise Forged(f"larger than {MAX_FORM_BYTES} bytes")
    try:
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True, errors="strict"))
    except ValueError:
        raise Forged("is no form") from None
    if person is not None and not hmac.compare_digest(
        fields.get("csrf", "").encode("utf-8", "replace"), person.csrf.encode()
    ):
        raise Forged("without the session's own word")
    return fields


def set_cookie(response: Response, name: str, value: str, age_s: int, **more: Any) -> None:
    """Readable by no script; empty and of age 0: taken back."""
    more = {"path": "/", "samesite": "strict", "secure": True, **more}
    response.set_cookie(name, value, max_age=age_s, httponly=True, **more)
