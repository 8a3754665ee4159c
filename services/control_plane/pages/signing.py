"""Signing in, by key or by the provider, and out."""

from __future__ import annotations

import functools

from anyio.to_thread import run_sync
from starlette.responses import RedirectResponse, Response

from services.control_plane.pages import sessions
from services.control_plane.pages.web import (
    HOME,
    PREFERENCES_COOKIE,
    PREFERENCES_S,
    SESSION_COOKIE,
    SIGN_IN,
    THEMES,
    Visit,
    ours,
    set_cookie,
)
from services.control_plane.pages.words import LANGUAGES
from services.control_plane.problems import Refusal

# To the provider and back again. The way back begins at its site, so SameSite must be Lax.
PENDING_COOKIE = "__Secure-plce-sign-in"
_PENDING = {"path": "/admin/oidc", "samesite": "lax"}


async def form(visit: Visit) -> Response:
    """The page where somebody signs in."""
    if visit.person is not None:
        return RedirectResponse(HOME, 303)
    return _form(visit)


def _form(visit: Visit, status: int = 200, wrong: str | None = None) -> Response:
    ended = visit.query("ended") is not None and wrong is None
    by_provider = visit.site.provider is not None
    return visit.render("sign_in.html", status, ended=ended, wrong=wrong, by_provider=by_provider)


async def by_key(visit: Visit) -> Response:
    """An API key was pasted."""
    site, key = visit.site, visit.form.get("key", "").strip()
    token = await run_sync(sessions.begin_by_key, site.core, key)
    if token is None:
        site.log.warning("sign-in refused", by="key")
        return _form(visit, 403, "wrong_key")
    response = RedirectResponse(HOME, 303)
    await _begin(visit, response, token)
    return response


async def _begin(visit: Visit, response: Response, token: str) -> None:
    """A new session; the one that this browser had before, if any, ends."""
    if visit.person is not None:
        await run_sync(sessions.end, visit.site.core, visit.person)
    set_cookie(response, SESSION_COOKIE, token, sessions.LONGEST_MS // 1_000)


async def out(visit: Visit) -> Response:
    """Ends the session here, whatever the browser keeps."""
    if visit.person is not None:
        await run_sync(sessions.end, visit.site.core, visit.person)
    response = RedirectResponse(f"{SIGN_IN}?done=sign_out", 303)
    set_cookie(response, SESSION_COOKIE, "", 0)
    return response


async def to_provider(visit: Visit) -> Response:
    """Sends the browser to the provider."""
    from services.control_plane.pages.oidc import NotSignedIn, ProviderAway

    provider = visit.site.provider
    if provider is None:
        return visit.say("no_provider", 404)
    try:
        address, cookie = await visit.site.core.lanes.signing_in.run(provider.begin)
    except (ProviderAway, Refusal) as e:
        return _away(visit, e)
    except NotSignedIn as e:
        return _refused(visit, e.code, e.reason)
    response = RedirectResponse(address, 303, {"cache-control": "no-store"})
    set_cookie(response, PENDING_COOKIE, cookie, 600, **_PENDING)
    return response


async def from_provider(visit: Visit) -> Response:
    """The browser is back from there."""
    from services.control_plane.pages.oidc import NotSignedIn, ProviderAway

    site, provider = visit.site, visit.site.provider
    if provider is None:
        return visit.say("no_provider", 404)
    cookie, query = visit.request.cookies.get(PENDING_COOKIE, ""), visit.request.query_params
    try:
        finish = functools.partial(provider.finish, cookie, query)
        who = await site.core.lanes.signing_in.run(finish)
    except (ProviderAway, Refusal) as e:
        return _away(visit, e)
    except NotSignedIn as e:
        return _refused(visit, e.code, e.reason)
    token = await run_sync(
        sessions.begin_by_provider,
        *(site.core, provider.issuer, who.subject, who.name, who.groups, provider.roles),
    )
    if token is None:
        person = sessions.person_id(provider.issuer, who.subject)
        return _refused(visit, "no_role", f"nothing is given to {person}")
    # A redirect would still be the provider's: the browser would leave the Strict cookie out.
    response = visit.render("signed_in.html", to=HOME)
    await _begin(visit, response, token)
    set_cookie(response, PENDING_COOKIE, "", 0, **_PENDING)
    return response


def _away(visit: Visit, error: Exception) -> Response:
    visit.site.log.warning("sign-in: provider away", error=str(error)[:500])
    return _form(visit, 503, "provider_away")


def _refused(visit: Visit, code: str, reason: str) -> Response:
    visit.site.log.warning("sign-in refused", by="provider", code=code, reason=reason[:500])
    response = _form(visit, 403, code if code == "no_role" else f"provider_{code}")
    set_cookie(response, PENDING_COOKIE, "", 0, **_PENDING)
    return response


async def prefer(visit: Visit) -> Response:
    """Language and theme."""
    language, theme = visit.form.get("language", ""), visit.form.get("theme", "")
    response = RedirectResponse(ours(visit.form.get("back", "")), 303)
    if language in LANGUAGES and theme in THEMES:
        value = f"{language}.{theme}"
        set_cookie(response, PREFERENCES_COOKIE, value, PREFERENCES_S, samesite="lax")
    return response
