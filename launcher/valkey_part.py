"""The embedded Valkey as a part of the supervised platform."""

from pathlib import Path
from typing import Final

from chassis.clock import Clock
from launcher.supervisor import PartError
from launcher.valkey import EmbeddedValkey, ValkeyError

VALKEY: Final = "valkey"


class ValkeyPart:
    """Keeps its address over restarts, so that the services' clients find it again."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._server = EmbeddedValkey(folder, clock=clock)

    @property
    def name(self) -> str:
        return VALKEY

    @property
    def url(self) -> str:
        return self._server.url

    async def start(self) -> None:
        try:
            await self._server.start()
        except ValkeyError as problem:
            raise PartError(f"{problem} Or set BAS_REDIS_URL to a server of your own.") from None

    async def wait(self) -> int:
        return await self._server.wait()

    async def stop(self, *, grace: float) -> None:
        await self._server.stop(grace=grace)
