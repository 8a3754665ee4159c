"""Which ways of reading a CPU offers besides classic S7, and which of them is the best one."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from services.runtime.errors import PlcUnavailable

OPC_UA_PORT = 4840
_HELLO_MAX_BYTES = 8_192
OPC_UA_SETTING = (
    'in TIA Portal open the CPU\'s Properties > OPC UA > Server, tick "Activate OPC UA server",'
    " choose the licence in Properties > Runtime licenses > OPC UA, and download (S7-1500 from"
    " firmware V2.0, S7-1200 from V4.4)"
)


@dataclass(frozen=True, slots=True)
class Offer:
    """One way of reading a CPU."""

    protocol: str
    """``s7``, ``s7plus`` or ``opcua``, as in the configuration."""
    state: str
    """``readable``; ``answers``, but something must be given first; ``not_offered``."""
    detail: str
    """In a few words: how it answers, or why not."""
    identity: str = ""
    fingerprint: str = ""
    """SHA-256 of the CPU's certificate, to be pinned."""


def s7plus(host: str, port: int, timeout_s: float) -> Offer:
    """Opens an S7CommPlus session as an HMI does, without a password; reads the list of blocks."""
    from services.protocols.s7plus.cpu import Cpu

    try:
        cpu = Cpu(host, port, {"tls": "auto"}, timeout_s)
    except PlcUnavailable as e:
        state = "answers" if e.code in ("access_denied", "key_refused") else "not_offered"
        return Offer("s7plus", state, e.message)
    try:
        blocks = len(cpu.blocks())
        detail = f"{cpu.description}, {blocks} data blocks"
        return Offer("s7plus", "readable", detail, cpu.identity, cpu.fingerprint)
    except PlcUnavailable as e:
        return Offer("s7plus", "answers", e.message, cpu.identity, cpu.fingerprint)
    finally:
        cpu.close()


def opc_ua(host: str, timeout_s: float, port: int = OPC_UA_PORT) -> Offer:
    """Says hello to an OPC UA server (OPC 10000-6, 7.1.2.3): who acknowledges is one."""
    url = f"opc.tcp://{host}:{port}".encode()
    body = struct.pack("<5I", 0, 65_536, 65_536, 0, 0) + struct.pack("<i", len(url)) + url
    try:
        with socket.create_connection((host, port), timeout_s) as peer:
            peer.settimeout(timeout_s)
            peer.sendall(b"HELF" + struct.pack("<I", 8 + len(body)) + body)
            answer = peer.recv(_HELLO_MAX_BYTES)
    except OSError as e:
        return Offer("opcua", "not_offered", f"port {port}: {e.strerror or 'no answer'}")
    if answer[:3] == b"ACK":
        return Offer("opcua", "answers", f"an OPC UA server at port {port}")
    if answer[:3] == b"ERR" and len(answer) >= 12:
        code = struct.unpack_from("<I", answer, 8)[0]
        return Offer("opcua", "answers", f"an OPC UA server at port {port}, error 0x{code:08X}")
    return Offer("opcua", "not_offered", f"port {port} answers, but not as an OPC UA server does")


def recommend(classic: Offer, others: list[Offer]) -> tuple[str, str]:
    """(protocol, why, with the setting that it needs); the protocol is empty where nothing answers.

    Classic S7 where it reads all that is asked for: it is the fastest by far and moves most bytes
    for each request. Then OPC UA, which Siemens maintains and secures; then S7CommPlus, which needs
    no setting at all, but is experimental here.
    """
    offers = {o.protocol: o for o in others}
    if classic.state == "readable":
        return "s7", "Classic S7 reads what was asked for, and is the fastest of the three."
    why = f"Classic S7: {classic.detail}."
    if (opcua := offers.get("opcua")) is not None and opcua.state == "answers":
        return "opcua", (
            f"{why} The CPU's OPC UA server reads optimised blocks too, encrypted. It must publish"
            ' them: in TIA Portal tick "Accessible from HMI/OPC UA" for the variables.'
        )
    plus = offers.get("s7plus")
    if plus is not None and plus.state == "readable":
        return "s7plus", (
            f"{why} S7CommPlus reads optimised blocks by name, with no change in TIA Portal; it is"
            f" experimental (docs/s7plus.md). The supported way is OPC UA: {OPC_UA_SETTING}."
        )
    if plus is not None and plus.state == "answers":
        return "s7plus", f"{why} S7CommPlus answers, but {plus.detail}."
    if classic.state == "answers":
        return "s7", f"{why} Nothing else answers: mend that, or {OPC_UA_SETTING}."
    return "", ""
