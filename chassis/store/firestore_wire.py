"""The RPCs of google.firestore.v1 that the store uses, one attempt each, on the channel of Google's own client.

The client library opens the channel: project, credentials, their renewal, and FIRESTORE_EMULATOR_HOST. Above it, calls go
past the library's wrappers, whose message classes cost several times the CPU of the call, and whose retries do not
end at a deadline. Every method here is one RPC with a time limit in seconds, and raises grpc.aio.AioRpcError.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

from google.api_core.gapic_v1 import client_info, routing_header
from google.cloud.firestore_v1 import AsyncClient
from google.cloud.firestore_v1.types import firestore as rpc

from chassis.store.firestore_names import COMMIT

_SERVICE: Final = "/google.firestore.v1.Firestore/"
_BatchGet: Final[Any] = rpc.BatchGetDocumentsRequest.pb()
_CommitRequest: Final[Any] = rpc.CommitRequest.pb()
_RunQuery: Final[Any] = rpc.RunQueryRequest.pb()
_Aggregate: Final[Any] = rpc.RunAggregationQueryRequest.pb()
_COUNTED: Final = "count"


class Wire:
    """The calls to one database. `documents` is the prefix of every document's name, without the slash."""

    def __init__(self, client: AsyncClient) -> None:
        self.database: str = client._database_string  # noqa: SLF001 - the library has no public name for it
        self.documents = f"{self.database}/documents"
        self._transport: Any = client._firestore_api.transport  # noqa: SLF001 - the library has no public name for it
        info: Any = client_info
        routing: Any = routing_header
        self._metadata = (
            *client._rpc_metadata,  # noqa: SLF001 - as above
            info.ClientInfo().to_grpc_metadata(),
            routing.to_grpc_metadata((("database", self.database),)),
        )
        channel = self._transport.grpc_channel
        self._batch_get = _stream(channel, "BatchGetDocuments", rpc.BatchGetDocumentsResponse)
        self._run_query = _stream(channel, "RunQuery", rpc.RunQueryResponse)
        self._aggregate = _stream(channel, "RunAggregationQuery", rpc.RunAggregationQueryResponse)
        self._commit = channel.unary_unary(
            _SERVICE + "Commit",
            request_serializer=_CommitRequest.SerializeToString,
            response_deserializer=rpc.CommitResponse.pb().FromString,
        )

    @classmethod
    async def open(cls, project: str, database: str) -> "Wire":
        """Raises google.auth.exceptions.GoogleAuthError when there are no credentials. Connects to nothing yet.

        Looking for credentials reads files and may ask the machine's metadata server, so it is done on a thread.
        """
        return cls(await asyncio.to_thread(AsyncClient, project=project, database=database))

    async def batch_get(self, names: Iterable[str], seconds: float, *, marker_only: bool = False) -> list[Any]:
        """BatchGetDocumentsResponse messages, in any order. `marker_only` asks for no field but the commit's id."""
        request = _BatchGet(database=self.database, documents=names)
        if marker_only:
            request.mask.field_paths.append(COMMIT)
        return [answer async for answer in self._batch_get(request, timeout=seconds, metadata=self._metadata)]

    async def commit(self, writes: Sequence[Any], seconds: float) -> Any:
        """The CommitResponse."""
        request = _CommitRequest(database=self.database, writes=writes)
        return await self._commit(request, timeout=seconds, metadata=self._metadata)

    async def run_query(self, parent: str, query: Any, seconds: float) -> list[Any]:
        """RunQueryResponse messages, in order; some hold no document."""
        request = _RunQuery(parent=parent, structured_query=query)
        return [answer async for answer in self._run_query(request, timeout=seconds, metadata=self._metadata)]

    async def count(self, parent: str, query: Any, seconds: float) -> int:
        """How many documents the query finds, counted by the server."""
        request = _Aggregate(parent=parent)
        asked = request.structured_aggregation_query
        asked.structured_query.CopyFrom(query)
        counted = asked.aggregations.add(alias=_COUNTED)
        counted.count.SetInParent()
        answers = [each async for each in self._aggregate(request, timeout=seconds, metadata=self._metadata)]
        return sum(int(answer.result.aggregate_fields[_COUNTED].integer_value) for answer in answers)

    async def close(self) -> None:
        await self._transport.close()


def _stream(channel: Any, method: str, response: Any) -> Any:
    request = getattr(rpc, f"{method}Request").pb()
    return channel.unary_stream(
        _SERVICE + method,
        request_serializer=request.SerializeToString,
        response_deserializer=response.pb().FromString,
    )
