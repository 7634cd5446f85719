"""The JSON schema of events, made of their types."""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec

from startgate.events import VERSION, Event

TITLE = "startgate events, version {}"


def text() -> str:
    """Return the schema (JSON Schema 2020-12), for people to read and for tools."""
    schema = _undented(msgspec.json.schema(Event))
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TITLE.format(VERSION),
    }
    return json.dumps(head | schema, indent=1, sort_keys=False) + "\n"


def _undented(schema: Any) -> Any:
    """Docstrings as they are meant: before Python 3.13 they keep their indentation."""
    if isinstance(schema, dict):
        clean = {key: _undented(value) for key, value in schema.items()}
        if isinstance(schema.get("description"), str):
            clean["description"] = inspect.cleandoc(schema["description"])
        return clean
    return [_undented(value) for value in schema] if isinstance(schema, list) else schema
