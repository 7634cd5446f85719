"""The OpenAPI document says what is served, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from startgate.api.desk import Desk
from startgate.api.document import document
from startgate.api.metrics import Metrics
from startgate.api.server import application
from startgate.inherited import holding
from startgate.journal.reader import Journal
from startgate.testing import make_event
from tests.unit.api import Node, a_life, ask


def test_every_route_and_no_other(tmp_path: Path) -> None:
    desk = Desk(Journal(str(tmp_path)), str(tmp_path), Metrics())
    served = {
        (route.resource and route.resource.canonical, route.method)
        for route in application(desk).router.routes()
    }
    desk.close()
    assert served == {
        (path, method.upper()) for path, methods in document()["paths"].items() for method in methods
    }


def test_all_that_it_refers_to_is_there() -> None:
    text = json.dumps(document())
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names == set(document()["components"]["schemas"])
    assert {"Event", "Container", "Status", "Problem"} <= names


def test_the_parameters() -> None:
    parameters = document()["paths"]["/v1/events"]["get"]["parameters"]
    assert [(one["name"], one["schema"]["type"]) for one in parameters] == [
        ("after", "string"),
        ("since", "string"),
        ("until", "string"),
        ("types", "string"),
        ("container", "string"),
        ("filter", "string"),
        ("limit", "integer"),
        ("follow", "boolean"),
    ]
    assert all(one["description"] for one in parameters)


def test_it_is_openapi() -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(json.loads(json.dumps(document())))


@pytest.mark.parametrize(
    ("asked", "path", "status"),
    [
        ("/v1/containers", "/v1/containers", 200),
        ("/v1/containers/nope", "/v1/containers/{id}", 404),
        ("/v1/history", "/v1/history", 200),
        ("/v1/history?limit=0", "/v1/history", 400),
        ("/v1/status", "/v1/status", 200),
        ("/healthz", "/healthz", 200),
        ("/readyz", "/readyz", 200),
        ("/openapi.json", "/openapi.json", 200),
    ],
)
def test_answers_are_as_it_says(node: Node, asked: str, path: str, status: int) -> None:
    holding.tell(str(node.notes), "table", ["/usr/bin/runc"])
    node.tell(*a_life("c1"), make_event("oom", id="c1"), make_event("lost"))
    found, said = ask(node, asked)
    assert found == status, said
    check(said, document()["paths"][path]["get"]["responses"][str(status)])


def test_events_are_as_it_says(node: Node) -> None:
    node.tell(*a_life("c1"), make_event("oom", id="c1"))
    _, body = ask(node, "/v1/events")
    for line in body.splitlines():
        check(json.loads(line), document()["paths"]["/v1/events"]["get"]["responses"]["200"])


def check(value: Any, response: dict[str, Any]) -> None:
    """Raises ValidationError where it is not what the document says."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = next(iter(response["content"].values()))["schema"]
    components = {"components": {"schemas": document()["components"]["schemas"]}}
    jsonschema.Draft202012Validator(schema | components).validate(value)
