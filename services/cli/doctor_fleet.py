"""The control plane of this box: is it there, does it know us, may we take what it gives?"""

from __future__ import annotations

from collections.abc import Iterator

from services.cli.doctor_finding import Finding
from services.cli.doctor_net import file_expiry
from services.fleet import identity
from services.fleet.centre import Centre, CentreUnavailable
from services.fleet.files import Folder
from services.runtime.fleet_model import Fleet
from services.runtime.site import Site

SUBJECT = "fleet"
# Higher than any version: what is wanted here is not asked for.
ANY_VERSION = 2**31


def check(site: Site, fleet: Fleet) -> Iterator[Finding]:
    """The folder, our certificate, the centre itself."""
    folder = Folder(site.config.paths.state.absolute(), site.config.file.absolute())
    if reason := folder.why_unwritable(folder.config_file.name):
        fix = "let the service write there: docs/frota.md, “Liberar a pasta”"
        yield Finding("error", SUBJECT, "fleet_folder", reason, fix)
    who = identity.load(folder.own)
    if who is None:
        fix = "`plc-edge fleet claim` with a one-time code of the centre"
        yield Finding("warning", SUBJECT, "fleet_unclaimed", "this box is not claimed", fix)
        return
    certificate = folder.own / "box.pem"
    yield file_expiry(SUBJECT, "our certificate", certificate)
    ca = str((site.config.file.parent / fleet.ca).absolute()) if fleet.ca else None
    try:
        centre = Centre(fleet.url, ca, certificate)
        centre.target(who, ANY_VERSION, 0.0)
        centre.close()
    except CentreUnavailable as e:
        text, _, fix = (
            e.message.partition(": ") if e.code.startswith("tls_") else (e.message, "", "")
        )
        fix = fix or "`plc-edge fleet status`; the box goes on as it is meanwhile"
        yield Finding("error", SUBJECT, f"fleet_{e.code}", text, fix)
        return
    text = f"{fleet.url} knows this box as {who.tenant}/{who.site}"
    yield Finding("ok", SUBJECT, "fleet", text)
