"""docs/configuration.md is what the models say."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from services.runtime import central_config, config, config_doc
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
    abstract = {config.Model, config.Endpoint, config.OutputBase, OpcuaServing}
    for value in (*vars(config).values(), *vars(central_config).values()):
        if isinstance(value, type) and issubclass(value, BaseModel) and value is not BaseModel:
            assert value in shown | abstract, value
