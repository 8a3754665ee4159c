"""A small XML tree that knows the line of each element; refuses DTDs and entities.

ElementTree keeps no lines, and an import error without its line is of little help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from services.s7.importers.model import Place, wrong

# An Openness export of eight levels of structures has some 60.
MAX_DEPTH = 200


@dataclass(slots=True)
class Node:
    """An element; ``tag`` without its namespace (Openness raises the number in it by version)."""

    tag: str
    attributes: dict[str, str]
    line: int
    text: str = ""
    children: list[Node] = field(default_factory=list)

    def child(self, tag: str) -> Node | None:
        """The first child of that name."""
        return next((c for c in self.children if c.tag == tag), None)

    def all(self, tag: str) -> Iterator[Node]:
        """Every element of that name below this one, in document order."""
        for child in self.children:
            if child.tag == tag:
                yield child
            yield from child.all(tag)

    def value(self, tag: str) -> str | None:
        """The text of a child."""
        child = self.child(tag)
        return None if child is None else child.text.strip()


def parse(data: bytes, file: str) -> Node:
    """The root element. Raises SourceError for what is not XML, or has a DTD."""
    parser = expat.ParserCreate(namespace_separator=" ")
    root = Node("", {}, 0)
    stack = [root]
    texts: list[list[str]] = [[]]

    def start(name: str, attributes: dict[str, str]) -> None:
        local = {k.rpartition(" ")[2]: v for k, v in attributes.items()}
        node = Node(name.rpartition(" ")[2], local, parser.CurrentLineNumber)
        stack[-1].children.append(node)
        stack.append(node)
        texts.append([])
        if len(stack) > MAX_DEPTH:
            message = f"elements are nested more than {MAX_DEPTH} deep"
            raise wrong(Place(file, parser.CurrentLineNumber), message)

    def end(_name: str) -> None:
        stack.pop().text = "".join(texts.pop())

    def text(part: str) -> None:
        texts[-1].append(part)

    def refuse(*_: object) -> None:
        raise wrong(Place(file, parser.CurrentLineNumber), "XML with a DTD is not read")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as e:
        message = f"not XML: {expat.ErrorString(e.code)}"
        raise wrong(Place(file, e.lineno), message) from None
    except (LookupError, ValueError):  # the encoding that it says it is in
        message = "not XML: it says that it is in an encoding that is not known"
        raise wrong(Place(file, 1), message, 'save it as UTF-8, with encoding="utf-8"') from None
    return root.children[0]
