"""When the certificates that outputs and panel use come to their end."""

from __future__ import annotations

from pathlib import Path

from services.runtime.log import Log

LOOK_S = 3_600.0


def ends(certificates: list[dict[str, str]], log: Log) -> dict[tuple[str, str], float]:
    """(process, file name) -> end of validity, Unix s, of the first certificate of each file.

    A file that cannot be read is logged and left out: its process says the rest.
    """
    if not certificates:
        return {}
    # 8 MB that a box without TLS need not spend.
    from cryptography import x509

    found = {}
    for entry in certificates:
        path = Path(entry["file"])
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError) as e:
            log.warning("certificate not read", file=str(path), error=str(e))
            continue
        found[entry["process"], path.name] = certificate.not_valid_after_utc.timestamp()
    return found
