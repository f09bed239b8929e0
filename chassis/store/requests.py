"""Idempotent creates (AIP-155): the first answer to a `request_id` is kept with what was created, and given again.

The answer is a document written in the same commit as the resource, so there is never one without the other:

    answer = await log.replay(tenant, method, request_id, request)
    if answer is None:
        try:
            await store.commit([Create(…), log.write_for(tenant, method, request_id, request, response)])
        except DocumentExists as taken:
            answer = await log.replay(tenant, method, request_id, request)  # a twin of this call was first
            if answer is None:
                raise already_exists(…) from taken

Whichever key the commit stumbled over, the resource's or the log's, the log is what tells a twin from a stranger.
A batch keeps an answer for each item, under `item_id(request_id, index)`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from google.protobuf.message import Message

from chassis.clock import Clock
from chassis.errors import ApiError, Code
from chassis.store.port import Create, Delete, Document, DocumentStore, Fields, Key, VersionConflict

COLLECTION: Final = "requests"
TTL_FIELDS: Final = MappingProxyType({COLLECTION: "expire_time"})
"""For `Schema.ttl_fields` of every service that keeps answers."""
KEPT: Final = timedelta(hours=24)
"""How long an answer is given again."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A first answer, serialized, and the version of the document that holds it.

    An answer is made before its commit, so it cannot hold what is known only afterwards. Both engines give all creates
    of one commit the same version: `version` is also that of the resource as it was answered, and gives its etag.
    """

    response: bytes
    version: str


class RequestLog:
    """The answers that one service has given, in its own store."""

    __slots__ = ("_now", "_store")

    def __init__(self, store: DocumentStore, clock: Clock) -> None:
        self._store = store
        self._now: Callable[[], datetime] = clock.now

    def write_for(self, tenant: str, method: str, request_id: str, request: Message, response: Message) -> Create:
        """The write that keeps `response`; it belongs into the commit that makes the resource.

        `method` is the RPC's full name. Raises ValueError without a request id: there is nothing to keep then.
        """
        if not request_id:
            raise ValueError("an answer is kept under a request id, and there is none")
        fields: Fields = {
            "fingerprint": _fingerprint(request),
            "response": response.SerializeToString(),
            "expire_time": self._now() + KEPT,
        }
        return Create(_key(tenant, method, request_id), fields)

    async def replay(self, tenant: str, method: str, request_id: str, request: Message) -> bytes | None:
        """The serialized first answer, as it was given to `write_for`, or None; see `find`."""
        kept = await self.find(tenant, method, request_id, request)
        return None if kept is None else kept.response

    async def find(self, tenant: str, method: str, request_id: str, request: Message) -> Kept | None:
        """The first answer, or None when the id is empty or new (or its 24 hours are over).

        Raises ALREADY_EXISTS with reason REQUEST_ID_REUSED when the id came with another request before.
        """
        if not request_id:
            return None
        document = await self._store.get(_key(tenant, method, request_id))
        if document is None:
            return None
        expires, response = document.fields["expire_time"], document.fields["response"]
        # Only write_for writes these documents.
        assert isinstance(expires, datetime)  # noqa: S101
        assert isinstance(response, bytes)  # noqa: S101
        if expires <= self._now():
            await self._forget(document)
            return None
        if document.fields["fingerprint"] != _fingerprint(request):
            raise ApiError(
                Code.ALREADY_EXISTS,
                "REQUEST_ID_REUSED",
                "This request_id was used for another request: make a new one for each call that is not a repetition.",
            )
        return Kept(response, document.version)

    async def _forget(self, kept: Document) -> None:
        """Engines delete what has expired when they come to it; until then it would stand in the way of a new Create."""
        try:
            await self._store.commit([Delete(kept.key, version=kept.version)])
        except VersionConflict:
            return  # a twin was faster; its commit or ours will win at the Create


def item_id(request_id: str, index: int) -> str:
    """The request id of one item of a batch; empty for an empty one. No caller's own id has a slash in it."""
    return f"{request_id}/{index}" if request_id else ""


def _key(tenant: str, method: str, request_id: str) -> Key:
    return Key(tenant, COLLECTION, sha256(f"{method}\n{request_id}".encode()).hexdigest())


def _fingerprint(request: Message) -> bytes:
    return sha256(request.SerializeToString(deterministic=True)).digest()
