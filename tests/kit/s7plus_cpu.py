"""A CPU with a symbol tree, users and access levels, on the server emulator of ``s7commplus``.

The emulator has transport, TLS, sessions and IntegrityIds; of memory it serves byte ranges only,
lists blocks without types, and takes any password. What it lacks stands here: type descriptions,
values by LID (tests/kit/s7plus_wire.py), legitimation that is verified. No Siemens CPU was at hand.

It is threads of the test's process and ends with it: to ``stop`` it costs a second.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import hmac
import os
import signal
import struct
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.x509.oid import NameOID
from s7commplus.connection import _derive_oms_secret
from s7commplus.protocol import ElementID, FunctionCode, Ids, LegitimationId, ObjectId
from s7commplus.server import CPUState, S7CommPlusServer
from s7commplus.vlq import decode_uint32_vlq

from services.s7.types import S7Type
from tests.kit import s7plus_wire as wire
from tests.kit.s7plus_wire import Var

FIRST_BLOCK = 0x8A0E0000
ACTIVATE = 323
NO_SUCH_OBJECT, NO_ACCESS = 0x8020AB001992FFF4, 0x8009AB0000E4FFE4
ALL_BLOCKS = 0x8A11FFFF
"""What a session with a SessionKey explores for the list of blocks."""
TAGS = 0x90030000
"""The description of the M area's PLC tags."""


class SymbolCpu(S7CommPlusServer):
    """``users``: (name, password) -> access level; without TLS 1.3 names are empty."""

    def __init__(
        self,
        blocks: Mapping[str, Sequence[Var]],
        *,
        version: int = 1,
        tags: Sequence[Var] = (),
        level: int = 1,
        users: dict[tuple[str, str], int] | None = None,
        firmware: str = "6ES7 512-1CK01-0AB0;V3.1",
        **emulator: Any,
    ) -> None:
        super().__init__(protocol_version=version, max_response_pdu=1_000, **emulator)
        self.level, self.users, self.firmware = level, users or {}, firmware
        self.refuse: dict[str, int] = {}
        """Symbols (as ``set`` takes them) that are refused, with the code."""
        self.reads = 0
        self.delay_s = 0.0
        """Of each read: a line with a long way."""
        self._values: dict[tuple[int, tuple[int, ...]], bytes] = {}
        self._ways: dict[str, list[tuple[int, tuple[int, ...], S7Type, int]]] = {}
        self._refused: dict[tuple[int, tuple[int, ...]], int] = {}
        self._levels: dict[int, int] = {}
        self._here = threading.local()
        self._downloads = 0
        self._handshake = threading.Lock()
        self._guard = threading.Lock()
        self.declare(blocks, tags)

    # -- the program ---------------------------------------------------------------------

    def declare(self, blocks: Mapping[str, Sequence[Var]], tags: Sequence[Var] = ()) -> None:
        """Downloads a program: all values are zero."""
        with self._guard:
            self._downloads += 1
            self._values.clear()
            self._ways.clear()
            self._described: list[bytes] = []
            self._relation = 0x92000000
            self._blocks = {name: FIRST_BLOCK + n for n, name in enumerate(blocks, 1)}
            self._interfaces = {}
            for name, members in blocks.items():
                rid = self._blocks[name]
                self._interfaces[rid] = self._describe(members)
                self._place(name, members, rid, ())
            if tags:
                self._describe(tags, TAGS)
                self._place("", tags, Ids.NATIVE_THE_M_AREA_RID, ())

    def _describe(self, members: Sequence[Var], relation: int = 0) -> int:
        if not relation:
            self._relation += 1
            relation = self._relation
        elements = []
        for n, var in enumerate(members):
            inner = 0
            if var.members:
                inner = self._describe(var.members)
            elif "DTL" in var.type:
                inner = 0x02000043
            elements.append(wire.element(_lid(n), var, inner))
        lists = wire.type_list(elements) + wire.name_list([v.name for v in members])
        self._described.append(_object(relation, 511, lists))
        return relation

    def _place(self, path: str, members: Sequence[Var], area: int, lids: tuple[int, ...]) -> None:
        for n, var in enumerate(members):
            name = f"{path}.{var.name}" if path else var.name
            way = (*lids, _lid(n))
            t = var.s7_type
            if t is None and not var.dims:
                self._place(name, var.members, area, way)
                continue
            dims = var.dims if t is None else t.dims
            scalar = S7Type(t.base, t.length) if t is not None else None
            for place, index, at in _elements(
                dims, is_bit=scalar is not None and scalar.base == "BOOL"
            ):
                element = f"{name}[{','.join(map(str, index))}]" if dims else name
                inner = (*way, at) if dims else way
                if scalar is None:
                    self._place(element, var.members, area, (*inner, 1))
                    continue
                if dims and scalar.base == "DTL":
                    inner = (*inner, 1)
                self._values[area, inner] = wire.value(scalar, bytes(scalar.element_bytes))
                self._ways[element] = [(area, inner, scalar, place)]
                if dims:
                    self._ways.setdefault(name, []).append((area, inner, scalar, place))

    def set(self, symbol: str, raw: bytes) -> None:
        """A variable's value: its bytes as classic access has them; of an array, its elements' in
        a row (BOOLs: a byte each).
        """
        with self._guard:
            ways = self._ways[symbol]
            size = len(raw) // len(ways)
            for n, (area, lids, t, _) in enumerate(ways):
                self._values[area, lids] = wire.value(t, raw[n * size : (n + 1) * size])

    def put(self, symbol: str, sent: bytes) -> None:
        """Has a variable answered with these bytes, whatever they are."""
        area, lids, _, _ = self._ways[symbol][0]
        self._values[area, lids] = sent

    def refuse_symbol(self, symbol: str, code: int = NO_SUCH_OBJECT) -> None:
        """Has it refused; 0: given again."""
        for area, lids, _, _ in self._ways[symbol]:
            self._refused[area, lids] = code

    # -- requests ------------------------------------------------------------------------

    def _process_request(
        self, data: bytes, session_id: int, read_id: int = 0, write_id: int = 0
    ) -> tuple[bytes | None, bool]:
        at = data.find(b"\x31\x00\x00")
        if at < 0 or int.from_bytes(data[at + 3 : at + 5]) != FunctionCode.SET_VARIABLE:
            return super()._process_request(data, session_id, read_id, write_id)
        sequence = int.from_bytes(data[at + 7 : at + 9])
        session = int.from_bytes(data[at + 9 : at + 13])
        accepted = self._legitimate(session, data[at + 14 :])
        reply = self._build_response_header(FunctionCode.SET_VARIABLE, sequence)
        reply += wire.unsigned(0 if accepted else NO_ACCESS, 64) + bytes(4)
        return reply + (wire.unsigned(write_id) if self._protocol_version >= 2 else b""), False

    def _legitimate(self, session: int, body: bytes) -> bool:
        address, size = decode_uint32_vlq(body, 5)
        content = body[5 + size + 2 :]
        if address == ACTIVATE:
            return True
        challenge: bytes = self._here.challenge
        if address == LegitimationId.SERVER_SESSION_RESPONSE:
            answer = content[1:21]
            for (_, password), level in self.users.items():
                known = hashlib.sha1(password.encode()).digest()
                if hmac.compare_digest(
                    bytes(a ^ b for a, b in zip(known, challenge, strict=True)), answer
                ):
                    self._levels[session] = level
                    return True
            return False
        length, size = decode_uint32_vlq(content, 1)
        sealed = content[1 + size : 1 + size + length]
        key = hashlib.sha256(self._here.secret).digest()
        self._here.secret = key
        opener = Cipher(algorithms.AES(key), modes.CBC(challenge[:16])).decryptor()
        unpadder = padding.PKCS7(128).unpadder()
        plain = unpadder.update(opener.update(sealed) + opener.finalize()) + unpadder.finalize()
        for (user, password), level in self.users.items():
            secret = password.encode() if user else hashlib.sha1(password.encode()).digest()
            if _blob(user.encode()) in plain and plain.endswith(_blob(secret) + b"\0"):
                self._levels[session] = level
                return True
        return False

    def _handle_create_object(self, seq_num: int, request_data: bytes) -> bytes:
        made = super()._handle_create_object(seq_num, request_data)
        if self._public_key_fingerprint is not None:
            return made  # it tells its version itself
        head = made[: made.index(bytes((ElementID.ATTRIBUTE,)) + wire.unsigned(0x132))]
        told = f"1;{self.firmware}".encode()
        version = bytes((0, 0x17)) + struct.pack(">I", 314)
        version += wire.unsigned(315) + b"\0\x04" + wire.unsigned(448)
        version += wire.unsigned(319) + b"\0\x15" + wire.unsigned(len(told)) + told + b"\0"
        attribute = bytes((ElementID.ATTRIBUTE,)) + wire.unsigned(ObjectId.SERVER_SESSION_VERSION)
        return head + attribute + version + bytes((ElementID.TERMINATING_OBJECT,)) + bytes(4)

    def _handle_get_var_substreamed(self, seq_num: int, session_id: int, data: bytes) -> bytes:
        address, _ = decode_uint32_vlq(data, 7)
        reply = self._build_response_header(FunctionCode.GET_VAR_SUBSTREAMED, seq_num) + b"\0\0"
        if address == Ids.EFFECTIVE_PROTECTION_LEVEL:
            level = self._levels.get(session_id, self.level)
            reply += b"\0\x04" + wire.unsigned(level)
        else:
            self._here.challenge = os.urandom(20)
            reply += b"\x10\x02" + wire.unsigned(20) + self._here.challenge
        return reply + (b"\0" if self._protocol_version < 2 else b"")

    def _server_tls_handshake(self, sock: Any) -> tuple[Any, Any, Any]:
        assert self._ssl_context is not None
        with self._handshake, tempfile.TemporaryDirectory() as folder:
            self._ssl_context.keylog_filename = f"{folder}/keys"
            made = super()._server_tls_handshake(sock)
            self._here.secret = _derive_oms_secret(made[0], f"{folder}/keys")
        return made

    def _handle_explore(self, seq_num: int, session_id: int, request_data: bytes) -> bytes:
        target = int.from_bytes(request_data[:4])
        head = self._build_response_header(FunctionCode.EXPLORE, seq_num) + b"\0"
        with self._guard:
            if target == Ids.OBJECT_OMS_TYPE_INFO_CONTAINER:
                return head + _object(target, 534, b"".join(self._described)) + bytes(4)
            if target in (Ids.NATIVE_THE_PLC_PROGRAM_RID, ALL_BLOCKS):
                listed = b"".join(_block(rid, name) for name, rid in self._blocks.items())
                return head + listed + bytes(4)
            if target in self._interfaces.values():
                changed = bytes((ElementID.ATTRIBUTE,))
                changed += wire.unsigned(Ids.VARIABLE_TYPE_STRUCT_MODIFICATION_TIME)
                changed += b"\0\x05" + wire.unsigned(self._downloads, 64)
                return head + _object(target, 511, changed) + bytes(4)
        return super()._handle_explore(seq_num, session_id, request_data)

    def _handle_get_multi_variables(self, seq_num: int, session_id: int, data: bytes) -> bytes:
        reply = self._build_response_header(FunctionCode.GET_MULTI_VARIABLES, seq_num)
        end = b"\0" if self._protocol_version < 2 else b""
        if self._levels.get(session_id, self.level) >= 4:
            return reply + wire.unsigned(NO_ACCESS, 64) + b"\0\0" + end
        time.sleep(self.delay_s)
        given, refused = bytearray(), bytearray()
        with self._guard:
            for number, item in enumerate(_asked(data), 1):
                code = self._refused.get(item, 0)
                found = self._values.get(item)
                if item[1] == (1,) and item[0] in self._interfaces:
                    found = b"\0\x12" + struct.pack(">I", self._interfaces[item[0]])
                if found is None or code:
                    refused += wire.unsigned(number) + wire.unsigned(code or NO_SUCH_OBJECT, 64)
                else:
                    given += wire.unsigned(number) + found
            self.reads += 1
        return reply + b"\0" + given + b"\0" + refused + b"\0" + end


def _lid(n: int) -> int:
    return 9 + n


def _elements(
    dims: tuple[tuple[int, int], ...], *, is_bit: bool
) -> list[tuple[int, tuple[int, ...], int]]:
    """(which in a row, indices, the CPU's number) of each element."""
    out: list[tuple[int, ...]] = [()]
    for low, high in dims:
        out = [(*before, i) for before in out for i in range(low, high + 1)]
    row = dims[-1][1] - dims[-1][0] + 1 if len(dims) > 1 and is_bit else 0
    return [(n, index, n // row * -(-row // 8) * 8 + n % row if row else n)
            for n, index in enumerate(out)]  # fmt: skip


def _asked(data: bytes) -> list[tuple[int, tuple[int, ...]]]:
    at = 4
    count, size = decode_uint32_vlq(data, at)
    at += size
    at += decode_uint32_vlq(data, at)[1]
    out = []
    for _ in range(count):
        numbers = []
        for _ in range(3):
            found, size = decode_uint32_vlq(data, at)
            numbers.append(found)
            at += size
        lids = []
        for _ in range(numbers[2]):
            found, size = decode_uint32_vlq(data, at)
            lids.append(found)
            at += size
        out.append((numbers[1], tuple(lids[1:])))
    return out


def _object(relation: int, class_id: int, content: bytes) -> bytes:
    head = bytes((ElementID.START_OF_OBJECT,)) + struct.pack(">I", relation)
    return (
        head + wire.unsigned(class_id) + b"\0\0" + content + bytes((ElementID.TERMINATING_OBJECT,))
    )


def _block(rid: int, name: str) -> bytes:
    attribute = bytes((ElementID.ATTRIBUTE,)) + wire.unsigned(Ids.OBJECT_VARIABLE_TYPE_NAME)
    text = name.encode()  # as the CPU: one byte a character of ASCII, UTF-8 beyond
    return _object(rid, Ids.DB_CLASS_RID, attribute + b"\0\x15" + wire.unsigned(len(text)) + text)


def _blob(content: bytes) -> bytes:
    return b"\0\x14\0" + wire.unsigned(len(content)) + content


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate as CPUs make them, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "PLC-1/Communication")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    cert, secret = folder / "plc.pem", folder / "plc.key"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert, secret


def _counting(cpu: SymbolCpu) -> None:
    n = 0
    while True:
        signal.sigtimedwait([], 0.05)
        n += 1
        cpu.set("Prensa.ciclos", n.to_bytes(4))


def main() -> None:
    """``python -m tests.kit.s7plus_cpu PORT TAGS``: a CPU as a process, until it is killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("tags", type=int)
    parser.add_argument("--tls", action="store_true")
    given = parser.parse_args()
    tags = [Var(f"t{n:04d}", "REAL") for n in range(given.tags)]
    cpu = SymbolCpu({"Prensa": [Var("ciclos", "DINT"), *tags]}, version=2 if given.tls else 1)
    with tempfile.TemporaryDirectory() as folder:
        cert, key = certificate(Path(folder))
        if given.tls:
            cpu.start("127.0.0.1", given.port, use_tls=True, tls_cert=str(cert), tls_key=str(key))
        else:
            cpu.start("127.0.0.1", given.port)
    _counting(cpu)


if __name__ == "__main__":
    main()

__all__ = ["CPUState", "SymbolCpu", "Var", "certificate"]
