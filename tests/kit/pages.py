"""A browser's HTTP side of the admin page, without a browser: cookies kept, forms filled in.

visitor = Visitor(centre)
visitor.sign_in(key)
visitor.submit("/admin/tenants/acme", "/admin/tenants/acme/suspend")
"""

from __future__ import annotations

import html
import re
from http.cookies import SimpleCookie
from typing import NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3

from tests.kit.centre import Centre

_FORM = re.compile(
    r'<form method="post" action="(?P<action>[^"]+)"[^>]*>(?P<inside>.*?)</form>', re.S
)
_FIELD = re.compile(r'<input type="hidden" name="(?P<name>[^"]+)" value="(?P<value>[^"]*)"')


class Shown(NamedTuple):
    """What a browser would show."""

    status: int
    text: str
    headers: urllib3.HTTPHeaderDict
    url: str


class Visitor:
    """One browser."""

    def __init__(self, centre: Centre, language: str = "en") -> None:
        self.centre = centre
        self.language = language
        self.cookies: dict[str, dict[str, str]] = {}
        """Host and port -> name -> value: unlike a browser's, apart for each port."""
        self._pool = urllib3.PoolManager(timeout=30, retries=False)

    def ask(
        self,
        method: str,
        url: str,
        fields: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        *,
        follow: bool = True,
    ) -> Shown:
        """One request, and the redirects it leads to."""
        url = urljoin(self.centre.url, url)
        jar = self.cookies.setdefault(urlsplit(url).netloc, {})
        given = {"accept-language": self.language, **(headers or {})}
        if jar:
            given["cookie"] = "; ".join(f"{k}={v}" for k, v in jar.items())
        if fields is not None:
            given["content-type"] = "application/x-www-form-urlencoded"
        body = None if fields is None else urlencode(fields)
        answer = self._pool.request(method, url, body=body, headers=given, redirect=False)
        for line in answer.headers.getlist("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                jar[name] = morsel.value
                if morsel["max-age"] == "0" or not morsel.value:
                    del jar[name]
        shown = Shown(answer.status, answer.data.decode(), answer.headers, url)
        if follow and answer.status in (302, 303, 307):
            return self.ask("GET", urljoin(url, answer.headers["location"]))
        return shown

    def get(self, url: str, *, follow: bool = True) -> Shown:
        """A page."""
        return self.ask("GET", url, follow=follow)

    def sign_in(self, key: str) -> Shown:
        """By key."""
        return self.ask("POST", "/admin/sign-in", {"key": key})

    def form(self, page: str, action: str) -> dict[str, str]:
        """The hidden fields of a form on a page."""
        shown = self.get(page)
        for form in _FORM.finditer(shown.text):
            if html.unescape(form["action"]) == action:
                found = _FIELD.finditer(form["inside"])
                return {f["name"]: html.unescape(f["value"]) for f in found}
        raise AssertionError(f"{page} has no form to {action}: {shown.status}\n{shown.text}")

    def submit(self, page: str, action: str, *, follow: bool = True, **fields: str) -> Shown:
        """Fills in a form of a page and sends it."""
        given = {**self.form(page, action), **fields}
        return self.ask("POST", action, given, follow=follow)

    @property
    def token(self) -> str | None:
        """The session's cookie."""
        own = urlsplit(self.centre.url).netloc
        return self.cookies.get(own, {}).get("__Host-plce-session")
