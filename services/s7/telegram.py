"""S7 telegrams: bytes to send, bytes received. Read only: no function here can write to a PLC.

TPKT (RFC 1006) and COTP (ISO 8073) carry S7 PDUs. Lengths in plans and limits count the S7 PDU
alone, as the PLC does when it grants one. All numbers are big-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

TPKT_COTP_BYTES = 7
# Where a packet holds its PDU reference (two bytes), which comes back in the reply.
REFERENCE_AT = TPKT_COTP_BYTES + 4
# A read request: 10 header + 2 parameters + 12 an item. Its reply: 12 header + 2 + (4 + data, even)
# an item.
REQUEST_HEAD_BYTES, REQUEST_ITEM_BYTES = 12, 12
REPLY_HEAD_BYTES, REPLY_ITEM_BYTES = 14, 4

AREA_CODES = {"DB": 0x84, "M": 0x83, "I": 0x81, "Q": 0x82, "T": 0x1D, "C": 0x1C}
JOB, ACK, ACK_DATA, USERDATA = 1, 2, 3, 7
GOOD = 0xFF

# Return codes of one item, in one word for `bad` and metrics.
ITEM_ERRORS = {
    0x01: "hardware_fault",
    0x03: "access_denied",
    0x05: "address_out_of_range",
    0x06: "type_not_supported",
    0x07: "type_inconsistent",
    0x0A: "object_does_not_exist",
}
# Error class and code of a whole reply, and what a person should do.
REPLY_ERRORS = {
    0x8104: ("function_refused", "the CPU refuses reads: permit PUT/GET access in its properties"),
    0x8404: ("cpu_error", "the CPU reports an error of its own"),
    0x8500: ("pdu_too_long", "the telegram exceeds what the CPU granted"),
    0x8701: ("access_denied", "the CPU refuses: permit PUT/GET access, or give the password"),
    0xD602: ("access_denied", "the CPU refuses: wrong password or protection level"),
}

# A CPU's operating state (SZL 0x0424) while its program runs: RUN; in a redundant pair also RUN-R,
# LINK-UP, UPDATE.
RUNNING = frozenset((0x08, 0x09, 0x0B, 0x0C))
# Reasons of a COTP disconnect (ISO 8073, 13.5.3) that speak of room, not of the address: congestion
# at the TSAP, of the station, no reference left.
_COTP_FULL = frozenset((0x01, 0x81, 0x87))
# Error class of an S7 setup that is refused for want of resources.
_CLASS_FULL = 0x83

_TPKT = struct.Struct(">BBH")
_HEAD = struct.Struct(">BBHHHH")
_ITEM = struct.Struct(">BBBBHHBBH")
_ITEM_HEAD = struct.Struct(">BBH")
# Transport sizes of a reply whose length counts bits: BIT, BYTE/WORD, INT. Others count bytes.
_COUNTED_IN_BITS = frozenset((3, 4, 5))


class ProtocolError(Exception):
    """Bytes that are no reply to what was asked: the connection must be dropped."""


class ConnectionRefused(ProtocolError):
    """The station speaks S7 and does not want this connection. ``is_full``: for want of room."""

    def __init__(self, message: str, *, is_full: bool = False) -> None:
        self.is_full = is_full
        super().__init__(message)


def frame(payload: bytes) -> bytes:
    """A TPKT around COTP bytes."""
    return _TPKT.pack(3, 0, len(payload) + 4) + payload


def connection_request(local_tsap: int, remote_tsap: int) -> bytes:
    """COTP CR: TPDU size 1024, both TSAPs."""
    parameters = struct.pack(">BBBBBHBBH", 0xC0, 1, 0x0A, 0xC1, 2, local_tsap, 0xC2, 2, remote_tsap)
    return frame(struct.pack(">BBHHB", 17, 0xE0, 0, 1, 0) + parameters)


def _pdu(kind: int, reference: int, parameters: bytes, data: bytes = b"") -> bytes:
    head = _HEAD.pack(0x32, kind, 0, reference, len(parameters), len(data))
    return frame(b"\x02\xf0\x80" + head + parameters + data)


def setup_request(reference: int, jobs: int, pdu_bytes: int) -> bytes:
    """Asks for ``jobs`` in flight each way and a PDU length."""
    return _pdu(JOB, reference, struct.pack(">BBHHH", 0xF0, 0, jobs, jobs, pdu_bytes))


@dataclass(frozen=True, slots=True)
class Item:
    """One read item: bytes of an area; timers and counters are read in twos, by their number."""

    area: str
    db: int
    start: int
    """First byte; of timers and counters 2 × their number."""
    length: int
    """Bytes."""

    @property
    def reply_bytes(self) -> int:
        """What it takes of a reply, with the padding to even."""
        return REPLY_ITEM_BYTES + self.length + self.length % 2

    def encode(self) -> bytes:
        """The 12 bytes of a request."""
        code = AREA_CODES[self.area]
        if self.area in ("T", "C"):
            size, count, address = code, self.length // 2, self.start // 2
        else:
            size, count, address = 2, self.length, self.start * 8  # BYTE; bit address
        high, low = address >> 16, address & 0xFFFF
        return _ITEM.pack(0x12, 0x0A, 0x10, size, count, self.db, code, high, low)


def read_request(reference: int, items: list[Item]) -> bytes:
    """Read variables."""
    return _pdu(JOB, reference, bytes((4, len(items))) + b"".join(i.encode() for i in items))


def szl_request(reference: int, szl_id: int, index: int = 0) -> bytes:
    """Reads a system status list, e.g. 0x0424 (operating state)."""
    parameters = bytes((0, 1, 0x12, 4, 0x11, 0x44, 1, 0))
    return _pdu(USERDATA, reference, parameters, struct.pack(">BBHHH", GOOD, 9, 4, szl_id, index))


# --- replies: ``pdu`` is the S7 PDU, from 0x32 on ---------------------------------------------


def parse_connection_confirm(cotp: bytes) -> None:
    """Raises ConnectionRefused where the PLC did not accept the connection."""
    if len(cotp) >= 2 and cotp[1] == 0xD0:
        return
    if len(cotp) >= 7 and cotp[1] & 0xF0 == 0x80 and cotp[6] in _COTP_FULL:
        raise ConnectionRefused(f"connection refused (COTP reason {cotp[6]})", is_full=True)
    raise ConnectionRefused("connection refused: wrong rack, slot or TSAP, or no connection free")


def parse_setup(pdu: bytes) -> tuple[int, int]:
    """(jobs granted, PDU bytes granted)."""
    if len(pdu) >= 12 and pdu[1] in (ACK, ACK_DATA) and (pdu[10] or pdu[11]):
        error = f"communication setup refused: 0x{pdu[10]:02x}{pdu[11]:02x}"
        raise ConnectionRefused(error, is_full=pdu[10] == _CLASS_FULL)
    if len(pdu) < 20 or pdu[1] != ACK_DATA or pdu[12] != 0xF0:
        raise ProtocolError("no reply to the communication setup")
    calling, called, pdu_bytes = struct.unpack_from(">HHH", pdu, 14)
    # One is for jobs of ours, one for jobs of the CPU's; makers differ in which is which.
    return min(calling, called), pdu_bytes


def reference_of(pdu: bytes) -> int:
    """The PDU reference; raises ProtocolError for what is no S7 PDU."""
    if len(pdu) < 10 or pdu[0] != 0x32:
        raise ProtocolError("not an S7 telegram")
    return pdu[4] << 8 | pdu[5]


def parse_read(
    pdu: bytes, items: list[Item], out: bytearray, places: list[int]
) -> list[int] | None:
    """Copies each good item's bytes to its place in ``out``. Returns None where all are good, else
    a return code per item.

    Raises ProtocolError for whatever is not exactly the reply to these items (a server that cuts at
    20 items answers OK all the same), and ReplyError for a PLC's refusal of the whole request.
    """
    if len(pdu) < 12 or pdu[1] not in (ACK, ACK_DATA):
        raise ProtocolError("not a reply")
    if pdu[10] or pdu[11]:
        raise ReplyError(pdu[10] << 8 | pdu[11])
    if len(pdu) > 14 and pdu[12] == 4 and 0 < pdu[13] < len(items):
        raise ItemsCut(pdu[13])
    if pdu[12:14] != bytes((4, len(items))) or pdu[6:8] != b"\0\2":
        raise ProtocolError(f"reply to another request: {pdu[12:14].hex()}, {len(items)} items")
    if len(pdu) != 12 + 2 + (pdu[8] << 8 | pdu[9]):
        raise ProtocolError(f"reply of {len(pdu)} bytes announces another length")
    at, end = REPLY_HEAD_BYTES, len(pdu)
    codes: list[int] | None = None
    for n, (item, place) in enumerate(zip(items, places, strict=True)):
        if at + REPLY_ITEM_BYTES > end:
            raise ProtocolError("reply ends before its items do")
        code, size, length = _ITEM_HEAD.unpack_from(pdu, at)
        at += REPLY_ITEM_BYTES
        if code != GOOD:
            # Nothing follows a refused item; some CPUs write its length as 0, some as they like.
            if codes is None:
                codes = [GOOD] * len(items)
            codes[n] = code
            continue
        if size in _COUNTED_IN_BITS:
            length = (length + 7) // 8
        if length != item.length:
            raise ProtocolError(f"item of {item.length} bytes answered with {length}")
        if at + length > end:
            raise ProtocolError("reply ends inside an item")
        out[place : place + length] = pdu[at : at + length]
        at += length + (length & 1)
    # The last item has no padding byte, but some servers send one.
    if at not in (end, end + 1):
        raise ProtocolError(f"{end - at} bytes follow the last item")
    return codes


class GoodReply:
    """The one packet that answers these items without any ado: to compare with, not to parse.

    Parsing 9 replies of 462 bytes takes 40 µs, comparing them 10. What differs in any byte beside
    the data and the PDU reference is for ``parse_read`` to look at.
    """

    __slots__ = ("_after", "_before", "_heads", "_items", "_places", "size_bytes")

    def __init__(self, items: list[Item], places: list[int]) -> None:
        heads, code = [], ">"
        at = 0
        for item in items:
            counted = (9, item.length) if item.area in ("T", "C") else (4, item.length * 8)
            heads.append(_ITEM_HEAD.pack(GOOD, *counted))
            code += f"{at % 2}x{REPLY_ITEM_BYTES}s{item.length}s"
            at += at % 2 + REPLY_ITEM_BYTES + item.length
        self._heads = tuple(heads)
        self._items = struct.Struct(code)
        self._places = [(place, place + i.length) for place, i in zip(places, items, strict=True)]
        parameters = bytes((4, len(items)))
        pdu = _HEAD.pack(0x32, ACK_DATA, 0, 0, len(parameters), at) + b"\0\0" + parameters
        packet = frame(b"\x02\xf0\x80" + pdu + bytes(at))
        self.size_bytes = len(packet)
        self._before = packet[:REFERENCE_AT]
        self._after = packet[REFERENCE_AT + 2 : TPKT_COTP_BYTES + REPLY_HEAD_BYTES]

    def take(self, data: bytes, at: int, out: bytearray) -> bool:
        """Copies the items of the packet at ``at`` to their places; False where it is another."""
        if (
            data[at : at + REFERENCE_AT] != self._before
            or data[at + REFERENCE_AT + 2 : at + TPKT_COTP_BYTES + REPLY_HEAD_BYTES] != self._after
        ):
            return False
        parts = self._items.unpack_from(data, at + TPKT_COTP_BYTES + REPLY_HEAD_BYTES)
        if parts[::2] != self._heads:
            return False
        for (start, end), part in zip(self._places, parts[1::2], strict=True):
            out[start:end] = part
        return True


class ItemsCut(ProtocolError):
    """The reply holds the first ``items`` only: a server with a limit of its own."""

    def __init__(self, items: int) -> None:
        self.items = items
        super().__init__(f"the reply holds {items} items, fewer than were asked")


class ReplyError(Exception):
    """The PLC refused a whole request. ``code`` is one word, ``message`` what to do."""

    def __init__(self, error: int) -> None:
        self.error = error
        self.code, self.message = REPLY_ERRORS.get(
            error, ("request_refused", f"the CPU answered error 0x{error:04x}")
        )
        super().__init__(self.message)


def item_error(code: int) -> str:
    """The word for an item's return code."""
    return ITEM_ERRORS.get(code, f"error_0x{code:02x}")


def parse_szl_state(pdu: bytes) -> int | None:
    """The operating state in a reply to SZL 0x0424: 8 RUN, 4 STOP; None where it is refused.

    The fourth byte of the record (Siemens, "System Software for S7-300/400", SZL 0x0424): its
    low half is the state.
    """
    parameters_bytes = pdu[6] << 8 | pdu[7] if len(pdu) > 8 else 0
    data = pdu[10 + parameters_bytes :]
    if pdu[1] != USERDATA or len(data) < 16 or data[0] != GOOD:
        return None
    return data[4 + 8 + 3] & 0x0F
