"""PLC tag tables: TIA Portal xlsx, csv and sdf; STEP 7 sdf and asc; python-snap7 csv and json."""

from __future__ import annotations

import csv
import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from services.s7.importers.model import (
    Array,
    Located,
    Named,
    Place,
    SourceError,
    Sources,
    Tag,
    Type,
    wrong,
)
from services.s7.importers.text import parse_type

# TIA writes the headings in the language of its user interface.
_HEADINGS = {
    "name": ("name", "nome", "nom", "nombre", "symbol", "tag", "tag name", "名称"),
    "type": (
        "data type", "datatype", "datentyp", "type de données", "tipo de datos", "tipo di dati",
        "tipo de dados", "tipo", "type", "数据类型",
    ),
    "address": (
        "logical address", "logische adresse", "adresse logique", "dirección lógica",
        "indirizzo logico", "endereço lógico", "address", "adresse", "dirección", "indirizzo",
        "endereço", "逻辑地址",
    ),
    "comment": (
        "comment", "kommentar", "commentaire", "comentario", "commento", "comentário", "注释",
    ),
    "value": ("value", "wert", "valeur", "valor", "valore", "值"),
}  # fmt: skip
# Headings that only a table of HMI tags has: its addresses are optional, its strings have lengths.
_HMI = frozenset(("hmi data type", "hmi-datentyp", "plc tag", "plc-variable", "access method"))
# STEP 7 cuts what is longer than its column of ten.
_CUT = {"TIME_OF_DA": "TIME_OF_DAY", "DATE_AND_T": "DATE_AND_TIME"}
_NOTHING = ("<no value>",)
_BLOCK = re.compile(r"(DB|FB|UDT|FC|OB|SFB|SFC|SDB|VAT)\s*(\d{1,9})", re.IGNORECASE)
_FLAGS = frozenset(("true", "false", "wahr", "falsch", "vrai", "faux", "verdadero", "falso"))
_INTEGER = re.compile(r"[+-]?\d+|\d+#[0-9A-Fa-f_]+")
# A table of 20,000 tags is 460 kB, unpacks to 6 MB and is read in 4 s. What claims to be a hundred
# times its size is no table. Excel has a million rows, and writes the last one if it is tinted.
XLSX_MAX_BYTES = 16 * 2**20
XLSX_RATIO = 50
XLSX_MAX_ROWS, XLSX_COLUMNS = 1_500_000, 64
_SNAP7_ARRAY = re.compile(r"(?i)(?!W?STRING|FSTRING)(\w+)\s*\[\s*(\d{1,9})\s*\]")


def read_xlsx(data: bytes, file: str, into: Sources) -> None:
    """A workbook as TIA Portal exports tag tables: a sheet of tags, perhaps one of constants."""
    import openpyxl  # only here: it takes 0.2 s

    try:
        _refuse_bomb(data, file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # styles that openpyxl does not know
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
            sheets = list(_sheets(book, file))
    except SourceError:
        raise
    except Exception as e:  # openpyxl raises whatever its parsers meet, e.g. TypeError for a style
        hint = "open it in Excel or LibreOffice and save it anew, or save the sheet as .csv"
        raise wrong(Place(file), f"not an xlsx workbook that can be read: {e}", hint) from None
    found = False
    for rows in sheets:
        found |= _table(rows, file, into)
    if not found:
        raise _no_table(file)


def _refuse_bomb(data: bytes, file: str) -> None:
    """Raises SourceError where a workbook holds far more than its size tells."""
    unpacked_bytes = sum(i.file_size for i in zipfile.ZipFile(io.BytesIO(data)).infolist())
    if unpacked_bytes > min(max(XLSX_RATIO * len(data), 2**20), XLSX_MAX_BYTES):
        message = f"unpacks to {unpacked_bytes} bytes, more than a tag table has"
        raise wrong(Place(file), message, "export the tag table alone, or as .csv")


def _sheets(book: Any, file: str) -> Iterator[list[tuple[int, list[str]]]]:
    """(number, cells) of the rows of each sheet that hold something."""
    seen = 0
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # its own word on its size may be far from true
        rows = []
        for n, row in enumerate(sheet.iter_rows(values_only=True, max_col=XLSX_COLUMNS), 1):
            seen += 1
            if seen > XLSX_MAX_ROWS:
                hint = "delete the rows that are no tags, or save it as .csv"
                raise wrong(Place(file), f"has more than {XLSX_MAX_ROWS:,} rows", hint)
            if any(cell is not None for cell in row):
                rows.append((n, ["" if cell is None else str(cell) for cell in row]))
        yield rows


def read_csv(text: str, file: str, into: Sources) -> None:
    """A table with headings: tags of TIA Portal, or of python-snap7 (tag, db, offset, type)."""
    head = text.lstrip().split("\n", 1)[0]
    delimiter = max(";,\t", key=head.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    rows = []
    for row in reader:
        rows.append((reader.line_num, row))
    for i, (_, row) in enumerate(rows):
        headings = [c.strip().lower() for c in row]
        if {"tag", "db", "offset", "type"} <= set(headings):
            for line, values in rows[i + 1 :]:
                if any(v.strip() for v in values):
                    item = dict(zip(headings, (v.strip() for v in values), strict=False))
                    with into.gather():
                        _located(item.get("tag", ""), item, Place(file, line), into)
            return
    if not _table(rows, file, into):
        raise _no_table(file)


def read_json(text: str, file: str, into: Sources) -> None:
    """python-snap7's ``{"tag": {"db": 1, "offset": 4, "type": "REAL", "bit": 0}}``."""
    try:
        data = json.loads(text)
    except ValueError as e:
        line = getattr(e, "lineno", 0)
        raise wrong(Place(file, line), f"not JSON: {e}") from None
    if not isinstance(data, dict):
        raise wrong(Place(file, 1), "not a tag file: an object of tags by name is expected")
    at = 0
    for name, item in data.items():
        spellings = (json.dumps(name), json.dumps(name, ensure_ascii=False))
        at = max(at, *(text.find(spelling, at) for spelling in spellings))
        place = Place(file, text.count("\n", 0, at) + 1)
        with into.gather():
            if not isinstance(item, dict):
                raise wrong(place, f"tag {name!r} is no object of db, offset and type")
            _located(name, item, place, into)


def _located(name: str, item: Mapping[str, object], place: Place, into: Sources) -> None:
    missing = [k for k in ("db", "offset", "type") if item.get(k) in (None, "")]
    if not name or missing:
        raise wrong(place, f"tag {name!r} lacks {', '.join(missing) or 'a name'}")
    try:
        db = int(str(item["db"]))
        byte, _, bit = str(item["offset"]).partition(".")
        bit_number = int(str(item.get("bit") or 0)) or int(bit or 0)
        byte_number = int(byte)
    except ValueError:
        raise wrong(place, f"db, offset or bit of tag {name!r} is no number") from None
    if not 0 <= bit_number <= 7:
        raise wrong(place, f"bit {bit_number} of tag {name!r} is outside 0 to 7")
    kind = _snap7_type(str(item["type"]), place)
    into.located.append(Located(name, kind, db, byte_number, bit_number, place))


def _snap7_type(text: str, place: Place) -> Type:
    """``INT[5]`` is five of them; ``FSTRING[8]`` eight characters without a string's header."""
    text = text.strip()
    if match := re.fullmatch(r"(?i)FSTRING\s*\[\s*(\d{1,9})\s*\]", text):
        return Array(((0, int(match[1]) - 1),), Named("CHAR", place), place)
    if match := _SNAP7_ARRAY.fullmatch(text):
        return Array(((0, int(match[2]) - 1),), Named(match[1].upper(), place), place)
    return parse_type(text, place)


def read_sdf(text: str, file: str, into: Sources) -> None:
    """Quoted columns without headings: name, address, type, (flags,) comment. A constant has
    ``CONSTANT`` for its address, and its value somewhere behind."""
    reader = csv.reader(io.StringIO(text), skipinitialspace=True)
    for row in reader:
        columns = [c.strip() for c in row]
        place = Place(file, reader.line_num)
        if not any(columns):
            continue
        with into.gather():
            if len(columns) < 3:
                raise wrong(place, "a symbol has at least name, address and type")
            rest = [c for c in columns[3:] if c and c.lower() not in _FLAGS]
            if columns[1].upper() == "CONSTANT":
                numbers = [c for c in rest if _INTEGER.fullmatch(c)]
                if numbers:  # of others nobody makes bounds
                    into.constants[columns[0].lower()] = numbers[-1]
                continue
            _symbol(columns[0], columns[1], columns[2], rest[0] if rest else "", place, into)


def read_asc(text: str, file: str, into: Sources) -> None:
    """STEP 7's symbol table in 130 columns: ``126,`` name 24, address 12, type 10, comment 80."""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        place = Place(file, number)
        with into.gather():
            if not line.startswith("126,"):
                raise wrong(place, "not a line of a symbol table: it begins with 126,")
            name, address, kind = (line[a:b].strip() for a, b in ((4, 28), (28, 40), (40, 50)))
            kind = _CUT.get(kind.upper(), kind)
            _symbol(name, address, kind, line[50:130].strip(), place, into)


def read_seq(text: str, file: str, into: Sources) -> None:
    """STEP 7's sequential list: tab, address, tab, symbol, tab, comment. It has no types: of use
    are the blocks' numbers and single bits."""
    untyped = 0
    for number, line in enumerate(text.splitlines(), start=1):
        columns = [c.strip() for c in line.lstrip("\t").split("\t")]
        if len(columns) < 2 or not columns[0]:
            continue
        address, name = columns[0], columns[1]
        is_bit = "." in address
        if not is_bit and not _BLOCK.fullmatch(address):
            untyped += 1
            continue
        with into.gather():
            comment = columns[2] if len(columns) > 2 else ""
            _symbol(name, address, "BOOL" if is_bit else "", comment, Place(file, number), into)
    if untyped:
        into.notes.append(
            f"{file}: a .seq table has no data types: {untyped} symbols are left out; export a .sdf"
        )


def refuse_dif(_data: bytes, file: str, _into: Sources) -> None:
    """Raises SourceError."""
    hint = "export the symbol table from STEP 7 as .sdf or .asc"
    raise wrong(Place(file), "tables in Data Interchange Format (.dif) are not read", hint)


def _no_table(file: str) -> Exception:
    return wrong(
        Place(file, 1),
        "no tag table: a row with the headings Name, Data Type and Logical Address is missing",
        "export the tag table from TIA Portal, or use python-snap7's tag,db,offset,type",
    )


def _table(rows: Sequence[tuple[int, Sequence[str]]], file: str, into: Sources) -> bool:
    """Reads a table below the first row that has the headings; False where there is none."""
    for i, (_, row) in enumerate(rows):
        columns = _columns(row)
        if _HMI & {cell.strip().lower() for cell in row}:
            hint = "export the PLC's tag table (PLC tags > Show all tags > Export)"
            raise wrong(Place(file, rows[i][0]), "a table of HMI tags, not of PLC tags", hint)
        if {"name", "type"} <= set(columns) and {"address", "value"} & set(columns):
            for line, values in rows[i + 1 :]:
                cells = {k: values[c].strip() for k, c in columns.items() if c < len(values)}
                with into.gather():
                    _row(cells, Place(file, line), into)
            return True
    return False


def _columns(row: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for i, cell in enumerate(row):
        text = cell.strip().lower()
        for key, words in _HEADINGS.items():
            if text in words:
                found.setdefault(key, i)
    return found


def _row(cells: dict[str, str], place: Place, into: Sources) -> None:
    name, kind = cells.get("name", ""), cells.get("type", "")
    if not name and not kind:
        return
    if "address" not in cells and cells.get("value"):
        into.constants[name.lower()] = cells["value"]
        return
    address = cells.get("address", "")
    if address.lower() in _NOTHING:
        address = ""
    _symbol(name, address, kind, cells.get("comment", ""), place, into)


def _symbol(name: str, address: str, kind: str, comment: str, place: Place, into: Sources) -> None:
    if match := _BLOCK.fullmatch(address.lstrip("%")):
        area, number = match[1].upper(), int(match[2])
        if area == "DB":
            into.numbers[name.lower()] = number
        elif area in ("UDT", "FB"):
            into.aliases[f"{area}{number}".lower()] = name.lower()
            into.aliases.setdefault(name.lower(), f"{area}{number}".lower())
    elif not address:
        into.notes.append(f"{place}: tag {name!r} has no address, left out")
    elif not kind:
        raise wrong(place, f"tag {name!r} has no data type")
    else:
        into.tags.append(Tag(name, parse_type(kind, place), address, place, comment))
