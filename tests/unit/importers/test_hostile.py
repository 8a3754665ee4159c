"""Sources that would crash the import or never end: told, with their line.

Found by tests/fuzz, or by asking of each bound what lies behind it.
"""

from __future__ import annotations

import io
import os
import time
import zipfile
from pathlib import Path

import openpyxl
import pytest

from services.s7.importers.collect import collect
from services.s7.importers.layouts import layouts
from services.s7.importers.model import SourceError

# Of processor time; each takes some ms now, and took minutes or all memory.
LIMIT_S = 8.0


def refused(file: Path) -> str:
    began_s = time.process_time()
    with pytest.raises(SourceError) as e:
        layouts(collect([file]))
    assert time.process_time() - began_s < LIMIT_S
    return str(e.value)


def source(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def db(body: str, before: str = "") -> str:
    head = "DATA_BLOCK \"A\"\n{ S7_Optimized_Access := 'FALSE' }\nSTRUCT\n"
    return f"{before}{head}{body}\nEND_STRUCT;\nBEGIN\nEND_DATA_BLOCK\n"


DOUBLED = "".join(
    f'TYPE "T{i}"\nSTRUCT\na : "T{i + 1}";\nb : "T{i + 1}";\nEND_STRUCT;\nEND_TYPE\n'
    for i in range(28)
)
NOTHING = 'TYPE "T28"\nSTRUCT\nEND_STRUCT;\nEND_TYPE\n'
CHAIN = "".join(
    f'TYPE "T{i}"\nSTRUCT\na : "T{i + 1}";\nEND_STRUCT;\nEND_TYPE\n' for i in range(600)
)
CONSTANTS = "VAR CONSTANT\nN0 : Int := 2;\n" + "".join(
    f"N{i + 1} : Int := N{i} + N{i};\n" for i in range(40)
)
SQUARES = CONSTANTS.replace(" + ", " * ")

TEXTS = {
    "dollars": ("a.db", db("a : String := '" + "$" * 60 + "\nb : Int"), "a.db:4"),
    "open comments": ("a.db", db("a : Int;") + "DATA_BLOCK B\n" + "(* " * 300_000, "'(*'"),
    "open pragmas": ("a.db", "DATA_BLOCK B\n" + "{" * 300_000, "'{'"),
    "a long word in a pragma": ("a.db", "DATA_BLOCK B\n{" + "a" * 200_000 + "}\n", "B"),
    "number with a point": ("a.db", "DATA_BLOCK DB 1.5\nSTRUCT\nEND_STRUCT;\n", "a.db:1"),
    "type of a number with a point": ("a.db", db("a : UDT 1.5;"), "a.db:4"),
    "number of thousands of digits": ("a.awl", f"DATA_BLOCK DB {'9' * 5_000}\n", "a.awl:1"),
    "nothing, a billion times": ("a.db", db('a : "T0";', DOUBLED + NOTHING), "nothing"),
    "nothing, in an array": (
        "a.db", db('a : Array[0..99999, 0..99999] of Struct\nEND_STRUCT;'), "",
    ),
    "types in types": ("a.db", db('a : "T0";', CHAIN), "nested more than 32 deep"),
    "structs in structs": ("a.db", db("a : Struct\n" * 5_000), "nested too deep"),
    "constants of constants": (
        "a.scl", f'FUNCTION_BLOCK "F"\n{CONSTANTS}END_VAR\nVAR\na : Array[0..N40] of Int;\n'
        "END_VAR\nBEGIN\nEND_FUNCTION_BLOCK\n", "more than 100 times",
    ),
    "squares of squares": (
        "a.scl", f'FUNCTION_BLOCK "F"\n{SQUARES}END_VAR\nVAR\na : Array[0..N40] of Int;\n'
        "END_VAR\nBEGIN\nEND_FUNCTION_BLOCK\n", "more than 100 times",
    ),
    "product of thousands of digits": (
        "a.db", db("a : Array[0.." + " * ".join(["9" * 20] * 2_000) + "] of Int;"), "20 digits",
    ),
    "bits without number": (
        "a.db", db("z : Int;\na : Array[0..32000] of Struct\n"
                   + "".join(f"b{i} : Bool;\n" for i in range(16)) + "END_STRUCT;"), "65,536",
    ),
    "names of one beginning": (
        "a.csv", "tag,db,offset,type\n" + "".join(
            f"{'x' * 130}{i},1,{2 * i},INT\n" for i in range(32_769)), "65536",
    ),
    "blank lines": ("a.unknown", "\n" * 300_000, "no tag table"),
    "json of thousands of digits": ("a.json", '{"a": {"db": ' + "9" * 5_000 + "}}", "a.json"),
    "json in json": ("a.json", "[" * 100_000, "a.json"),
    "array of thousands of digits": (
        "a.csv", f"tag,db,offset,type\na,1,0,INT[{'9' * 5_000}]\n", "a.csv",
    ),
    "address of thousands of digits": ("a.sdf", f'"a","M{"9" * 5_000}.0","BOOL",""\n', ""),
    "entities": (
        "a.xml", '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>', "DTD",
    ),
    "elements in elements": ("a.xml", "<a>" * 100_000, "nested more than 200 deep"),
    "encoding of nobody": ("a.xml", '<?xml version="1.0" encoding="utf-9"?><a/>', "encoding"),
    "encoding of many bytes": ("a.xml", '<?xml version="1.0" encoding="cp932"?><a/>', "encoding"),
    "number that is none": (
        "a.xml", "<SW.Blocks.ArrayDB><AttributeList><Name>A</Name>"
        "<ArrayDataType>Int</ArrayDataType><ArrayLimitUpperBound>²</ArrayLimitUpperBound></AttributeList></SW.Blocks.ArrayDB>",
        "ArrayLimitUpperBound",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_text(tmp_path: Path, case: str) -> None:
    name, content, words = TEXTS[case]
    assert words in refused(source(tmp_path, name, content))


def test_a_text_of_a_million_lines_is_read_once(tmp_path: Path) -> None:
    """Each piece of a comment was added to all before it."""
    comment = "linha\n" * 300_000
    refused(source(tmp_path, "a.xml", f"<Document><Comment>{comment}</Comment></Document>"))


@pytest.mark.parametrize("name", ["a.db", "a.xml", "a.xlsx", "a.csv", "a.unknown"])
def test_no_files(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.mkdir()
    assert "is a directory, not a file" in refused(file)
    file.rmdir()
    os.mkfifo(file)
    assert "is a pipe, not a file" in refused(file)
    file.unlink()
    with file.open("wb") as f:
        f.truncate(2**40)
    assert "is larger than 16 MiB" in refused(file)


def workbook(old: bytes = b"", new: bytes = b"") -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["Name", "Data Type", "Logical Address"])
    sheet.append(["bomba", "Bool", "%M0.0"])
    plain, out = io.BytesIO(), io.BytesIO()
    book.save(plain)
    with zipfile.ZipFile(plain) as z, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as to:
        for item in z.namelist():
            content = z.read(item)
            if item == "xl/worksheets/sheet1.xml":
                assert old in content
                content = content.replace(old, new, 1)
            to.writestr(item, content)
    return out.getvalue()


LAST_ROW = b'<row r="1048576"><c r="XFD1048576" t="n"><v>1</v></c></row></sheetData>'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (workbook(b"</sheetData>", b"</sheetData>" + b" " * 50_000_000), "unpacks to"),
        (workbook()[:-100], "not an xlsx"),
        (workbook()[:1_000], "not an xlsx"),
        (b"PK", "not an xlsx"),
    ],
)
def test_spoilt_workbooks(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in refused(source(tmp_path, "a.xlsx", content))


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"", b""), (b"</sheetData>", LAST_ROW), (b'ref="A1:C2"', b'ref="A1:XFD1048576"')],
)
def test_a_workbook_that_says_it_is_endless(tmp_path: Path, old: bytes, new: bytes) -> None:
    """Sixteen thousand columns of a million rows, of which one holds something."""
    began_s = time.process_time()
    (layout,) = layouts(collect([source(tmp_path, "a.xlsx", workbook(old, new))]))
    assert [f["name"] for f in layout.fields] == ["bomba"]
    assert time.process_time() - began_s < LIMIT_S
