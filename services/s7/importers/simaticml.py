"""Openness exports (SimaticML): data blocks, PLC data types, FBs, tag tables; and TIA's tag XML.

Element names are matched without their namespace, which changes with TIA's version
(``…/SW/Interface/v4``, ``v5``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from services.s7.importers.model import (
    Array,
    Block,
    Member,
    Named,
    Place,
    Sources,
    Struct,
    Tag,
    Type,
    TypeDef,
    wrong,
)
from services.s7.importers.text import by_reference, parse_type
from services.s7.importers.xml_tree import Node, parse

_BLOCKS = ("SW.Blocks.GlobalDB", "SW.Blocks.InstanceDB", "SW.Blocks.ArrayDB")
_SECTIONS = {"Input": 0, "Output": 1, "InOut": 2, "Static": 3, "None": 3}
_STRUCT_END = re.compile(r"(?i)\bstruct\s*$")
_PLACEHOLDER = "«members»"


def read(data: bytes, file: str, into: Sources) -> None:
    """Adds what an XML file holds. Raises SourceError."""
    root = parse(data, file)
    found = False
    for node in [root, *_below(root)]:
        reader = {
            "SW.Types.PlcStruct": _plc_struct,
            "SW.Blocks.FB": _function_block,
            "SW.Tags.PlcTag": _plc_tag,
            "SW.Tags.PlcUserConstant": _constant,
            "Tag": _tag,
            "Constant": _tag_constant,
            **dict.fromkeys(_BLOCKS, _data_block),
        }.get(node.tag)
        if reader is not None:
            reader(node, file, into)
            found = True
    if not found:
        message = f"<{root.tag}> holds nothing that can be imported"
        hint = "export a data block, a PLC data type or a tag table"
        raise wrong(Place(file, root.line), message, hint)


def _below(node: Node) -> Iterable[Node]:
    """Objects below ``node``; an object's own inside is left to its reader."""
    for child in node.children:
        yield child
        if not child.tag.startswith(("SW.Blocks.", "SW.Types.")):
            yield from _below(child)


def _attributes(node: Node) -> Node:
    return node.child("AttributeList") or Node("AttributeList", {}, node.line)


def _number(text: str) -> int | None:
    """A number of up to nine digits; None for anything else."""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _name(node: Node, file: str) -> str:
    name = _attributes(node).value("Name")
    if not name:
        raise wrong(Place(file, node.line), f"<{node.tag}> has no Name")
    return name


def _optimized(node: Node) -> bool | None:
    layout = _attributes(node).value("MemoryLayout")
    return None if not layout else layout.lower() == "optimized"


def _interface(node: Node, file: str, into: Sources) -> tuple[Struct, dict[str, str]]:
    """The members of all sections, in the order of memory; the block's own constants."""
    interface = _attributes(node).child("Interface") or node.child("Interface")
    sections = interface.child("Sections") if interface else None
    return _sections(sections or Node("Sections", {}, node.line), file, into)


def _sections(sections: Node, file: str, into: Sources) -> tuple[Struct, dict[str, str]]:
    by_order: dict[int, list[Member]] = {}
    constants: dict[str, str] = {}
    for section in sections.children:
        name = section.attributes.get("Name", "None")
        if name == "Constant":
            for member in section.children:
                value = member.value("StartValue")
                if value:
                    constants[f"#{member.attributes.get('Name', '').lower()}"] = value
        order = _SECTIONS.get(name)
        if order is None:
            continue
        members = [_member(m, file, into) for m in section.children if m.tag == "Member"]
        if name == "InOut":
            members = [by_reference(m) for m in members]
        by_order.setdefault(order, []).extend(members)
    members, starts = [], []
    for order in sorted(by_order):
        starts.append(len(members))
        members += by_order[order]
    return Struct(tuple(members), Place(file, sections.line), tuple(starts)), constants


def _member(node: Node, file: str, into: Sources) -> Member:
    place = Place(file, node.line)
    name, datatype = node.attributes.get("Name"), node.attributes.get("Datatype")
    if not name or not datatype:
        raise wrong(place, "a <Member> without Name or Datatype")
    comment_node = node.child("Comment")
    comment = ""
    if comment_node is not None:
        texts = [t.text.strip() for t in comment_node.children] or [comment_node.text.strip()]
        comment = next((t for t in texts if t), "")
    offset = None
    for attribute in (node.child("AttributeList") or node).children:
        if attribute.tag == "IntegerAttribute" and attribute.attributes.get("Name") == "Offset":
            text = attribute.text.strip()
            offset = _number(text)  # in bits
    return Member(name, _type(node, datatype, place, into), place, comment, offset)


def _type(node: Node, datatype: str, place: Place, into: Sources) -> Type:
    if not _STRUCT_END.search(datatype):
        kind = parse_type(datatype, place)
        _expansion(node, kind, place, into)
        return kind
    inside = [c for c in node.children if c.tag == "Member"]
    members = tuple(_member(m, place.file, into) for m in inside)
    if not members and (sections := node.child("Sections")):
        members = _sections(sections, place.file, into)[0].members
    replaced = _STRUCT_END.sub(f'"{_PLACEHOLDER}"', datatype)
    return _fill(parse_type(replaced, place), Struct(members, place))


def _fill(kind: Type, body: Struct) -> Type:
    if isinstance(kind, Array):
        return Array(kind.bounds, _fill(kind.element, body), kind.place)
    return body


def _expansion(node: Node, kind: Type, place: Place, into: Sources) -> None:
    """A member of a UDT, an FB or a system type carries that type's members with it: they serve
    where the type's own export is not given."""
    while isinstance(kind, Array):
        kind = kind.element
    sections = node.child("Sections")
    # Of system types an export shows only what a program may use: no sizes from there.
    if sections is None or not isinstance(kind, Named) or not kind.quoted:
        return
    body, constants = _sections(sections, place.file, into)
    if body.members:
        definition = TypeDef(kind.name, body, place, constants=constants)
        into.expanded.setdefault(kind.name.lower(), definition)


def _plc_struct(node: Node, file: str, into: Sources) -> None:
    body, _ = _interface(node, file, into)
    into.add_type(TypeDef(_name(node, file), body, Place(file, node.line)))


def _function_block(node: Node, file: str, into: Sources) -> None:
    body, constants = _interface(node, file, into)
    place = Place(file, node.line)
    into.add_type(TypeDef(_name(node, file), body, place, _optimized(node), constants, True))


def _data_block(node: Node, file: str, into: Sources) -> None:
    place = Place(file, node.line)
    attributes = _attributes(node)
    name = _name(node, file)
    number = attributes.value("Number") or ""
    interface, constants = _interface(node, file, into)
    body: Type = interface
    if node.tag == "SW.Blocks.ArrayDB":
        body = _array_db(attributes, place)
    elif not interface.members and (instance_of := attributes.value("InstanceOfName")):
        body = Named(instance_of, place, quoted=True)
    elif not interface.members:
        raise wrong(place, f"data block {name!r} has no members")
    into.add_block(
        Block(name, _number(number) or None, body, place, _optimized(node), constants=constants)
    )


def _array_db(attributes: Node, place: Place) -> Array:
    element = attributes.value("ArrayDataType")
    upper = attributes.value("ArrayLimitUpperBound") or ""
    last = _number(upper)
    if not element or last is None:
        message = "an ArrayDB without ArrayDataType and ArrayLimitUpperBound"
        raise wrong(place, message)
    return Array(((0, last),), parse_type(element, place), place)


def _texts(node: Node) -> str:
    """The first text of an object's comment, in whatever language comes first."""
    for text in node.all("Text"):
        if text.text.strip():
            return " ".join(text.text.split())
    return ""


def _plc_tag(node: Node, file: str, into: Sources) -> None:
    place = Place(file, node.line)
    attributes = _attributes(node)
    _add_tag(
        _name(node, file),
        attributes.value("DataTypeName") or "",
        attributes.value("LogicalAddress") or "",
        place,
        _texts(node),
        into,
    )


def _constant(node: Node, file: str, into: Sources) -> None:
    value = _attributes(node).value("Value")
    if value:
        into.constants[_name(node, file).lower()] = value


def _tag(node: Node, file: str, into: Sources) -> None:
    """``<Tag type='Bool' addr='%M0.0' remark='…'>Name</Tag>`` of TIA's own XML export."""
    a = node.attributes
    place = Place(file, node.line)
    name = node.text.strip() or a.get("name", "")
    _add_tag(name, a.get("type", ""), a.get("addr", ""), place, a.get("remark", ""), into)


def _tag_constant(node: Node, file: str, into: Sources) -> None:
    if node.text.strip() and node.attributes.get("value"):
        into.constants[node.text.strip().lower()] = node.attributes["value"]


def _add_tag(name: str, kind: str, address: str, place: Place, comment: str, into: Sources) -> None:
    if not address:
        into.notes.append(f"{place}: tag {name!r} has no address, left out")
    elif not kind:
        raise wrong(place, f"tag {name!r} has no data type")
    else:
        into.tags.append(Tag(name, parse_type(kind, place), address, place, comment))
