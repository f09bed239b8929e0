"""Baseline: event streams as a careful team writes them by hand: sse-starlette on uvicorn, a bounded queue per client.

`python -m bench.baselines.sse PORT`. `GET /stream` follows; `POST /publish` takes a JSON array of events and puts each into
every queue: no log, no check, no credential, which is all in its favour.
"""

import asyncio
import json
import resource
import sys
from collections.abc import AsyncIterator
from itertools import count

import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_QUEUE = 1024


def build() -> Starlette:
    queues: set[asyncio.Queue[ServerSentEvent]] = set()
    numbers = count(1)

    async def stream(request: Request) -> EventSourceResponse:
        del request
        queue: asyncio.Queue[ServerSentEvent] = asyncio.Queue(_QUEUE)

        async def follow() -> AsyncIterator[ServerSentEvent]:
            queues.add(queue)
            try:
                while True:
                    yield await queue.get()
            finally:
                queues.discard(queue)

        return EventSourceResponse(follow(), ping=15)

    async def publish(request: Request) -> Response:
        for event in json.loads(await request.body()):
            number = next(numbers)
            document = {"specversion": "1.0", **event, "sequence": str(number), "tenantid": "bench"}
            text = json.dumps(document, separators=(",", ":"))
            made = ServerSentEvent(text, event=event["type"], id=f"e1.{number}.AAAAAAAAAAAA")
            for queue in queues:
                queue.put_nowait(made)
        return Response("{}")

    return Starlette(routes=[Route("/stream", stream), Route("/publish", publish, methods=["POST"])])


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvicorn.run(
        build(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=False,
        log_level="warning",
        backlog=4096,
        timeout_graceful_shutdown=1,
    )
