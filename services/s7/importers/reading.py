"""Bytes of a source to text: byte order marks, UTF-16, and the ANSI files of STEP 7."""

from __future__ import annotations

from services.s7.importers.model import Place, wrong

# A program of a whole plant is a few MB, and a MB takes a second.
MAX_BYTES = 16 * 2**20
GUESSED = (
    "not UTF-8, read as Windows-1252; where names or comments look wrong give the code page of the"
    " PC that it comes from: --encoding cp932, cp936, cp1250, cp1251"
)


def decode(data: bytes, file: str, encoding: str | None = None) -> tuple[str, bool]:
    """The text of a source, and whether its code page is a guess: STEP 7 writes the Windows code
    page of its PC, read as ``encoding``, else as cp1252.

    Raises SourceError for what is no text.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif data[1:2] == b"\0" and data[3:4] == b"\0":
        encodings = ["utf-16-le"]
    elif data[0:1] == b"\0" and data[2:3] == b"\0":
        encodings = ["utf-16-be"]
    else:
        encodings = ["utf-8-sig", encoding or "cp1252"]
    for name in encodings:
        try:
            text = data.decode(name)
        except UnicodeError:
            continue
        if "\0" in text:
            break
        return text, name == "cp1252" and encoding is None
    raise wrong(
        Place(file),
        f"is no text in {' or '.join(encodings).replace('utf-8-sig', 'UTF-8')}",
        "give an exported source (.db, .udt, .scl, .awl, .xml, .xlsx, .csv, .sdf, .asc, .json), and"
        " the code page of the PC that it comes from: --encoding cp932, cp936, cp1250, cp1251",
    )
