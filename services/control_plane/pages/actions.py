"""What can be done on a page: each form is one request to the API, listed here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import RedirectResponse, Response

from services.control_plane.pages import views
from services.control_plane.pages.client import Refused
from services.control_plane.pages.web import Handler, Visit

_TENANT = "/admin/tenants/{tenant}"


@dataclass(frozen=True, slots=True)
class Action:
    """One form. Names in braces are parts of the page's own address."""

    name: str
    page: str
    """Where the form is sent."""
    method: str
    path: str
    """Of the API, below /v1."""
    texts: tuple[str, ...] = ()
    """Fields that are sent on; an empty one is left out."""
    numbers: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    """Boxes to be ticked."""
    to: str = _TENANT
    """Where the browser goes when it was done."""
    back: Handler = views.tenant
    """The page that says why it was not done."""
    shape: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    """Makes the body of the fields where it is more than these."""
    secret: bool = False
    """Whether the answer holds something to be shown once."""

    async def run(self, visit: Visit) -> Response:
        """Asks, and leads on."""
        parts = visit.request.path_params
        fields = {k: v.strip() for k, v in visit.form.items()}
        body: dict[str, Any] = {k: fields[k] for k in self.texts if fields.get(k)}
        for name in self.numbers:
            if fields.get(name):
                body[name] = int(fields[name]) if fields[name].isdecimal() else fields[name]
        body |= {name: True for name in self.flags if name in fields}
        body = self.shape(body) if self.shape else body
        sends = bool(self.texts or self.numbers)
        headers = {"idempotency-key": fields.get("once"), "if-match": fields.get("etag")}
        try:
            reply = await visit.api.call(
                self.method,
                self.path.format(**parts),
                body if sends else None,
                headers={k: v for k, v in headers.items() if v},
            )
        except Refused as e:
            visit.problem = e.document
            return await self.back(visit)
        made = reply.body if isinstance(reply.body, dict) else {}
        to = self.to.format(**{**fields, "made": made.get("id", ""), **parts})
        if self.secret:
            return visit.render("secret.html", made=reply.body, to=to, action=self.name)
        return RedirectResponse(f"{to}?done={self.name}", 303)


def _rollout(fields: dict[str, Any]) -> dict[str, Any]:
    """Names and percentages with commas between them; minutes."""
    sites = _WORDS.findall(fields.pop("sites", ""))
    body = {"sites": sites or "all", **fields}
    if "stages" in body:
        words = _WORDS.findall(body["stages"])
        body["stages"] = [int(w) if w.isdecimal() else w for w in words]
    if isinstance(body.get("timeout_min"), int):
        body["timeout_s"] = body.pop("timeout_min") * 60
    return body


_WORDS = re.compile(r"[^\s,;%]+")
_BOX = f"{_TENANT}/boxes/{{box}}"
_SITE = "tenants/{tenant}/sites/{box}"
_ROLLOUT = f"{_TENANT}/rollouts/{{rollout}}"
_ROLLOUTS = "tenants/{tenant}/rollouts"
_KEY = f"{_TENANT}/credentials/{{credential}}"
_KEYS = "tenants/{tenant}/credentials"
_OPERATORS = "/admin/operators"
ACTIONS = (
    Action("tenant_create", "/admin/tenants", "POST", "tenants", ("id", "name", "plan"),
           to="/admin/tenants/{id}", back=views.tenants),
    Action("tenant_change", f"{_TENANT}/change", "PATCH", "tenants/{tenant}", ("plan", "name")),
    Action("tenant_suspend", f"{_TENANT}/suspend", "POST", "tenants/{tenant}/suspend"),
    Action("tenant_resume", f"{_TENANT}/resume", "POST", "tenants/{tenant}/resume"),
    Action("site_create", f"{_TENANT}/sites", "POST", "tenants/{tenant}/sites", ("id", "name")),
    Action("device_create", f"{_TENANT}/devices", "POST", "tenants/{tenant}/devices",
           ("id", "site", "name")),
    Action("credential_create", f"{_TENANT}/credentials", "POST", _KEYS,
           ("kind", "role", "site", "name"), secret=True),
    Action("credential_rotate", f"{_KEY}/rotate", "POST", f"{_KEYS}/{{credential}}/rotate",
           numbers=("overlap_s",), secret=True),
    Action("credential_revoke", f"{_KEY}/revoke", "POST", f"{_KEYS}/{{credential}}/revoke"),
    Action("operator_create", _OPERATORS, "POST", "credentials", ("name",),
           to=_OPERATORS, back=views.operators, secret=True),
    Action("operator_rotate", f"{_OPERATORS}/{{credential}}/rotate", "POST",
           "credentials/{credential}/rotate", numbers=("overlap_s",), to=_OPERATORS,
           back=views.operators, secret=True),
    Action("operator_revoke", f"{_OPERATORS}/{{credential}}/revoke", "POST",
           "credentials/{credential}/revoke", to=_OPERATORS, back=views.operators),
    Action("claim_create", f"{_BOX}/claims", "POST", f"{_SITE}/claims", numbers=("valid_s",),
           to=_BOX, back=views.box, secret=True),
    Action("target_set", f"{_BOX}/target", "POST", f"{_SITE}/target", numbers=("version",),
           flags=("overwrite",), to=_BOX, back=views.box),
    Action("rollout_create", f"{_TENANT}/rollouts", "POST", _ROLLOUTS,
           ("sites", "stages", "comment"), ("timeout_min",), to=f"{_TENANT}/rollouts/{{made}}",
           shape=_rollout),
    *(Action(f"rollout_{verb}", f"{_ROLLOUT}/{verb}", "POST", f"{_ROLLOUTS}/{{rollout}}/{verb}",
             to=_ROLLOUT, back=views.rollout)
      for verb in ("halt", "resume", "rollback")),
)  # fmt: skip
