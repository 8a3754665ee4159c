"""Corners of the grammar, and what is refused with file and line."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.s7.importers.collect import collect
from services.s7.importers.layouts import Layout, layouts
from services.s7.importers.model import SourceError


def imported(folder: Path, text: str, name: str = "fonte.db") -> list[Layout]:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return layouts(collect([file]))


def places(layout: Layout) -> dict[str, float]:
    return {f["name"]: f["offset"] for f in layout.fields}


def block(body: str, head: str = "{ S7_Optimized_Access := 'FALSE' }") -> str:
    return f'DATA_BLOCK "X"\n{head}\nSTRUCT\n{body}\nEND_STRUCT;\nBEGIN\nEND_DATA_BLOCK\n'


def test_comments_of_every_kind(tmp_path: Path) -> None:
    body = """
    a : (* Int : *) Int; // primeiro
    b (* x *) : Real (* REAL; *); (* segundo
       em duas linhas *)
    /* c : Int; */
    (/* en-US: text */)
    d : Int; """
    (layout,) = imported(tmp_path, block(body))
    assert places(layout) == {"a": 0, "b": 2, "d": 6}
    assert layout.fields[0]["description"] == "Int :"


def test_initial_values_that_look_like_declarations(tmp_path: Path) -> None:
    body = """
    a : String[10] := 'x : Int; END_STRUCT //';
    b : Array[0..3] of Int := [1, 2(3), 4];
    c : Time := T#1h_2m;
    d : Date_And_Time := DT#2020-01-01-12:00:00;
    e : "U" := (v := 1, w := (x := 2));
    f : Int;"""
    text = 'TYPE "U" STRUCT v : Int; w : Struct x : Int; END_STRUCT; END_STRUCT; END_TYPE\n'
    (layout,) = imported(tmp_path, text + block(body))
    assert places(layout) == {"a": 0, "b": 12, "c": 20, "d": 24, "e.v": 32, "e.w.x": 34, "f": 36}


def test_members_named_like_keywords(tmp_path: Path) -> None:
    body = 'name : Int; version : Int; "end_struct" : Int; type : Int; begin : Bool; at1 : Bool;'
    (layout,) = imported(tmp_path, block(body))
    assert list(places(layout)) == ["name", "version", "end_struct", "type", "begin", "at1"]


def test_bounds_as_expressions(tmp_path: Path) -> None:
    text = """FUNCTION_BLOCK FB 7
    CONST
      N := 4;
      M := 2 * N - 1;
    END_CONST
    VAR
      a : ARRAY [1 .. N, 0 .. M DIV 2] OF BYTE;
      b : ARRAY [-16#A .. -1] OF CHAR;
      c : STRING[M];
      d : BOOL;
    END_VAR
    BEGIN
    END_FUNCTION_BLOCK
    DATA_BLOCK DB 9 FB 7
    BEGIN
    END_DATA_BLOCK"""
    (layout,) = imported(tmp_path, text, "fonte.awl")
    assert places(layout) == {"a": 0, "b": 16, "c": 26, "d": 35.0}


def test_sections_in_any_order_and_a_multi_instance(tmp_path: Path) -> None:
    text = """FUNCTION_BLOCK "Filho"
    { S7_Optimized_Access := 'FALSE' }
    VAR x : Bool; END_VAR
    VAR_OUTPUT q : Bool; END_VAR
    VAR_INPUT i : Byte; END_VAR
    BEGIN END_FUNCTION_BLOCK
    FUNCTION_BLOCK "Pai"
    { S7_Optimized_Access := 'FALSE' }
    VAR f : Array[0..1] of "Filho"; n : Byte; END_VAR
    BEGIN END_FUNCTION_BLOCK
    DATA_BLOCK "D" "Pai" BEGIN END_DATA_BLOCK"""
    (layout,) = imported(tmp_path, text)
    assert places(layout) == {
        "f.0.i": 0, "f.0.q": 2.0, "f.0.x": 4.0, "f.1.i": 6, "f.1.q": 8.0, "f.1.x": 10.0, "n": 12,
    }  # fmt: skip


def test_array_of_struct_alone_becomes_machines(tmp_path: Path) -> None:
    body = "m : Array[1..3, 0..1] of Struct a : Bool; b : Byte; c : Byte; END_STRUCT;"
    (layout,) = imported(tmp_path, block(body))
    assert layout.machines == {"count": 6, "stride": 4, "first": 0}


def test_array_data_block(tmp_path: Path) -> None:
    text = """TYPE "U" STRUCT a : Real; b : Bool; END_STRUCT; END_TYPE
    DATA_BLOCK "A" { S7_Optimized_Access := 'FALSE' } Array[0..9] of "U" BEGIN END_DATA_BLOCK"""
    (layout,) = imported(tmp_path, text)
    assert layout.machines == {"count": 10, "stride": 6, "first": 0}


def test_an_odd_string_before_a_byte_is_warned_of(tmp_path: Path) -> None:
    (layout,) = imported(tmp_path, block("s : String[5]; b : Byte; c : Bool; i : Int;"))
    assert places(layout) == {"s": 0, "b": 7, "c": 8.0, "i": 10}
    assert any("follows 's', a STRING of odd length" in n for n in layout.notes)


def test_names_that_meet_are_told_apart(tmp_path: Path) -> None:
    (layout,) = imported(tmp_path, block('"a b" : Int; a_b : Int; "a/b" : Int;'))
    assert places(layout) == {"a_b": 0, "a_b_2": 2, "a_b_3": 4}


def test_long_names_are_cut_and_stay_unique(tmp_path: Path) -> None:
    inner = "".join(f"STRUCT nome_bastante_comprido_{i} : " for i in range(6))
    ends = "END_STRUCT; " * 6
    (layout,) = imported(
        tmp_path, block(f"a : {inner} STRUCT x : Int; y : Int; END_STRUCT; {ends}")
    )
    assert len(places(layout)) == 2
    assert max(map(len, places(layout))) == 128


def test_access_not_said_is_noted(tmp_path: Path) -> None:
    (layout,) = imported(tmp_path, block("a : Int;", head=""))
    assert any("does not say whether its access is optimized" in n for n in layout.notes)
    (layout,) = imported(tmp_path, block("a : Int;", head=""), "fonte.awl")
    assert not layout.notes


REFUSED = {
    "unknown type": (block("a : Int;\nb : Foo;"), 5, "'Foo' is unknown", "give the file"),
    "unresolved UDT": (block('a : Int;\nb : "UDT_X";'), 5, "'UDT_X' is unknown", "give the file"),
    "reference": (block("a : REF_TO Int;"), 4, "optimized access only", ""),
    "no such section": (
        'FUNCTION_BLOCK "F"\nVAR_INPUT a : Int; END_VAR\nVAR_STATIC b : Int; END_VAR\nBEGIN\n'
        "END_FUNCTION_BLOCK",
        3,
        "VAR_STATIC is no section",
        "VAR_TEMP",
    ),
    "SIMATIC SD": (
        '{ S7_BlockNumber := "101"; S7_Optimized := "TRUE" }\nDATA_BLOCK V\nVAR a : Bool; END_VAR',
        1,
        "SIMATIC SD",
        "Generate source",
    ),
    "optimized FB": (
        "FUNCTION_BLOCK \"F\"\n{ S7_Optimized_Access := 'TRUE' }\nVAR a : Int; END_VAR\nBEGIN\n"
        'END_FUNCTION_BLOCK\nDATA_BLOCK "D"\n"F"\nBEGIN\nEND_DATA_BLOCK',
        6,
        "optimized access",
        "untick",
    ),
    "no semicolon": (block("a : Int\nb : Int;"), 4, "a ; is missing", ""),
    "no type": (block("a : ;"), 4, "expected a type", ""),
    "unknown constant": (block("a : Array[0..N] of Int;"), 4, "constant 'N'", "tag table"),
    "reversed bounds": (block("a : Array[5..1] of Int;"), 4, "reversed", ""),
    "open array": (block("a : Array[*] of Int;"), 4, "without bounds", ""),
    "string too long": (block("a : String[255];"), 4, "1 to 254", ""),
    "too large": (block("a : Array[0..40000] of Int;"), 3, "more than a data block", ""),
    "huge": (block("a : Array[0..2000000000] of Int;"), 4, "larger than a data block", ""),
    "itself": (
        'TYPE "A"\nSTRUCT\n x : "B";\nEND_STRUCT;\nEND_TYPE\n'
        'TYPE "B"\nSTRUCT\n y : "A";\n z : "A";\nEND_STRUCT;\nEND_TYPE\n' + block('a : "A";'),
        2,
        "contains itself",
        "",
    ),
    "cut off": ('DATA_BLOCK "X"\nSTRUCT\n a : Int;', 3, "the end of the file", ""),
    "twice": (
        'TYPE "A" STRUCT x : Int; END_STRUCT; END_TYPE\n'
        'TYPE "a" STRUCT x : Real; END_STRUCT; END_TYPE\n' + block('a : "A";'),
        2,
        "declared otherwise",
        "",
    ),
    "a timer": (
        "DATA_BLOCK \"T\"\n{ S7_Optimized_Access := 'FALSE' }\nIEC_TIMER\nBEGIN\nEND_DATA_BLOCK",
        1,
        "holds nothing to publish",
        "",
    ),
    "too deep": (block("a : " + "STRUCT b : " * 3_000), 0, "nested too deep", ""),
    "deep expression": (
        block(f"a : Array[0..{'(' * 5_000}1{')' * 5_000}] of Int;"),
        4,
        "too deep",
        "number",
    ),
    "digits": (block(f"a : Array[0..{'9' * 5_000}] of Int;"), 4, "5000 digits", "number"),
    "nothing": ("hello", 0, "no data block", "Generate source"),
    "empty": ("", 0, "no data block", ""),
}


@pytest.mark.parametrize("case", REFUSED, ids=list(REFUSED))
def test_refused_with_file_line_and_fix(tmp_path: Path, case: str) -> None:
    text, line, message, hint = REFUSED[case]
    with pytest.raises(SourceError) as e:
        imported(tmp_path, text)
    problem = e.value.problems[0]
    assert problem.place.file.endswith("fonte.db")
    assert problem.place.line == line
    assert message in problem.message
    assert hint in problem.hint


def test_every_unknown_type_at_once(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as e:
        imported(tmp_path, block('a : "A";\nb : Int;\nc : "C";'))
    assert [p.place.line for p in e.value.problems] == [4, 6]


XML = """<?xml version="1.0"?>
<Document><SW.Blocks.GlobalDB ID="0"><AttributeList>
<Interface><Sections xmlns="http://www.siemens.com/automation/Openness/SW/Interface/v4">
<Section Name="Static">{members}</Section></Sections></Interface>
{layout}<Name>D</Name><Number>5</Number></AttributeList></SW.Blocks.GlobalDB></Document>"""


def test_xml_memory_layout(tmp_path: Path) -> None:
    members = '<Member Name="a" Datatype="Int" />'
    text = XML.format(members=members, layout="<MemoryLayout>Optimized</MemoryLayout>")
    with pytest.raises(SourceError, match="untick"):
        imported(tmp_path, text, "d.xml")
    (layout,) = imported(tmp_path, XML.format(members=members, layout=""), "d.xml")
    assert any("does not say" in n for n in layout.notes)


def test_xml_offsets_are_checked(tmp_path: Path) -> None:
    members = """<Member Name="a" Datatype="Bool" /><Member Name="b" Datatype="Int">
<AttributeList><IntegerAttribute Name="Offset">32</IntegerAttribute></AttributeList></Member>"""
    with pytest.raises(SourceError, match=r"'b' lies at 4\.0, by the rules it lies at 2\.0"):
        imported(tmp_path, XML.format(members=members, layout=""), "d.xml")


@pytest.mark.parametrize(
    "text",
    [
        "<Document",
        '<!DOCTYPE x [<!ENTITY a "b">]><Document>&a;</Document>',
        "<Document><Other /></Document>",
        XML.format(members="<Member Name='a' />", layout=""),
        XML.format(members="<Member Name='a' Datatype='Array[0..' />", layout=""),
    ],
)
def test_xml_that_is_none_of_ours(tmp_path: Path, text: str) -> None:
    with pytest.raises(SourceError):
        imported(tmp_path, text, "d.xml")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "x,y\n1,2\n", "headings"),
        ("a.csv", "tag,db,offset,type\na,x,0,INT\n", "no number"),
        ("a.csv", "tag,db,offset,type,bit\na,1,0,BOOL,9\n", "outside 0 to 7"),
        ("a.csv", "tag,db,offset,type\na,1,65534,REAL\n", "'a': a reaches byte 65537"),
        ("a.sdf", '"a","MW 10","REAL"\n', "is REAL, its address MW 10 is not"),
        ("a.sdf", '"a","MB 10","BOOL"\n', "is BOOL, its address MB 10 is not"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[]", "not a tag file"),
        ("a.json", '{"a": {"db": 1}}', "lacks offset, type"),
        ("a.xlsx", "PK no", "not an xlsx workbook"),
        ("a.asc", "hello", "begins with 126"),
        ("a.sdf", '"a","M 0.0"\n', "at least name"),
        ("a.sdf", '"a","X 0.0","BOOL"\n', "is not understood"),
        ("a.sdf", '"a","MW 10","FOO"\n', "is unknown"),
        ("a.dif", "TABLE", "Interchange"),
        ("a.csv", "Name,Data type,HMI data type,Address\na,Int,Int,%MW0\n", "HMI tags"),
    ],
)
def test_tables_that_are_none_of_ours(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        imported(tmp_path, text, name)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        layouts(collect([tmp_path / "nada.db"]))


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="{}()[]\"';:=.,*/ \nABDSTRUCTEN_VOF012#", max_size=200))
def test_no_text_makes_a_traceback(text: str) -> None:
    from services.s7.importers.model import Sources
    from services.s7.importers.text import read

    for head in ("", 'DATA_BLOCK "X"\nSTRUCT\n', "TYPE x\n"):
        sources = Sources()
        with contextlib.suppress(SourceError):
            read(head + text, "f.db", sources, classic=True)
            layouts(sources)


# --- what real sources hold ------------------------------------------------------------------

NO = "{ S7_Optimized_Access := 'FALSE' }"


def imports(folder: Path, **files: str) -> list[Layout]:
    """Several files together; ``a_db`` becomes a.db."""
    paths = []
    for name, text in files.items():
        paths.append(folder / name.replace("_", "."))
        paths[-1].write_text(text, encoding="utf-8")
    return layouts(collect(paths))


def test_an_in_out_of_a_system_type_is_a_pointer(tmp_path: Path) -> None:
    text = f"""FUNCTION_BLOCK "F"
    {NO}
    VAR_IN_OUT tmr : IEC_TIMER; i : Int; d : DTL; ctr : CTU_INT; v : Variant; END_VAR
    VAR state : Int; END_VAR
    BEGIN
    END_FUNCTION_BLOCK
    DATA_BLOCK "iF"
    {NO}
    "F"
    BEGIN
    END_DATA_BLOCK"""
    (layout,) = imported(tmp_path, text, "fonte.scl")
    # VARIANT takes no room; IEC_TIMER, DTL and CTU_INT are pointers of 6 bytes.
    assert places(layout) == {"i": 6, "state": 20}


def test_local_and_global_constants_are_told_apart(tmp_path: Path) -> None:
    fb = f"""FUNCTION_BLOCK "F"
    {NO}
    VAR CONSTANT Max : Int := 2; END_VAR
    VAR a : Array[1.."MAX"] of Int; b : Array[1..#Max] of Int; c : Int; END_VAR
    BEGIN
    END_FUNCTION_BLOCK
    DATA_BLOCK "i" {NO} "F" BEGIN END_DATA_BLOCK"""
    tags = "Name,Data Type,Value\nMAX,Int,10\n"
    (layout,) = imports(tmp_path, f_scl=fb, t_csv=tags)
    assert [(f["type"], f["offset"]) for f in layout.fields] == [
        ("INT[1..10]", 0), ("INT[1..2]", 20), ("INT", 24),
    ]  # fmt: skip


FB_XML = """<?xml version="1.0"?><Document><SW.Blocks.FB ID="0"><AttributeList>
<Interface><Sections>
<Section Name="Static"><Member Name="a" Datatype="Array[1..#N] of Int" /></Section>
<Section Name="Constant"><Member Name="N" Datatype="Int"><StartValue>{n}</StartValue></Member>
</Section></Sections></Interface>
<MemoryLayout>Standard</MemoryLayout><Name>{name}</Name></AttributeList></SW.Blocks.FB></Document>"""


@pytest.mark.parametrize("order", [1, -1])
def test_constants_of_exported_function_blocks_are_their_own(tmp_path: Path, order: int) -> None:
    instances = "".join(f'DATA_BLOCK "i{n}" {NO} "{n}" BEGIN END_DATA_BLOCK\n' for n in "AB")
    glob = f'DATA_BLOCK "g" {NO} STRUCT a : Array[1.."N"] of Int; END_STRUCT; BEGIN END_DATA_BLOCK'
    files = {
        "a_xml": FB_XML.format(name="A", n=3),
        "b_xml": FB_XML.format(name="B", n=10),
        "i_db": instances + glob,
        "t_csv": "Name,Data Type,Value\nN,Int,7\n",
    }
    found = imports(tmp_path, **dict(list(files.items())[::order]))
    types = {layout.title: layout.fields[0]["type"] for layout in found}
    assert types == {"iA": "INT[1..3]", "iB": "INT[1..10]", "g": "INT[1..7]"}


def test_declarations_on_the_line_of_the_version(tmp_path: Path) -> None:
    text = f"""DATA_BLOCK "g" {NO} VERSION : 0.1 VAR a : Int; END_VAR VAR b : Int; END_VAR
    BEGIN
    END_DATA_BLOCK
    DATA_BLOCK "h" {NO} AUTHOR : J.Doe VERSION : 1.0.2 NON_RETAIN STRUCT c : Int; END_STRUCT;
    BEGIN
    END_DATA_BLOCK
    TYPE "u" VERSION : 0.1 STRUCT d : Int; END_STRUCT; END_TYPE
    DATA_BLOCK "k" {NO} VERSION : 0.1 NON_RETAIN "u" BEGIN END_DATA_BLOCK"""
    found = imported(tmp_path, text)
    assert [places(layout) for layout in found] == [{"a": 0, "b": 2}, {"c": 0}, {"d": 0}]


def test_a_timer_is_that_of_the_cpu(tmp_path: Path) -> None:
    body = "STRUCT t : TON; n : Int; END_STRUCT; BEGIN END_DATA_BLOCK"
    (new,) = imported(tmp_path, f'DATA_BLOCK "D" {NO} {body}')
    (old,) = imported(tmp_path, f'DATA_BLOCK "D" {body}', "fonte.awl")
    assert (places(new)["n"], places(old)["n"]) == (16, 22)


def test_an_overlay_takes_no_room(tmp_path: Path) -> None:
    text = f"""FUNCTION_BLOCK "F" {NO}
    VAR a : Word; b AT a : Array[0..15] of Bool; c : Int; END_VAR
    BEGIN END_FUNCTION_BLOCK
    DATA_BLOCK "i" {NO} "F" BEGIN END_DATA_BLOCK"""
    (layout,) = imported(tmp_path, text, "fonte.scl")
    assert places(layout) == {"a": 0, "c": 2}
    assert any("'b' is an AT view of 'a'" in note for note in layout.notes)


def test_a_function_block_alone_says_what_it_is(tmp_path: Path) -> None:
    text = 'FUNCTION_BLOCK "F" VAR a : Int; END_VAR BEGIN END_FUNCTION_BLOCK'
    (layout,) = imported(tmp_path, text, "fonte.scl")
    assert any("is a function block" in note for note in layout.notes)
    assert any("does not say whether its access is optimized" in note for note in layout.notes)


def test_blocks_without_a_layout_do_not_cost_the_others(tmp_path: Path) -> None:
    good = block("a : Int;")
    text = good + good.replace('"X"', '"opt"').replace("FALSE", "TRUE")
    text += f'DATA_BLOCK "IEC_Timer_0_DB" {NO} IEC_TIMER BEGIN END_DATA_BLOCK\n'
    text += 'FUNCTION_BLOCK "E" BEGIN END_FUNCTION_BLOCK\n'
    text += f'DATA_BLOCK "iE" {NO} "E" BEGIN END_DATA_BLOCK\nDATA_BLOCK DB 9 SFB 12 BEGIN'
    (layout,) = imported(tmp_path, text + "\nEND_DATA_BLOCK")
    assert layout.title == "X"
    left_out = [note for note in layout.notes if note.startswith("left out: ")]
    assert len(left_out) == 4
    assert "untick" in left_out[0]


def test_the_same_type_in_several_files_is_one(tmp_path: Path) -> None:
    udt = 'TYPE "u" STRUCT a : Int; // um\nEND_STRUCT; END_TYPE\n'
    one = udt + f'DATA_BLOCK "A" {NO} "u" BEGIN END_DATA_BLOCK'
    two = udt.replace("// um", "// outro") + f'DATA_BLOCK "B" {NO} "u" BEGIN END_DATA_BLOCK'
    assert [layout.title for layout in imports(tmp_path, a_scl=one, b_scl=two)] == ["A", "B"]


def test_a_block_whose_newer_source_is_optimized_is_refused(tmp_path: Path) -> None:
    """Alike but for the access: the older export must not hide what the newer one says."""
    old = block("a : Int;", head="")
    with pytest.raises(SourceError, match="optimized access"):
        imports(tmp_path, a_db=old, b_db=block("a : Int;").replace("FALSE", "TRUE"))
    first, second = imports(
        tmp_path, a_db=block("a : Int;"), b_db=block("a : Real;"), c_db=block("a : Int;")
    )
    assert (places(first), places(second)) == ({"a": 0}, {"a": 0})
    assert any("is declared otherwise" in note for note in first.notes)


def test_a_type_as_source_and_as_export_is_one(tmp_path: Path) -> None:
    udt = 'TYPE "u"\nSTRUCT a : Int; b : Array[0..1] of Bool;\nEND_STRUCT;\nEND_TYPE\n'
    xml = """<?xml version="1.0"?><Document><SW.Types.PlcStruct ID="0"><AttributeList><Interface>
    <Sections><Section Name="None"><Member Name="a" Datatype="Int" /><Member Name="b"
    Datatype="Array[0..1] of Bool" /></Section></Sections></Interface><Name>u</Name>
    </AttributeList></SW.Types.PlcStruct></Document>"""
    (layout,) = imports(tmp_path, u_udt=udt, u_xml=xml, d_db=block('x : "u";'))
    assert places(layout) == {"x.a": 0, "x.b": 2}


def test_the_size_of_a_type_without_source_can_be_given(tmp_path: Path) -> None:
    file = tmp_path / "fonte.db"
    file.write_text(block("r : R_TRIG; f : Array[0..1] of F_TRIG; n : Int;"))
    with pytest.raises(SourceError) as e:
        layouts(collect([file]))
    assert "--type-bytes R_TRIG=N" in e.value.problems[0].hint
    (layout,) = layouts(collect([file], type_bytes={"R_TRIG": 6, "f_trig": 5}))
    assert places(layout) == {"n": 18}


def test_a_code_page_can_be_named(tmp_path: Path) -> None:
    file = tmp_path / "fonte.awl"
    file.write_bytes(block("温度 : Int; // 度").encode("cp932"))
    with pytest.raises(SourceError) as e:
        layouts(collect([file]))
    assert "--encoding cp932" in e.value.problems[0].hint
    (layout,) = layouts(collect([file], "cp932"))
    assert places(layout) == {"温度": 0}


def test_tags_at_odd_bytes_are_read_by_address(tmp_path: Path) -> None:
    (layout,) = imports(tmp_path, t_csv="tag,db,offset,type\na,1,3,REAL\nb,1,7,BOOL\n")
    assert layout.addressed
    assert layout.fields == [
        {"name": "a", "address": "DB1.DBD3:REAL"}, {"name": "b", "address": "DB1.DBX7.0"},
    ]  # fmt: skip


def test_symbol_tables_as_they_are(tmp_path: Path) -> None:
    sdf = '"red", "Q 0.0", "BOOL", "lamp"\n"MAX","CONSTANT","Int","","","","c","222",""\n'
    seq = "\tM 1.0\tpump\tthe pump\n\tMW 4\tspeed\t\n\tDB 7\tX\t\n"
    asc = "126," + "now".ljust(24) + "MD     20".ljust(12) + "TIME_OF_DA" + "clock".ljust(80) + "\n"
    db = block('a : Array[1.."MAX"] of Byte;')
    x, tags = imports(tmp_path, a_sdf=sdf, b_seq=seq, c_asc=asc, x_db=db)
    assert (x.db, x.record_bytes) == (7, 222)
    assert {f["name"]: f["address"] for f in tags.fields} == {
        "red": "Q0.0", "pump": "M1.0", "now": "MD20:TOD",
    }  # fmt: skip
    assert any("1 symbols are left out" in note for note in x.notes)


def test_every_bad_row_at_once(tmp_path: Path) -> None:
    rows = "Name,Data Type,Logical Address\na,,%MW0\nb,Int,%MW2\nc,,%MW4\n"
    with pytest.raises(SourceError) as e:
        imports(tmp_path, t_csv=rows)
    assert [p.place.line for p in e.value.problems] == [2, 4]
