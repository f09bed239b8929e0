"""Refused calls as entries of the audit log: one for each kind of refusal and window, written when the window ends.

A service commits them to its own outbox; who has no store hands them to the audit service itself. While that fails they
wait here. When enough wait, the window goes on in place of a new one: its tallies count on, and memory stays bounded.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import groupby
from typing import Final

import structlog
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from bas.audit.v2.audit_pb2 import OUTCOME_DENIED, Entry
from bas.audit.v2.audit_service_pb2 import AppendEntryRequest
from chassis.auth.refusals import IN_ALL, Refusal, Refusals, Tally
from chassis.clock import Clock
from chassis.errors import ApiError
from chassis.outbox.blocks import is_away
from chassis.outbox.entries import fitting, is_id
from chassis.outbox.port import AUDIT, Deliver, Effect, Outbox
from chassis.store.port import DocumentExists, DocumentStore

ACTION: Final = "access.refused"
WAITING: Final = 2 * IN_ALL
"""Entries that may wait before the window is held open for those after them. At most as many more come then."""

_TOGETHER: Final = 250
_LANE: Final = "refusals"
_RESOURCE: Final = "method"
_LAST_WRITE: Final = 1.5
"""Seconds for what is left when the process stops."""

Write = Callable[[Sequence[Effect]], Awaitable[list[Effect]]]
"""Puts effects where they will not be lost, and returns those to be tried again later, in the order to try them in."""


class RefusalLog:
    """The refusals that one target of a process has counted, on their way to the log. `name` is the target's.

    Ids are made of the process's run, the window and what was counted, once: whatever is written again is the same.
    """

    def __init__(
        self,
        name: str,
        refusals: Refusals,
        write: Write,
        clock: Clock,
        interval: float,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._name = name
        self._refusals = refusals
        self._write = write
        self._clock = clock
        self._interval = interval
        self._run = random_bytes(32)
        self._window = 0
        self._waiting: list[Effect] = []

    async def run(self) -> None:
        """Flush whenever a window has passed, for as long as the process serves."""
        while True:
            await self._clock.sleep(self._interval)
            await self.flush()

    async def flush(self) -> None:
        """End the window, and write what waits. Never raises for what the store or the audit service says."""
        if len(self._waiting) < WAITING and self._refusals.size:
            self._window += 1
            self._waiting += self._effects(self._refusals.take())
        if self._waiting:
            self._waiting = await self._write(self._waiting)

    async def close(self) -> None:
        """Write what there is, once `run` has ended; what cannot be written in time is lost, and counted."""
        try:
            async with asyncio.timeout(_LAST_WRITE):
                await self.flush()
        except TimeoutError:
            pass
        if self._waiting or self._refusals.size:
            # Maybe some of them have been written: a lost answer looks like this, too.
            structlog.get_logger("bas.audit").warning("refusals not recorded", entries=len(self._waiting))
            self._refusals.lost(len(self._waiting) + self._refusals.size)

    @property
    def waiting(self) -> int:
        """Entries that could not be written yet."""
        return len(self._waiting)

    def _effects(self, counted: Mapping[Refusal, Tally]) -> list[Effect]:
        made = [
            Effect(
                self._id(refusal),
                AUDIT,
                refusal.tenant,
                _LANE,
                AppendEntryRequest(entry=_entry(self._name, refusal, tally)).SerializeToString(),
            )
            for refusal, tally in counted.items()
        ]
        return sorted(made, key=lambda effect: effect.tenant)

    def _id(self, refusal: Refusal) -> str:
        """Tells nothing of whom it is: it outlives their personal data."""
        about = "\n".join((str(self._window), *refusal)).encode()
        return f"refused-{hmac.digest(self._run, about, 'sha256').hex()[:40]}"


def committing(store: DocumentStore, outbox: Outbox) -> Write:
    """Into the outbox of the service that has refused: delivered when the audit service is there."""

    async def write(effects: Sequence[Effect]) -> list[Effect]:
        for start in range(0, len(effects), _TOGETHER):
            writes = outbox.records(effects[start : start + _TOGETHER])
            if not writes:
                continue
            try:
                await store.commit(writes)
            except DocumentExists:
                continue  # the answer of an earlier try was lost, and all of it is there
            except ApiError as failure:
                _say(failure, len(effects) - start)
                return list(effects[start:])
            finally:
                outbox.wake()
        return []

    return write


def delivering(deliver: Deliver, refusals: Refusals) -> Write:
    """To the audit service, a call for each tenant: for who has no store. It is not asked again in the same round once it
    is away; what it refuses is not tried again."""

    async def write(effects: Sequence[Effect]) -> list[Effect]:
        failed: list[Effect] = []
        tenants = [list(some) for _, some in groupby(effects, key=lambda effect: effect.tenant)]
        for at, some in enumerate(tenants):
            try:
                answers = await deliver(some)
            except (ApiError, DecodeError) as failure:
                answers = [failure] * len(some)
            for effect, answer in zip(some, answers, strict=True):
                if answer is not None and is_away(answer):
                    failed.append(effect)
                elif answer is not None:
                    _say(answer, 1)
                    refusals.lost(1)
            if failed:
                untried = [effect for each in tenants[at + 1 :] for effect in each]
                _say(next(answer for answer in answers if answer is not None), len(untried) + len(failed))
                # Behind the others: whatever one tenant's trouble is, the next round begins with somebody else.
                return [*untried, *failed]
        return []

    return write


def _entry(name: str, refusal: Refusal, tally: Tally) -> Entry:
    made = Entry(action=ACTION, outcome=OUTCOME_DENIED, reason=refusal.reason)
    made.actor.subject = fitting(refusal.subject) if refusal.subject else f"service:{name}"
    if is_id(refusal.session_id):
        made.actor.session_id = refusal.session_id
    made.resource.type, made.resource.id = _RESOURCE, refusal.method.removeprefix("/")[:128]
    if is_id(tally.request_id):
        made.request_id = tally.request_id
    made.occur_time.FromDatetime(tally.first)
    last = Timestamp()
    last.FromDatetime(tally.last)
    made.metadata.update(
        count=str(tally.count), first=made.occur_time.ToJsonString(), last=last.ToJsonString(), recordedBy=name
    )
    return made


def _say(failure: BaseException, entries: int) -> None:
    structlog.get_logger("bas.audit").warning("refusals not recorded yet", entries=entries, failure=str(failure))
