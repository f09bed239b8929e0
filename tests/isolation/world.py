"""The tenants of one check: each with a stock of its own, in a deployment that other checks use, too."""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.message import Message

from bas.audit.v2.audit_service_pb2 import BatchAppendEntriesResponse
from bas.devices.v2.devices_service_pb2 import BatchCreateDevicesResponse
from bas.events.v2.events_service_pb2 import PublishEventsResponse
from bas.sessions.v2.sessions_pb2 import Session
from bas.sessions.v2.sessions_service_pb2 import CreateSessionRequest, CreateSessionResponse
from bas.users.v2.users_pb2 import User
from tests.isolation.cases import HAPPENS, STOCK, VIEW, Owned
from tests.isolation.credentials import bearer
from tests.isolation.deployment import Deployment
from tests.isolation.descriptors import takes
from tests.isolation.wire import Answer, Headers, OverEventStream, OverGrpc, OverHttp, Wire, scrubbed

_WIRES: Final[Mapping[str, Callable[[Deployment], Wire]]] = {"grpc": OverGrpc, "rest": OverHttp, "sse": OverEventStream}


def wires(rpc: str) -> tuple[str, ...]:
    """The wires that an RPC is met on."""
    return tuple(_WIRES) if rpc in HAPPENS else ("grpc", "rest")


@dataclass(slots=True)
class World:
    """`label` is in the names of all tenants: deployments share a cache server, and may not share a tenant."""

    deployment: Deployment
    label: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _credentials: dict[tuple[str, ...], Headers] = field(default_factory=dict)

    def wire(self, name: str) -> Wire:
        return _WIRES[name](self.deployment)

    def bearer(self, own: Owned, *scopes: str) -> Headers:
        wanted = (own.tenant, *scopes)
        if wanted not in self._credentials:
            self._credentials[wanted] = bearer(self.deployment, *wanted)
        return self._credentials[wanted]

    async def session(self, own: Owned, *scopes: str) -> str:
        """The token of a new session with those scopes, of a user whom no check is about."""
        request = CreateSessionRequest(session=Session(user_id="visitor", scopes=scopes))
        answer = await OverGrpc(self.deployment).call(takes(request), request, self.bearer(own))
        assert isinstance(answer.response, CreateSessionResponse), answer
        return str(answer.response.token)

    async def tenants(self, service: str, **prefixes: str) -> list[Owned]:
        """One new tenant for each name, with the stock of that service under the given prefix; without a prefix, with
        nothing. Names are of one length, and in nothing else."""
        number = next(self._numbers)
        made = [Owned(f"tenant-{name}-{self.label}-{number:05}", prefix) for name, prefix in prefixes.items()]
        await asyncio.gather(*(self._stock(service, own) for own in made if own.prefix))
        return made

    async def view(self, service: str, own: Owned) -> list[Answer]:
        """What the tenant sees of what it keeps."""
        wire, credential = OverGrpc(self.deployment), self.bearer(own)
        asked = VIEW[service](own)
        return await asyncio.gather(*(wire.call(takes(request), request, credential) for request in asked))

    async def unchanged(self, service: str, own: Owned) -> list[bytes | Message]:
        """The view for a comparison with a later one of the same tenant: whatever may not change meanwhile."""
        answers = await self.view(service, own)
        seen: list[bytes | Message] = []
        for answer in answers:
            seen += (answer.refusal, *(scrubbed(message, times=False) for message in answer.messages))
        return seen

    async def _stock(self, service: str, own: Owned) -> None:
        wire, credential = OverGrpc(self.deployment), self.bearer(own)
        for request in STOCK[service](own):
            answer = await wire.call(takes(request), request, credential)
            if not answer.ok:  # no finding: the check has not begun
                raise RuntimeError(f"no stock for a check: {answer}")
            match answer.response:
                case BatchCreateDevicesResponse() as batch:
                    own.etag = batch.results[0].device.etag
                case User() as user:
                    own.etag = user.etag
                case CreateSessionResponse() as made:
                    own.session_id, own.token = made.session.session_id, made.token
                    own.etag = own.etag or made.session.etag
                case BatchAppendEntriesResponse() as appended:
                    own.entry_id = appended.results[0].appended.entry.entry_id
                case None:
                    exported: Any = answer.stream[1]
                    own.cursor = exported.entry.cursor
                case PublishEventsResponse() as published:
                    own.cursor = published.results[0].cursor
