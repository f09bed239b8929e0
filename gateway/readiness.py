"""Which upstreams are ready, asked in the background so that a probe never waits."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from chassis.clock import Clock
from gateway.upstream import Upstreams

_LOG: Final = logging.getLogger("bas.gateway")
INTERVAL: Final = 0.5
TIMEOUT: Final = 1.0


class Readiness:
    """Polls `grpc.health.v1` of every upstream; `services` maps its name to the full gRPC names to ask for."""

    def __init__(self, upstreams: Upstreams, services: Mapping[str, tuple[str, ...]], clock: Clock) -> None:
        self._upstreams = upstreams
        self._services = services
        self._clock = clock
        self._ready: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self.targets = tuple(upstreams.names())

    def waiting(self) -> list[str]:
        """The targets that are not ready."""
        return [name for name in self.targets if name not in self._ready]

    def start(self) -> None:
        """Begin to ask, in the running loop."""
        self._tasks = [asyncio.create_task(self._poll(name), name=f"readiness-{name}") for name in self.targets]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _poll(self, name: str) -> None:
        upstream = self._upstreams[name]
        while True:
            try:
                answers = [await upstream.ready(service, TIMEOUT) for service in self._services.get(name, ("",))]
            except Exception:  # noqa: BLE001 - the outermost layer of this task: were it to end, the answer would stay what it is
                _LOG.exception("the readiness of %s cannot be asked for", name)
                answers = [False]
            if all(answers):
                self._ready.add(name)
            else:
                self._ready.discard(name)
            await self._clock.sleep(INTERVAL)
