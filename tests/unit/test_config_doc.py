"""docs/configuration.md is what the models say."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel

from services.protocols.s7 import model as s7
from services.runtime import central_config, config, config_doc, plc_model
from services.runtime.opcua_model import OpcuaServing

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_current() -> None:
    message = "run: python -m services.runtime.config_doc > docs/configuration.md"
    assert (DOCS / "configuration.md").read_text() == config_doc.page(), message


def test_the_page_of_the_centre_is_current() -> None:
    message = "run: python -m services.runtime.config_doc central > docs/central-configuration.md"
    assert (DOCS / "central-configuration.md").read_text() == config_doc.central_page(), message


def test_every_model_is_on_a_page() -> None:
    shown = {model for _, model in (*config_doc.SECTIONS, *config_doc.CENTRAL_SECTIONS)}
    abstract = {
        config.Model,
        s7.Endpoint,
        config.OutputBase,
        config.BrokerOutput,
        OpcuaServing,
        plc_model.PlcBase,
        plc_model.GroupBase,
    }
    of_protocols = [vars(sys.modules[m.__module__]) for m in config.PROTOCOLS]
    pages = (vars(config), vars(central_config), *of_protocols)
    for value in (value for page in pages for value in page.values()):
        if isinstance(value, type) and issubclass(value, BaseModel) and value is not BaseModel:
            assert value in shown | abstract, value
