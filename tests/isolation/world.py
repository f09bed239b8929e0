"""The tenants of one check: each with a stock of its own, in a deployment that other checks use, too."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from google.protobuf.message import Message

from bas.devices.v2.devices_service_pb2 import BatchCreateDevicesResponse
from bas.sessions.v2.sessions_service_pb2 import CreateSessionResponse
from bas.users.v2.users_pb2 import User
from tests.isolation.cases import STOCK, VIEW, Owned
from tests.isolation.credentials import bearer
from tests.isolation.deployment import Deployment
from tests.isolation.descriptors import takes
from tests.isolation.wire import Answer, Headers, OverGrpc, OverHttp, Wire, scrubbed

WIRES = ("grpc", "rest")


@dataclass(slots=True)
class World:
    deployment: Deployment
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def wire(self, name: str) -> Wire:
        return OverGrpc(self.deployment) if name == "grpc" else OverHttp(self.deployment)

    def bearer(self, own: Owned, *scopes: str) -> Headers:
        return bearer(self.deployment, own.tenant, *scopes)

    async def tenants(self, service: str, **prefixes: str) -> list[Owned]:
        """One new tenant for each name, with the stock of that service under the given prefix; without a prefix, with
        nothing. Names are of one length, and in nothing else."""
        number = next(self._numbers)
        made = [Owned(f"tenant-{name}-{number:05}", prefix) for name, prefix in prefixes.items()]
        await asyncio.gather(*(self._stock(service, own) for own in made if own.prefix))
        return made

    async def view(self, service: str, own: Owned) -> list[Answer]:
        """What the tenant sees of what it keeps."""
        wire, credential = OverGrpc(self.deployment), self.bearer(own)
        return [await wire.call(takes(request), request, credential) for request in VIEW[service](own)]

    async def unchanged(self, service: str, own: Owned) -> list[bytes | Message]:
        """The view for a comparison with a later one of the same tenant: whatever may not change meanwhile."""
        answers = await self.view(service, own)
        return [
            answer.refusal if answer.response is None else scrubbed(answer.response, times=False) for answer in answers
        ]

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
