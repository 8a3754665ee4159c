"""Offsets of our own sources, worked out by hand from the classic rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openpyxl
import pytest

from services.s7.importers.collect import collect
from services.s7.importers.layouts import Layout, layouts
from services.s7.importers.model import SourceError
from services.s7.layout import resolve_inline, resolve_layout

SOURCES = Path(__file__).parent / "sources"


def load(*names: str, **options: Any) -> list[Layout]:
    return layouts(collect([SOURCES / n for n in names]), **options)


def offsets(layout: Layout) -> dict[str, tuple[str, Any]]:
    """Name -> (type, offset); also proves that the configuration takes the layout."""
    if layout.addressed:
        resolve_inline(layout.fields)
        return {f["name"]: ("", f["address"]) for f in layout.fields}
    doc: dict[str, Any] = {"name": layout.name, "fields": layout.fields}
    if layout.record_bytes is not None:
        doc["record"] = layout.record_bytes
    resolve_layout(doc, db=layout.db or 1)
    return {f["name"]: (f["type"], f["offset"]) for f in layout.fields}


def test_tia_db() -> None:
    (layout,) = load("linha.db")
    assert (layout.name, layout.db, layout.record_bytes) == ("linha_1", None, 118)
    assert offsets(layout) == {
        "ligada": ("BOOL", 0.0),
        "em_falha": ("BOOL", 0.1),
        "estado": ("BYTE", 1),
        "modo": ("INT", 2),
        "Temperatura_Óleo": ("REAL", 4),
        "receita": ("STRING[5]", 8),
        "lote": ("STRING[20]", 16),
        "sensores.1.valor": ("REAL", 38),
        "sensores.1.flags": ("BYTE", 42),
        "sensores.2.valor": ("REAL", 44),
        "sensores.2.flags": ("BYTE", 48),
        "alarmes": ("BOOL[0..11]", 50),
        "matriz": ("BOOL[0..1,0..8]", 52),
        "perfil": ("REAL[-1..1]", 56),
        "nomes": ("STRING[5][0..1]", 68),
        "limites.alto": ("DINT", 84),
        "limites.baixo": ("DINT", 88),
        "limites.interno.ativo": ("BOOL", 92.0),
        "inicio": ("DTL", 94),
        "duracao": ("TIME", 106),
        "ultimo": ("DT", 110),
    }
    comments = {f["name"]: f.get("description") for f in layout.fields}
    assert comments["ligada"] == "Linha ligada"
    assert comments["modo"] == "0 = manual; 1 = automático"
    assert comments["estado"] is None
    assert any("'em falha' is published as 'em_falha'" in n for n in layout.notes)


def test_udts_across_files_become_machines() -> None:
    (layout,) = load("motores.db", "comando.udt", "motor.udt")
    assert layout.machines == {"count": 6, "stride": 12, "first": 0}
    assert layout.record_bytes == 12
    assert offsets(layout) == {
        "comando.liga": ("BOOL", 0.0),
        "comando.desliga": ("BOOL", 0.1),
        "comando.reserva": ("BOOL", 0.2),
        "corrente": ("REAL", 2),
        "horas": ("UDINT", 6),
        "erro": ("WORD", 10),
    }


def test_an_array_beside_other_members_on_demand() -> None:
    machines, rest = load("linha.db", machines="sensores")
    assert machines.machines == {"count": 2, "stride": 6, "first": 38}
    assert offsets(machines) == {"valor": ("REAL", 0), "flags": ("BYTE", 4)}
    assert "sensores.1.valor" not in offsets(rest)
    assert offsets(rest)["alarmes"] == ("BOOL[0..11]", 50)


def test_udt_alone_is_a_layout() -> None:
    (layout,) = load("motor.udt", "comando.udt")
    assert (layout.title, layout.record_bytes) == ("UDT_Motor", 12)


def test_instance_of_an_fb_in_scl() -> None:
    (layout,) = load("forno.scl")
    assert layout.record_bytes == 52
    assert offsets(layout) == {
        "habilita": ("BOOL", 0.0),
        "alvo": ("REAL", 2),
        "pronto": ("BOOL", 6.0),
        "contador": ("INT", 8),
        # 10 and 16: pointers of two in-outs
        "passo": ("USINT", 22),
        "proximo": ("USINT", 23),
        # 24: TON_TIME, 16 bytes
        "zonas": ("INT[1..3,0..1]", 40),
    }
    said = "\n".join(layout.notes)
    assert "'receita' is POINTER" in said
    assert "'tempo' is TON_TIME" in said


def test_step7_awl() -> None:
    first, instance = load("bombas.awl")
    assert (first.db, first.record_bytes) == (12, 332)
    assert offsets(first) == {
        "geral.partidas": ("INT", 0),
        "geral.modo": ("BYTE", 2),
        "bomba.1.pressao": ("REAL", 4),
        "bomba.1.ativa": ("BOOL", 8.0),
        "bomba.2.pressao": ("REAL", 10),
        "bomba.2.ativa": ("BOOL", 14.0),
        "niveis": ("INT[0..2,1..2]", 16),
        "nome": ("STRING[10]", 28),
        "texto": ("STRING[254]", 40),
        "inicio": ("DT", 296),
        "espera": ("S5TIME", 304),
        "poco.-2.nivel": ("REAL", 306),
        "poco.-2.seco": ("BOOL", 310.0),
        "poco.-1.nivel": ("REAL", 312),
        "poco.-1.seco": ("BOOL", 316.0),
        "poco.0.nivel": ("REAL", 318),
        "poco.0.seco": ("BOOL", 322.0),
        # 324: POINTER, 6 bytes
        "fim": ("BOOL", 330.0),
    }
    assert first.fields[0]["description"] == "partidas hoje"
    assert (instance.db, instance.record_bytes) == (13, 32)
    assert offsets(instance) == {
        "liga": ("BOOL", 0.0),
        "tempo": ("S5TIME", 2),
        "ligada": ("BOOL", 4.0),
        "partidas": ("DINT", 6),
        "retardo.IN": ("BOOL", 10.0),
        "retardo.PT": ("TIME", 12),
        "retardo.Q": ("BOOL", 16.0),
        "retardo.ET": ("TIME", 18),
        "retardo.STATE": ("BYTE", 22),
        "retardo.STIME": ("TIME", 24),
        "retardo.ATIME": ("TIME", 28),
    }


def test_simaticml_expands_what_the_member_carries() -> None:
    (layout,) = load("silo.xml")
    assert (layout.db, layout.record_bytes) == (77, 58)
    assert offsets(layout) == {
        "cheio": ("BOOL", 0.0),
        "Nível__m_": ("LREAL", 2),
        "balanca.peso": ("REAL", 10),
        "balanca.estavel": ("BOOL", 14.0),
        "boca.0.aberta": ("BOOL", 16.0),
        "boca.0.posicao": ("SINT", 17),
        "boca.0.nome": ("WSTRING[4]", 18),
        "boca.1.aberta": ("BOOL", 30.0),
        "boca.1.posicao": ("SINT", 31),
        "boca.1.nome": ("WSTRING[4]", 32),
        "codigo": ("CHAR[1..3]", 44),
        "hora": ("LTOD", 48),
        "fim.ok": ("BOOL", 56.0),
    }
    assert layout.fields[0]["description"] == "Silo cheio"


def test_simaticml_prefers_the_types_own_export() -> None:
    (layout,) = load("silo.xml", "balanca.xml")
    assert offsets(layout)["balanca.tara"] == ("REAL", 14)
    assert offsets(layout)["fim.ok"] == ("BOOL", 60.0)


def test_tia_tag_xml() -> None:
    (layout,) = load("tags_tia.xml")
    assert offsets(layout) == {"bomba_ligada": ("", "M10.3"), "Vazão": ("", "MD20:REAL")}
    assert any("peripheral" in n for n in layout.notes)


def test_openness_tag_table_with_a_udt() -> None:
    (layout,) = load("tags_openness.xml", "balanca.xml")
    assert offsets(layout) == {
        "velocidade": ("", "MW100:INT"),
        "balanca.peso": ("", "MD200:REAL"),
        "balanca.tara": ("", "MD204:REAL"),
        "balanca.estavel": ("", "M208.0"),
    }
    assert layout.fields[0]["description"] == "Velocidade em rpm"


def test_tag_csv_with_german_headings() -> None:
    (layout,) = load("tags.csv")
    assert [v for _, v in offsets(layout).values()] == [
        "I0.0",
        "MW20:INT",
        "C3",
        "T5",
        "DB7.DBD4:DINT",
    ]
    assert layout.fields[0]["description"] == "Taster; grün"


def test_tag_xlsx(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "PLC Tags"
    sheet.append(["Name", "Path", "Data Type", "Logical Address", "Comment", "Hmi Visible"])
    sheet.append(["Motor 1", "Padrão", "Bool", "%Q4.1", "Motor da esteira", "True"])
    sheet.append(["Perfil", "Padrão", "Array[1..MAX] of Int", "%MW40", None, "True"])
    sheet.append(["Sem endereço", "Padrão", "Int", None, None, "True"])
    constants = book.create_sheet("Constants")
    constants.append(["Name", "Path", "Data Type", "Value", "Comment"])
    constants.append(["MAX", "Padrão", "Int", 4, None])
    file = tmp_path / "PLCTags.xlsx"
    book.save(file)
    (layout,) = layouts(collect([file]))
    assert offsets(layout) == {
        "Motor_1": ("", "Q4.1"),
        "Perfil": ("", "MW40:INT[1..4]"),
    }
    assert any("'Sem endereço' has no address" in n for n in layout.notes)


def test_step7_symbols_name_the_blocks_number(tmp_path: Path) -> None:
    (layout,) = load("simbolos.sdf")
    assert [v for _, v in offsets(layout).values()] == ["E0.0", "A4.1", "MW20:INT", "T5"]
    named = tmp_path / "dados.awl"
    named.write_text('DATA_BLOCK "Dados"\n "Receita"\nBEGIN\nEND_DATA_BLOCK\n')
    udt = tmp_path / "udt.awl"
    udt.write_text("TYPE UDT 5\n STRUCT\n a : INT ;\n b : REAL ;\n END_STRUCT ;\nEND_TYPE\n")
    block, _tags = layouts(collect([named, udt, SOURCES / "simbolos.sdf"]))
    assert block.db == 500
    assert offsets(block) == {"a": ("INT", 0), "b": ("REAL", 2)}


def test_step7_asc() -> None:
    (layout,) = load("simbolos.asc")
    assert offsets(layout) == {
        "Partida": ("", "E0.0"),
        "Nível_tanque": ("", "MD30:REAL"),
        "Pulsos": ("", "Z3"),
    }


def test_snap7_tag_files() -> None:
    first, second = load("snap7.csv")
    assert (first.db, second.db) == (1, 2)
    assert offsets(first) == {
        "temperatura": ("REAL", 0),
        "ligado": ("BOOL", 4.2),
        "falha": ("BOOL", 4.3),
        "pecas": ("INT[0..4]", 6),
    }
    assert offsets(second) == {"nome": ("STRING[20]", 0), "codigo": ("CHAR[0..3]", 22)}
    (layout,) = load("snap7.json")
    assert offsets(layout) == {
        "ligado": ("BOOL", 0.2),
        "temperatura": ("REAL", 2),
        "contador": ("INT", 10),
    }


def test_optimized_access_is_refused_with_what_to_untick() -> None:
    with pytest.raises(SourceError) as e:
        load("otimizado.db")
    assert "otimizado.db:1" in str(e.value)
    assert 'untick "Optimized block access"' in str(e.value)
    assert "download" in str(e.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = (SOURCES / "linha.db").read_text("utf-8-sig")
    file = tmp_path / "linha.db"
    file.write_bytes(text.encode(encoding))
    (layout,) = layouts(collect([file]))
    assert "Temperatura_Óleo" in offsets(layout)


def test_one_block_of_several() -> None:
    for wanted in ("DB13", "db13", "13"):
        (layout,) = load("bombas.awl", block=wanted)
        assert layout.db == 13
    with pytest.raises(SourceError, match="there is: 'DB12', 'DB13'"):
        load("bombas.awl", block="DB14")
