"""The kinds of outputs. A new kind is one file with a ``make`` and one row here."""

from __future__ import annotations

from importlib import import_module

from services.publisher.outputs.base import Desk, Output
from services.runtime.process import Process

# Imported when it is used: an MQTT output needs no HTTP client.
KINDS = {
    "mqtt": "services.publisher.outputs.mqtt",
    "http": "services.publisher.outputs.http",
    "sparkplug": "services.publisher.outputs.sparkplug",
    "stdout": "services.publisher.outputs.stdout",
    "opcua": "services.publisher.opcua.output",
}


def make(process: Process, desk: Desk) -> Output:
    """The output that the process's configuration asks for."""
    module = import_module(KINDS[process.config["output"]["type"]])
    output: Output = module.make(process, desk)
    return output
