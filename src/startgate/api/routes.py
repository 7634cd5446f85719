"""The routes, each once: what is served, and what the OpenAPI document says, are both made of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
from aiohttp import web
from msgspec import UNSET

from startgate.api import model, query
from startgate.api.desk import Desk, Refused
from startgate.api.stream import EVENT_STREAM, JSON_LINES, stream_events
from startgate.errors import StartgateError

JSON = "application/json"
METRICS = "text/plain; version=0.0.4; charset=utf-8"


class Visit(NamedTuple):
    """A request, and who makes it."""

    desk: Desk
    request: web.Request
    uid: int

    def asked(self, kind: type[query.Q]) -> query.Q:
        """Return the parameters. Raises Refused."""
        try:
            return query.decode(self.request.query.items(), kind)
        except StartgateError as error:
            raise Refused(400, str(error)) from error


Handler = Callable[[Visit], Awaitable[web.StreamResponse]]


class Answer(NamedTuple):
    """An answer: what it says, and of which type."""

    says: str
    kind: Any = UNSET
    """A type of `model`; UNSET: text."""
    media: tuple[str, ...] = (JSON,)


class Route(NamedTuple):
    """A path, who answers, and how."""

    path: str
    name: str
    handler: Handler
    summary: str
    answers: dict[int, Answer]
    parameters: type[msgspec.Struct] = query.Nothing


def answer(value: object, status: int = 200) -> web.Response:
    """Return an answer in JSON."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type=JSON)


async def _containers(visit: Visit) -> web.StreamResponse:
    return answer(await visit.desk.containers(visit.asked(query.ContainersQuery).filter))


async def _container(visit: Visit) -> web.StreamResponse:
    oci = visit.asked(query.OneContainer).oci
    if oci and visit.uid != 0:
        raise Refused(403, "config.json has the container's environment: only root may ask for it")
    return answer(await visit.desk.container(visit.request.match_info["id"], oci=oci))


async def _events(visit: Visit) -> web.StreamResponse:
    return await stream_events(visit.desk, visit.request, visit.asked(query.Events))


async def _history(visit: Visit) -> web.StreamResponse:
    return answer(await visit.desk.history(visit.asked(query.HistoryQuery)))


async def _status(visit: Visit) -> web.StreamResponse:
    visit.asked(query.Nothing)
    return answer(await visit.desk.status())


async def _healthy(visit: Visit) -> web.StreamResponse:
    visit.asked(query.Nothing)
    return answer(model.Health(ok=True))


async def _ready(visit: Visit) -> web.StreamResponse:
    visit.asked(query.Nothing)
    ready = await visit.desk.ready()
    return answer(ready, 200 if ready.ok else 503)


async def _metrics(visit: Visit) -> web.StreamResponse:
    visit.asked(query.Nothing)
    return web.Response(body=await visit.desk.metrics(), headers={"Content-Type": METRICS})


async def _document(visit: Visit) -> web.StreamResponse:
    from startgate.api.document import document  # noqa: PLC0415  (it reads this table)

    visit.asked(query.Nothing)
    return answer(document())


ROUTES = (
    Route(
        "/v1/containers",
        "listContainers",
        _containers,
        "The containers that are there now",
        {200: Answer("What `startgate ps` shows.", model.Containers)},
        query.ContainersQuery,
    ),
    Route(
        "/v1/containers/{id}",
        "getContainer",
        _container,
        "Everything about one container",
        {
            200: Answer("What `startgate inspect` shows.", model.Running),
            403: Answer("Only root may ask for config.json."),
            404: Answer("There is no such container."),
            409: Answer("Several are meant."),
        },
        query.OneContainer,
    ),
    Route(
        "/v1/events",
        "streamEvents",
        _events,
        "Events, as JSON lines or as server-sent events, from the journal and as they come",
        {
            200: Answer(
                "Each line is an event with its `cursor`; of server-sent events the `id` is the cursor.",
                model.Received,
                (JSON_LINES, EVENT_STREAM),
            ),
            410: Answer("What came after the cursor is not kept any more."),
        },
        query.Events,
    ),
    Route(
        "/v1/history",
        "listStarts",
        _history,
        "Starts of containers, each with how it ended",
        {200: Answer("Starts, the earliest first.", model.History)},
        query.HistoryQuery,
    ),
    Route(
        "/v1/status",
        "getStatus",
        _status,
        "How the daemon and its agent are",
        {200: Answer("So.", model.Status)},
    ),
    Route(
        "/healthz", "getHealth", _healthy, "Does the agent answer?", {200: Answer("It does.", model.Health)}
    ),
    Route(
        "/readyz",
        "getReadiness",
        _ready,
        "Does the daemon hold starts now?",
        {200: Answer("It does.", model.Health), 503: Answer("It does not.", model.Health)},
    ),
    Route(
        "/metrics",
        "getMetrics",
        _metrics,
        "Metrics, for Prometheus",
        {200: Answer("docs/api.md lists them.", UNSET, (METRICS,))},
    ),
    Route(
        "/openapi.json",
        "getDocument",
        _document,
        "This document",
        {200: Answer("OpenAPI 3.1.", dict[str, Any])},
    ),
)

REFUSALS = {
    400: "A parameter is wrong.",
    503: "The journal or the host can't be looked at now, or too many ask at once.",
}
"""What each route may answer, besides its own. 401 and 405 need no word of ours."""
