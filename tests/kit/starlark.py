"""Runs Telegraf's Starlark processor without Telegraf.

Three things of Telegraf are missing in the interpreter: attributes of a metric (``metric.tags``
becomes ``metric["tags"]``), ``Metric`` and the json library (messages come already decoded, by
their text).
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import starlark_go

SCRIPT = Path(__file__).resolve().parents[2] / "infra" / "telegraf" / "plc_edge.star"
_PRELUDE = """\
def json_decode(text, default):
    return decoded_texts.get(text, default)

def json_encode(value):
    return repr(value)

def Metric(name):
    return {"name": name, "tags": {}, "fields": {}, "time": 0}
"""


class Processor:
    """One run of Telegraf: its ``state`` lives from message to message."""

    def __init__(self, constants: dict[str, Any]) -> None:
        starlark_go.configure_starlark(allow_recursion=True, allow_global_reassign=True)
        text = SCRIPT.read_text()
        assert text.count("load(") == 1
        text = re.sub(r"^load\(.*\)$", "", text, flags=re.M)
        text = re.sub(r"\b(metric|other)\.(name|tags|fields|time)\b", r'\1["\2"]', text)
        text = text.replace("json.decode(", "json_decode(").replace("json.encode(", "json_encode(")
        # Telegraf keeps `state` mutable between calls; here it is handed in each time.
        assert text.count("\nstate = {}\n") == 1
        self._script = _PRELUDE + text.replace("\nstate = {}\n", "\n")
        self._constants = constants
        self._state: dict[str, Any] = {}

    def apply(self, metric: dict[str, Any]) -> dict[str, Any]:
        """``metric`` has name, tags, fields and time (ns); the one that comes out."""
        (one,) = self.all(metric)
        return one

    def all(self, metric: dict[str, Any]) -> list[dict[str, Any]]:
        """Every one that comes out."""
        body = metric["fields"].get("corpo")
        texts: dict[str, Any] = {}
        if isinstance(body, str):
            with contextlib.suppress(ValueError):
                texts[body] = json.loads(body)
        run: Any = starlark_go.Starlark(globals={**self._constants, "decoded_texts": texts})
        run.set(given=metric, kept=self._state)
        script = f"{self._script}\nstate = dict(kept)\nresult = apply(dict(given))\n"
        # Values that come from outside are frozen: copies of the dictionaries can be changed.
        script = script.replace(
            "result = apply(dict(given))",
            "given_copy = dict(given)\n"
            'given_copy["tags"] = dict(given["tags"])\n'
            'given_copy["fields"] = dict(given["fields"])\n'
            "result = apply(given_copy)",
        )
        run.exec(script)
        self._state = run.get("state")
        result = run.get("result")
        return result if isinstance(result, list) else [result]
