"""docs/configuration.md is what the models say."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from services.runtime import config, config_doc

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def test_the_page_is_current() -> None:
    message = "run: python -m services.runtime.config_doc > docs/configuration.md"
    assert PAGE.read_text() == config_doc.page(), message


def test_every_model_is_on_the_page() -> None:
    shown = {model for _, model in config_doc.SECTIONS}
    abstract = {config.Model, config.Endpoint, config.OutputBase}
    for value in vars(config).values():
        if isinstance(value, type) and issubclass(value, BaseModel) and value is not BaseModel:
            assert value in shown | abstract, value
