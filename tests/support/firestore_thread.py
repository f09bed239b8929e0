"""The stand-in for Firestore on a loop and a thread of its own, for tests that run loops of their own."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.firestore_server import FirestoreServer


@contextmanager
def serving_apart(
    project: str = "test",
    database: str = "(default)",
    prepare: Callable[[FirestoreServer], None] = lambda server: None,
    **options: Any,
) -> Iterator[str]:
    """The address of a listening server; `options` are the constructor's, and `prepare` may set its faults."""
    started, ended = threading.Event(), threading.Event()
    loop = asyncio.new_event_loop()
    addresses: list[str] = []

    async def serve() -> None:
        server = FirestoreServer(project, database, **options)
        prepare(server)
        addresses.append(await server.start())
        started.set()
        await asyncio.to_thread(ended.wait)
        await server.stop()
        await loop.shutdown_default_executor()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert started.wait(60)
        yield addresses[0]
    finally:
        ended.set()
        thread.join(60)
        loop.close()
