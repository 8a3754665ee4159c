"""Ways to spoil a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

# What means something to one of the parsers, at its worst place.
TOKENS = [
    *"[]{}\"'|>&*!%@`?:-,#\t\n\r\\$^~=<;./",
    "&a ", "*a", "<<: *a", "!!binary ", "!!set ", "!!python/object:os.system ", "---\n", "...\n",
    "? ", "- " * 60, "[" * 200, "{a: " * 100, "\0", "\ufeff", "\u2028", "\ud7ff\ue000", "\x1b[31m",
    "9" * 30, "9" * 5_000, "0x" + "f" * 2_000, "-1", "1e400", ".inf", ".nan", "65536", "1_0", "0b",
    "null", "yes", "2025-13-01", "12:30:45", "{n.__class__}", "{n:99999999}", "${HOME}", "${",
    "a" * 70_000, " " * 5_000, "../" * 40, "/dev/zero", "/", ".", "fields:", "layout:", "address:",
    "type: ", "machines: {count: 1000, stride: 1}", "STRING[", "ARRAY[0..99999999] OF ", "STRUCT\n",
    "END_STRUCT;", "BEGIN\n", "TYPE \"A\"\n", "(*", "*)", "/*", "//", "'$$$$$$$$$$$$$$$$$$$$$$$$$$",
    "$'", "1..", "[*]", "1.5", "²", "٣", "\"DB\" - \"DB\"", "<!DOCTYPE x [<!ENTITY a \"b\">]>",
    "<!ENTITY a SYSTEM \"file:///etc/passwd\">", "&x;", "<![CDATA[", "]]>", "<a>" * 300, "</",
    "xmlns:a=\"b\" ", "126,", "PK\x03\x04", "{\"", "\":", "\\ud800", "\\u0000", "\u202e",
]  # fmt: skip

Mutation = Callable[[bytes, Random, Sequence[bytes]], bytes]


def truncate(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    """Cut short, at the end or at the beginning."""
    at = random.randrange(len(data) + 1)
    return data[at:] if random.random() < 0.2 else data[:at]


def flip(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    """A few bytes are others."""
    out = bytearray(data)
    for _i in range(random.choice((1, 1, 2, 4, 16))):
        if out:
            out[random.randrange(len(out))] = random.randrange(256)
    return bytes(out)


def splice(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """A piece of another file in the middle of this one."""
    other = random.choice(others)
    a, b = sorted(random.randrange(len(other) + 1) for _ in range(2))
    at = random.randrange(len(data) + 1)
    return data[:at] + other[a:b] + data[random.randrange(at, len(data) + 1) :]


def lines(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    """Lines twice, elsewhere, missing, or indented otherwise."""
    out = data.split(b"\n")
    for _i in range(random.choice((1, 1, 2, 3))):
        at, to = random.randrange(len(out)), random.randrange(len(out))
        what = random.randrange(4)
        if what == 0:
            out.insert(to, out[at])
        elif what == 1:
            out[at], out[to] = out[to], out[at]
        elif what == 2 and len(out) > 1:
            del out[at]
        else:
            out[at] = b" " * random.randrange(8) + out[at].lstrip()
    return b"\n".join(out)


def insert(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    """Tokens where none are expected."""
    for _i in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(data) + 1)
        token = random.choice(TOKENS).encode("utf-8", "surrogatepass")
        data = data[:at] + token + data[at + random.choice((0, 0, 1, 4)) :]
    return data


def replace(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    """A word, number or text is a token instead."""
    words = list(re.finditer(rb"[\w.%$-]+|\"[^\"\n]*\"", data))
    if not words:
        return data
    for word in sorted(random.sample(words, min(len(words), random.choice((1, 1, 2)))),
                       key=lambda m: -m.start()):  # fmt: skip
        token = random.choice(TOKENS).encode("utf-8", "surrogatepass")
        data = data[: word.start()] + token + data[word.end() :]
    return data


def repeat(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    """A piece many times over."""
    a, b = sorted(random.randrange(len(data) + 1) for _ in range(2))
    times = min(random.choice((2, 10, 1_000)), 200_000 // (b - a + 1) + 1)
    return data[:b] + data[a:b] * times + data[b:]


def encode(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    """In an encoding that is not expected."""
    text = data.decode("utf-8", "replace")
    name = random.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "cp1252"))
    return text.encode(name, "replace")


MUTATIONS: tuple[Mutation, ...] = (truncate, flip, splice, lines, insert, replace, repeat, encode)
