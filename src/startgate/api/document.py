"""The OpenAPI document: made of the table of routes, and of the types that they decode and encode."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET

import startgate
from startgate.api import model
from startgate.api.routes import REFUSALS, ROUTES, Answer, Route

_COMPONENTS = "#/components/schemas/{name}"
_PROBLEM = "application/problem+json"


def document() -> dict[str, Any]:
    """Return the document, as JSON has it."""
    kinds = [kind for route in ROUTES for each in route.answers.values() if (kind := each.kind) is not UNSET]
    schemas, components = msgspec.json.schema_components(
        [model.Problem, *kinds, *(route.parameters for route in ROUTES)], ref_template=_COMPONENTS
    )
    problem, found = schemas[0], iter(schemas[1 : len(kinds) + 1])
    paths = {}
    for route in ROUTES:
        answers = {
            status: (answer, None if answer.kind is UNSET else next(found))
            for status, answer in route.answers.items()
        }
        paths[route.path] = {"get": _operation(route, answers, problem, components)}
    used = {name: _plain(schema) for name, schema in components.items() if not _is_parameters(name)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "startgate",
            "version": startgate.__version__,
            "summary": "Every container start and stop of a node, from its agent",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": used},
    }


def _is_parameters(name: str) -> bool:
    return name in {route.parameters.__name__ for route in ROUTES}


def _operation(
    route: Route,
    answers: dict[int, tuple[Answer, Any]],
    problem: dict[str, Any],
    components: dict[str, Any],
) -> dict[str, Any]:
    responses = {}
    for status, (answer, schema) in answers.items():
        responses[str(status)] = (
            _response(answer.says, answer.media, schema)
            if status < 400 or schema
            else (_response(answer.says, (_PROBLEM,), problem))
        )
    for status, says in REFUSALS.items():
        if str(status) not in responses:
            responses[str(status)] = _response(says, (_PROBLEM,), problem)
        else:  # /readyz: not ready, or refused
            responses[str(status)]["content"] |= _response(says, (_PROBLEM,), problem)["content"]
    return {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": [*_in_path(route.path), *_in_query(components[route.parameters.__name__])],
        "responses": responses,
    }


def _response(says: str, media: Sequence[str], schema: dict[str, Any] | None) -> dict[str, Any]:
    content = {name: {"schema": {"type": "string"} if schema is None else schema} for name in media}
    if "text/event-stream" in content:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {"description": says, "content": content}


def _in_path(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"{(\w+)}", path)
    ]


def _in_query(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Each is optional, so what may be null may be absent."""
    found = []
    for name, schema in parameters["properties"].items():
        options = [each for each in schema.get("anyOf", [schema]) if each != {"type": "null"}]
        kind = {
            key: value for key, value in (schema | options[0]).items() if key not in ("anyOf", "description")
        }
        if kind.get("default", ...) is None:
            del kind["default"]
        described = schema.get("description") or options[0].get("description", "")
        found.append({"name": name, "in": "query", "description": described, "schema": kind})
    return found


def _plain(schema: Any) -> Any:
    """Docstrings as they are meant: before Python 3.13 they keep their indentation."""
    if isinstance(schema, dict):
        plain = {key: _plain(value) for key, value in schema.items()}
        if isinstance(schema.get("description"), str):
            plain["description"] = inspect.cleandoc(schema["description"])
        return plain
    return [_plain(each) for each in schema] if isinstance(schema, list) else schema
