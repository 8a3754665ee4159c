"""Addresses: every spelling of the contract, and errors that say how to mend them."""

from __future__ import annotations

import pytest

from services.s7.address import AddressError, parse_address


@pytest.mark.parametrize(
    ("text", "area", "db", "byte", "bit", "type_"),
    [
        ("DB1.DBX0.0", "DB", 1, 0, 0, "BOOL"),
        ("DB1.DBX12.7:BOOL", "DB", 1, 12, 7, "BOOL"),
        ("DB1.DBB2", "DB", 1, 2, 0, "BYTE"),
        ("DB1.DBB3:CHAR", "DB", 1, 3, 0, "CHAR"),
        ("DB1.DBW4", "DB", 1, 4, 0, "WORD"),
        ("DB1.DBW4:INT", "DB", 1, 4, 0, "INT"),
        ("DB1.DBD0:REAL", "DB", 1, 0, 0, "REAL"),
        ("DB1.DBD0", "DB", 1, 0, 0, "DWORD"),
        ("db500.dbd 8 : real", "DB", 500, 8, 0, "REAL"),
        ("%DB1.DBD0:TIME", "DB", 1, 0, 0, "TIME"),
        ("DB1.DBD8:LREAL", "DB", 1, 8, 0, "LREAL"),
        ("DB1.DBX8.0:DTL", "DB", 1, 8, 0, "DTL"),
        ("DB1.DBB10:STRING[2]", "DB", 1, 10, 0, "STRING[2]"),
        ("DB1.DBB10:String[20]", "DB", 1, 10, 0, "STRING[20]"),
        ("DB1.DBW10:INT[1..4]", "DB", 1, 10, 0, "INT[1..4]"),
        ("DB1.DBX4.0:BOOL[0..15]", "DB", 1, 4, 0, "BOOL[0..15]"),
        ("DB1,REAL8", "DB", 1, 8, 0, "REAL"),
        ("DB1,X0.3", "DB", 1, 0, 3, "BOOL"),
        ("db1,i6", "DB", 1, 6, 0, "INT"),
        ("DB1,S5TIME8", "DB", 1, 8, 0, "S5TIME"),
        ("DB1,DT8", "DB", 1, 8, 0, "DT"),
        ("DB1,STRING10.20", "DB", 1, 10, 0, "STRING[20]"),
        ("DB1,INT10.4", "DB", 1, 10, 0, "INT[0..3]"),
        ("M10.3", "M", 0, 10, 3, "BOOL"),
        ("MB5", "M", 0, 5, 0, "BYTE"),
        ("MW20:INT", "M", 0, 20, 0, "INT"),
        ("MW21:INT", "M", 0, 21, 0, "INT"),
        ("md4:real", "M", 0, 4, 0, "REAL"),
        ("I0.0", "I", 0, 0, 0, "BOOL"),
        ("E0.0", "I", 0, 0, 0, "BOOL"),
        ("EW64:INT", "I", 0, 64, 0, "INT"),
        ("Q1.2", "Q", 0, 1, 2, "BOOL"),
        ("A1.2", "Q", 0, 1, 2, "BOOL"),
        ("AW80:INT", "Q", 0, 80, 0, "INT"),
        ("V10.3", "DB", 1, 10, 3, "BOOL"),
        ("VX10.3", "DB", 1, 10, 3, "BOOL"),
        ("VB5", "DB", 1, 5, 0, "BYTE"),
        ("vw10:int", "DB", 1, 10, 0, "INT"),
        ("%VD4:REAL", "DB", 1, 4, 0, "REAL"),
        ("VW1118:INT[1..8]", "DB", 1, 1118, 0, "INT[1..8]"),
        ("T5", "T", 0, 10, 0, "TIMER"),
        ("C3", "C", 0, 6, 0, "COUNTER"),
        ("Z3", "C", 0, 6, 0, "COUNTER"),
    ],
)
def test_spellings(text: str, area: str, db: int, byte: int, bit: int, type_: str) -> None:
    f = parse_address(text, name="x")
    assert (f.name, f.area, f.db, f.byte, f.bit, f.type) == ("x", area, db, byte, bit, type_)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("DB1.DBX0", "DB1.DBX0.0"),
        ("DB1.DBX0.8", "0 to 7"),
        ("DB1.DBX0.3:INT", "DBW"),
        ("DB1.DBX0.3:BOOL[0..7]", "0.0"),
        ("M1.3:BOOL[0..7]", "1.0"),
        ("DB1.DBW4.1", "DB1.DBX4.1"),
        ("DB1.DBW4:REAL", "DBD"),
        ("DB1.DBD4:INT", "DBW"),
        ("DB1.DBB4:BOOL", "DB1.DBX0.0"),
        ("DB1.DBD0:REEL", "did you mean REAL"),
        ("DB1,RAEL0", "did you mean REAL"),
        ("DB1,STRING10.255", "1 to 254"),
        ("DB1,X0", "DB1,X0.0"),
        ("DB0.DBW0", "1 to 65535"),
        ("DB70000.DBW0", "1 to 65535"),
        ("DB1.DBD65533", "offset"),
        ("M10", "MW10"),
        ("M10.9", "0 to 7"),
        ("V10", "V10.0"),
        ("V10.9", "0 to 7"),
        ("VW4:REAL", "DBD"),
        ("VB65536", "64 KiB"),
        ("T5:REAL", "T5"),
        ("", "DB1.DBX0.0"),
        ("temperatura", "DB1.DBX0.0"),
        ("DB1.DBD0:", "REAL"),
    ],
)
def test_errors_say_how_to_mend(text: str, hint: str) -> None:
    with pytest.raises(AddressError) as e:
        parse_address(text)
    assert hint in e.value.hint
    assert repr(text) in str(e.value)
