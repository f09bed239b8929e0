"""A tenant's log from the audit service into a file, over as many connections as it takes."""

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from bas.audit.v2 import audit_service_pb2
from chassis.auth.tokens import Grant, mint
from chassis.channel import Client
from chassis.clock import Clock
from chassis.config import Config
from chassis.errors import ApiError, Code
from chassis.interceptors.stream import StreamCall
from chassis.telemetry.metrics import Metrics
from gateway.transcoding.codec import JsonType, load_codec
from launcher import keys
from launcher.audit.partial import Partial
from launcher.audit.progress import Progress
from launcher.failure import Failure, misuse
from launcher.targets import address_of

PATH: Final = "/bas.audit.v2.AuditService/ExportEntries"
_FILES: Final = ("bas/audit/v2/audit.proto", "bas/audit/v2/audit_service.proto")
_ATTEMPTS: Final = 6
"""In a row that bring nothing."""
_PAUSE: Final = 1.0
_SIGNED_WITHIN: Final = 10.0
"""Seconds beyond the interval of checkpoints, in which a log gets its first."""
_FLUSH: Final = 1000
_TTL: Final = 300.0
_GIVEN_UP: Final = frozenset({Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.UNIMPLEMENTED, Code.DATA_LOSS})

_Token = Callable[[], str]


async def download(config: Config, tenant: str, output: Path, clock: Clock, progress: Progress) -> int:
    """Write the log to `output`, and return how many entries it has. Raises Failure, OSError."""
    key_set = keys.existing(config)

    def token() -> str:
        grant = Grant(tenant, "bas-audit-export", ("audit:read",), min(_TTL, float(config.auth.max_ttl)))
        try:
            return mint(key_set, config.auth, grant, clock.now())
        except ValueError as problem:
            raise misuse(f"{problem}.") from None

    token()  # a tenant that is none is found before a file is made
    client = Client(
        address_of(config, "audit"),
        config=config.grpc,
        deadline=config.deadline,
        metrics=Metrics(),
        clock=clock,
        random=random.random,
    )
    patience = float(config.audit.checkpoint_interval) + _SIGNED_WITHIN
    try:
        with Partial(output) as part:
            if part.entries:
                progress.say(f"going on after {part.entries} of {part.size} entries")
            exporting = Exporting(client.stream(PATH), part, token, progress, clock.sleep, patience)
            await exporting.run()
            return part.entries
    finally:
        await client.close()


class Exporting:
    """`patience` is how many seconds to wait for the first checkpoint of a log."""

    def __init__(
        self,
        call: StreamCall,
        part: Partial,
        token: _Token,
        progress: Progress,
        sleep: Callable[[float], Awaitable[None]],
        patience: float,
    ) -> None:
        self._call = call
        self._part = part
        self._token = token
        self._progress = progress
        self._sleep = sleep
        self._patience = patience
        self._type: JsonType = load_codec(_FILES)["bas.audit.v2.ExportEntriesResponse"]

    async def run(self) -> None:
        """Raises Failure when the log cannot be had; what there is of it is kept."""
        part, attempts = self._part, 0
        while not part.complete:
            before = part.entries
            try:
                await self._connection()
            except ApiError as problem:
                attempts = 0 if part.entries > before else attempts + 1
                await self._again(problem, attempts)
        part.finish()

    async def _connection(self) -> None:
        """As much as one connection brings. Raises ApiError."""
        part = self._part
        request = audit_service_pb2.ExportEntriesRequest(cursor=part.cursor).SerializeToString()
        try:
            async with self._call(request, (("authorization", f"Bearer {self._token()}"),)) as stream:
                async for message in stream:
                    part.take(self._type.from_binary(message).json())
                    if not part.entries % _FLUSH:
                        part.flush()
                    self._progress.tell(part.entries, part.size)
        finally:
            part.flush()
        if not part.complete:
            raise ApiError(Code.UNAVAILABLE, "EXPORT_CUT", "The export ended before its end.")

    async def _again(self, problem: ApiError, attempts: int) -> None:
        """Wait, or give up."""
        if problem.reason == "CHECKPOINT_NOT_FOUND" and not self._part.entries:
            if self._patience <= 0:
                raise Failure(
                    "the log has no checkpoint: it is empty, or the audit service cannot sign (`bas status`)."
                ) from None
            self._progress.say("waiting for the log's first checkpoint")
            self._patience -= _PAUSE
        elif problem.code is Code.INVALID_ARGUMENT and self._part.entries:
            self._progress.say(
                f"what was exported before is of another log, or too old ({problem.message}): beginning anew"
            )
            self._part.clear()
        elif problem.code in _GIVEN_UP or attempts >= _ATTEMPTS:
            kept = (
                f" {self._part.entries} entries are kept: give the same command again to go on."
                if self._part.entries
                else ""
            )
            raise Failure(
                f"the export failed: {problem.message} (`bas status` shows how the audit service is.){kept}"
            ) from None
        else:
            self._progress.say(f"interrupted after {self._part.entries} entries ({problem.reason}): trying again")
        await self._sleep(_PAUSE)
