"""YAML into plain data, remembering on which line each key stands.

One pass over the parser's events, without PyYAML's composer: that one follows ``[[[[…`` until the
stack ends, and its aliases share what they name, so that nine lines can mean a billion values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from services.runtime import files
from services.runtime.document import Document, KeyPath, dotted
from services.runtime.errors import ConfigError, Problem

# A plant's file is some kB. So many values (37,000 fields) are read in 0.7 s.
MAX_BYTES = 2 * 2**20
MAX_VALUES = 150_000
MAX_DEPTH = 50
# Who has made more is told these first.
MAX_PROBLEMS = 500
# More digits than any value here may have; Python itself refuses to read 4,300.
MAX_DIGITS = 40

_TAG = "tag:yaml.org,2002:"
_SCALARS = {f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null")}
_COLLECTIONS = {f"{_TAG}{name}" for name in ("seq", "map")}
_TEXT = f"{_TAG}str"
_NOT_ALLOWED = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CLOSING = {"[": "]", "{": "}"}


def load(path: Path) -> Document:
    """A YAML file's data, and on which line each key stands.

    Raises ConfigError for what cannot be read, is not UTF-8, is not YAML or uses a tab; with its
    line and the fix.
    """
    name = str(path)
    try:
        raw = files.read(path, MAX_BYTES)
    except files.Unreadable as e:
        hint = "give the file with --config, or create it (deploy/config.example.yaml)"
        raise ConfigError([Problem(name, "", f"cannot be read: it {e}", hint=hint)]) from None
    return decode(raw, name)


def decode(raw: bytes, name: str) -> Document:
    """The same of a file's content; ``name`` is what problems call it. Raises ConfigError."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = raw[: e.start].count(b"\n") + 1
        message = f"byte 0x{raw[e.start]:02x} is not UTF-8"
        hint = "save the file as UTF-8 (Notepad: Save as, Encoding)"
        raise ConfigError([Problem(name, "", message, line, hint)]) from None
    return parse(text, name)


def parse(text: str, name: str) -> Document:
    """The same of a text. Raises ConfigError."""
    if bad := _NOT_ALLOWED.search(text):
        message = f"character U+{ord(bad[0]):04X} is not allowed"
        line = text.count("\n", 0, bad.start()) + 1
        hint = "remove it, or save the file as UTF-8"
        raise ConfigError([Problem(name, "", message, line, hint)])
    try:
        return _Builder(text, name).document()
    except yaml.MarkedYAMLError as e:
        raise ConfigError([_not_yaml(e, text, name)]) from None
    except yaml.YAMLError as e:
        raise ConfigError([Problem(name, "", f"not YAML: {e}")]) from None


class _Builder:
    def __init__(self, text: str, name: str) -> None:
        self.out = Document(name)
        self.events: list[Any] = list(self._events(text))
        self.lines = self.out.lines
        self.anchors: dict[str, int] = {}
        self.values = 0
        self.replaying = 0
        """Aliases that are being followed: what they name was judged where it stands."""
        self.resolver: Any = Resolver()
        self.constructor = SafeConstructor()

    def _events(self, text: str) -> Iterator[Any]:
        depth = documents = 0
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
            elif not isinstance(event, yaml.NodeEvent):
                continue
            if depth > MAX_DEPTH:
                self.refuse(event, f"is nested more than {MAX_DEPTH} deep", "mend the brackets")
            if documents > 1:
                self.refuse(event, "a second document begins", "remove the line `---`")
            if isinstance(event, yaml.DocumentStartEvent):
                continue
            yield event

    def document(self) -> Document:
        if self.events:
            self.out.data, _ = self.value(0, (), 0)
        return self.out

    def refuse(self, event: Any, message: str, hint: str) -> None:
        line = _line(event)
        raise ConfigError([Problem(self.out.file, "", message, line, hint)])

    def bad(self, event: Any, path: KeyPath, message: str, hint: str) -> None:
        self.out.doubtful.add(path)
        if not self.replaying:
            line = _line(event)
            self.out.problems.append(Problem(self.out.file, dotted(path), message, line, hint))
            if len(self.out.problems) == MAX_PROBLEMS:
                raise ConfigError(self.out.problems)

    def bad_tag(self, event: Any, path: KeyPath) -> None:
        tag = event.tag.replace(_TAG, "!!")
        self.bad(event, path, f"the tag {tag} has no meaning here", "remove it")

    def value(self, at: int, path: KeyPath, depth: int) -> tuple[Any, int]:
        """(the value whose first event is number ``at``, number of the event after it)."""
        event = self.events[at]
        self.values += 1
        if self.values > MAX_VALUES:
            message = f"holds more than {MAX_VALUES:,} values"
            hint = "spread it over layout files; an alias (*name) counts each time"
            self.refuse(event, message, hint)
        self.lines.setdefault(path, _line(event))
        if isinstance(event, yaml.AliasEvent):
            return self._named(event, path, depth), at + 1
        if event.anchor is not None:
            self.anchors[event.anchor] = at
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path), at + 1
        if event.tag is not None and event.tag not in _COLLECTIONS:
            self.bad_tag(event, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(at + 1, path, depth + 1)
        return self._mapping(at + 1, path, depth + 1)

    def _named(self, event: yaml.AliasEvent, path: KeyPath, depth: int) -> Any:
        if event.anchor not in self.anchors:
            hint = f"write &{event.anchor} where it is defined, above"
            self.bad(event, path, f"no value is named &{event.anchor}", hint)
            return None
        if depth > MAX_DEPTH:
            self.refuse(event, f"&{event.anchor} holds itself", "remove the alias")
        self.replaying += 1
        value, _ = self.value(self.anchors[event.anchor], path, depth + 1)
        self.replaying -= 1
        return value

    def _scalar(self, event: yaml.ScalarEvent, path: KeyPath) -> Any:
        tag = event.tag
        if tag in (None, "!"):
            plain = event.implicit[0] and tag is None
            tag = self.resolver.resolve(yaml.ScalarNode, event.value, (plain, not plain))
            if tag not in _SCALARS:  # a date is a text here, and so is `=`
                tag = _TEXT
        if tag not in _SCALARS:
            self.bad_tag(event, path)
            return None
        if tag == _TEXT and "\0" not in event.value:
            return event.value
        if tag == _TEXT:
            self.bad(event, path, "holds a NUL character", "remove it")
            return None
        if len(event.value) > MAX_DIGITS:
            message = f"is a number of {len(event.value)} digits"
            self.bad(event, path, message, 'text stands in quotes: "…"')
            return None
        try:
            return self.constructor.construct_object(yaml.ScalarNode(tag, event.value))
        except (ValueError, LookupError):
            kind = tag.removeprefix(_TAG)
            self.bad(event, path, f"{event.value!r} is no {kind}", 'text stands in quotes: "…"')
            return None

    def _sequence(self, at: int, path: KeyPath, depth: int) -> tuple[list[Any], int]:
        items: list[Any] = []
        while not isinstance(self.events[at], yaml.SequenceEndEvent):
            value, at = self.value(at, (*path, len(items)), depth)
            items.append(value)
        return items, at + 1

    def _mapping(self, at: int, path: KeyPath, depth: int) -> tuple[dict[str, Any], int]:
        own: dict[str, Any] = {}
        merged: list[tuple[dict[str, Any], dict[KeyPath, int]]] = []
        while not isinstance(key := self.events[at], yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent):
                self.bad(
                    key, (*path, "?"), "a key is one word", "quote it, if it begins with [ { or *"
                )
                _, at = self.value(at, (*path, "?"), depth)
                _, at = self.value(at, (*path, "?"), depth)
            elif key.value == "<<" and key.implicit[0]:
                at = self._merge(at + 1, path, depth, merged)
            else:
                here = (*path, key.value)
                if key.value in own:
                    self.bad(key, here, "stands twice", "keep one of them")
                elif key.anchor is not None:
                    self.anchors[key.anchor] = at
                self.lines[here] = _line(key)
                own[key.value], at = self.value(at + 1, here, depth)
        for values, lines in merged:
            new = {k: v for k, v in values.items() if k not in own}
            below = {p: n for p, n in lines.items() if len(p) > len(path) and p[len(path)] in new}
            self.lines |= below
            own |= new
        return own, at + 1

    def _merge(
        self,
        at: int,
        path: KeyPath,
        depth: int,
        merged: list[tuple[dict[str, Any], dict[KeyPath, int]]],
    ) -> int:
        """Takes the keys of another mapping, or of several, where they do not stand here."""
        event = self.events[at]
        several = isinstance(event, yaml.SequenceStartEvent)
        at += several
        while not isinstance(self.events[at], yaml.SequenceEndEvent):
            kept, self.lines = self.lines, {}
            value, at = self.value(at, path, depth + 1)
            lines, self.lines = self.lines, kept
            if isinstance(value, dict):
                merged.append((value, lines))
            elif path not in self.out.doubtful:
                self.bad(event, (*path, "<<"), "names no mapping", "write <<: *name")
            if not several:
                return at
        return at + 1


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _not_yaml(error: yaml.MarkedYAMLError, text: str, name: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    all_lines = text.splitlines()
    # The mark of a text that ends too early stands behind its last line.
    line = min(mark.line + 1, max(len(all_lines), 1)) if mark else None
    message = f"not YAML: {error.problem or error.context}"
    hint = "check indentation, colons and quotes near this line"
    if line and "\t" in "".join(all_lines[line - 1 : line]).split("#")[0]:
        hint = "use spaces instead of the tab"
    elif error.context == "while scanning a quoted scalar" and error.context_mark:
        message = f"not YAML: the text that begins on line {error.context_mark.line + 1} is open"
        hint = "close it with its quote"
    elif mark and (bracket := _open_bracket(text, mark.index)):
        sign, begun = bracket
        message += f"; the `{sign}` of line {begun} is open"
        hint = f"close it with `{_CLOSING[sign]}`"
    return Problem(name, "", message, line, hint)


def _open_bracket(text: str, before: int) -> tuple[str, int] | None:
    """(bracket, its line) of the innermost one that is open at a position of ``text``."""
    stack: list[tuple[str, int]] = []
    try:
        for token in yaml.scan(text, Loader=yaml.CSafeLoader):
            if token.start_mark.index >= before:
                break
            line = token.start_mark.line + 1
            if isinstance(token, yaml.FlowSequenceStartToken):
                stack.append(("[", line))
            elif isinstance(token, yaml.FlowMappingStartToken):
                stack.append(("{", line))
            elif stack and isinstance(token, yaml.FlowSequenceEndToken | yaml.FlowMappingEndToken):
                stack.pop()
    except yaml.YAMLError:
        pass
    return stack[-1] if stack else None
