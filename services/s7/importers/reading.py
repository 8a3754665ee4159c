"""Bytes of a source to text: byte order marks, UTF-16, and the ANSI files of STEP 7."""

from __future__ import annotations

from services.s7.importers.model import Place, wrong

# A program of a whole plant is a few MB.
MAX_BYTES = 64 * 2**20


def decode(data: bytes, file: str, notes: list[str]) -> str:
    """The text of a source. STEP 7 writes the Windows code page: read as cp1252, with a note.

    Raises SourceError for what is no text.
    """
    if len(data) > MAX_BYTES:
        raise wrong(Place(file), f"has {len(data)} bytes, more than {MAX_BYTES}")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif data[1:2] == b"\0" and data[3:4] == b"\0":
        encodings = ["utf-16-le"]
    elif data[0:1] == b"\0" and data[2:3] == b"\0":
        encodings = ["utf-16-be"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        if encoding == "cp1252":
            notes.append(f"{file}: not UTF-8, read as Windows-1252; check names with accents")
        return text
    raise wrong(
        Place(file),
        "is not text",
        "give an exported source (.db, .udt, .scl, .awl, .xml, .xlsx, .csv, .sdf, .asc, .json)",
    )
