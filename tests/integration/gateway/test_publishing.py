"""Events over HTTP, in the JSON of the API and in that of CloudEvents."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.integration.gateway.fake_streams import serve_streams
from tests.integration.gateway.streaming import Running, gateway
from tests.support import patience

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
OURS, SINGLE, BATCH = "application/json", "application/cloudevents+json", "application/cloudevents-batch+json"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Running]:
    async with serve_streams() as services, gateway(services) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def http(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    running.services.reset()
    async with running.client(**patience.HEADERS) as client:
        yield client


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (OURS, {"events": [EVENT | {"extensions": {"shop": "x"}}]}),
        (SINGLE, EVENT | {"shop": "x"}),
        (f"{SINGLE}; charset=UTF-8", EVENT | {"shop": "x"}),
        (BATCH, [EVENT | {"shop": "x"}]),
    ],
)
async def test_the_forms_of_an_event(http: httpx.AsyncClient, running: Running, kind: str, body: Any) -> None:
    answer = await http.post("/api/events", json=body, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["cursor"]) == (200, "c1")
    (event,) = running.services.requests[0].events
    assert (event.id, event.extensions["shop"].string_value) == ("1", "x")


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        (OURS, EVENT, "specversion"),
        (OURS, {"events": [EVENT | {"shop": "x"}]}, "events[0].shop"),
        (SINGLE, [EVENT], "body"),
        (BATCH, EVENT, "body"),
        (SINGLE, EVENT | {"time": "now"}, "events[0].time"),
    ],
)
async def test_one_form_is_not_another(http: httpx.AsyncClient, kind: str, body: Any, field: str) -> None:
    answer = await http.post("/api/events", json=body, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)


async def test_other_media_types_are_refused(http: httpx.AsyncClient) -> None:
    for kind in ("text/plain", f"{SINGLE}; charset=latin-1", "application/cloudevents+xml", ""):
        answer = await http.post("/api/events", content=b"{}", headers={"content-type": kind})
        assert answer.status_code == 415
        assert answer.headers["accept-post"] == f"{OURS}, {SINGLE}, {BATCH}"
    answer = await http.post("/api/audit/entries", content=b"{}", headers={"content-type": SINGLE})
    assert (answer.status_code, answer.headers["accept-post"]) == (415, OURS)
