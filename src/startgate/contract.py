"""The JSON schema of events, made of their types."""

from __future__ import annotations

import json

import msgspec

from startgate.events import VERSION, Event

TITLE = "startgate events, version {}"


def text() -> str:
    """Return the schema (JSON Schema 2020-12), for people to read and for tools."""
    schema = msgspec.json.schema(Event)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TITLE.format(VERSION),
    }
    return json.dumps(head | schema, indent=1, sort_keys=False) + "\n"
