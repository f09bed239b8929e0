"""The gRPC server: four RPCs of `google.firestore.v1.Firestore`, and the control service for tests in other processes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc

from chassis.clock import Clock, SystemClock
from tests.firestore import query as queries
from tests.firestore import wire
from tests.firestore.counts import Attempt, Counts
from tests.firestore.documents import Documents
from tests.firestore.faults import Fault, Faults
from tests.firestore.indexes import Indexes
from tests.firestore.limits import Limits, check_name
from tests.firestore.stored import timestamp
from tests.firestore.values import parse_path
from tests.firestore.wire import Refused, invalid, unsupported

SERVICE = "google.firestore.v1.Firestore"
_ENTRIES_PER_READ = 1000
Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class _Call:
    fault: Fault
    attempt: Attempt


class FirestoreServer(grpc.GenericRpcHandler):
    """One database of one project, in memory.

    `indexes` is a `firestore.indexes.json` (path or content); without one only automatic indexes exist, and `any_query`
    admits every query. `latency` (seconds) is added to each call. `skew` moves the server's clock.
    """

    def __init__(
        self,
        project: str = "test",
        database: str = "(default)",
        *,
        indexes: Path | str | Mapping[str, Any] | None = None,
        any_query: bool = False,
        limits: Limits | None = None,
        latency: float = 0.0,
        clock: Clock | None = None,
    ) -> None:
        self.project = project
        self.database = database
        self.faults = Faults()
        self.counts = Counts()
        self.latency = latency
        self.skew = timedelta()
        self.limits = limits or Limits()
        self.indexes = Indexes(None, any_query=True) if any_query else Indexes.load(indexes)
        self.documents = Documents(f"projects/{project}/databases/{database}/documents", self.limits)
        self.clock = clock or SystemClock()
        self.address = ""
        self._server: grpc.aio.Server | None = None
        self._stopping = asyncio.Event()
        stream, unary = grpc.unary_stream_rpc_method_handler, grpc.unary_unary_rpc_method_handler
        self._handlers: dict[str, Any] = {
            "BatchGetDocuments": stream(self._batch_get),
            "Commit": unary(self._commit),
            "RunQuery": stream(self._run_query),
            "RunAggregationQuery": stream(self._aggregate),
        }

    async def start(self, port: int = 0, *handlers: grpc.GenericRpcHandler) -> str:
        """Listen on loopback; the address, `host:port`."""
        # Twice the limit gets through, so that the refusal is Firestore's and not the transport's.
        options = [("grpc.max_receive_message_length", 2 * self.limits.request_bytes), ("grpc.so_reuseport", 0)]
        self._server = grpc.aio.server(handlers=[self, *handlers], options=options)
        self.address = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"
        await self._server.start()
        return self.address

    async def stop(self, grace: float = 0.0) -> None:
        """End hanging calls, too."""
        self._stopping.set()
        if self._server is not None:
            await self._server.stop(grace)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        service, _, rpc = handler_call_details.method.lstrip("/").partition("/")
        if service != SERVICE:
            return None
        if rpc not in self._handlers:
            self.counts.rpcs[rpc] += 1
            return None  # UNIMPLEMENTED
        return self._handlers[rpc]

    @asynccontextmanager
    async def _call(self, rpc: str, request: Any, context: Context) -> AsyncIterator[_Call]:
        """Count the call, let its fault befall it, and turn a refusal into its status."""
        call = _Call(
            self.faults.take(rpc, request) or Fault(),
            Attempt(rpc, self.clock.monotonic(), context.time_remaining()),
        )
        self.counts.rpcs[rpc] += 1
        self.counts.attempts.append(call.attempt)
        outcome = "UNKNOWN"
        try:
            if delay := self.latency + call.fault.latency:
                await asyncio.sleep(delay)
            if not (call.fault.after or call.fault.results is not None):
                await self._strike(call.fault)
            yield call
            outcome = "OK"
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "CANCELLED"
            raise
        except Refused as refused:
            outcome = refused.code.name
            call.attempt.end(outcome, self.clock.monotonic())
            await context.abort(refused.code, refused.message)
        finally:
            call.attempt.end(outcome, self.clock.monotonic())

    async def _strike(self, fault: Fault) -> None:
        if fault.hang:
            await self._stopping.wait()
            raise Refused(grpc.StatusCode.UNAVAILABLE, "The server stops.")
        if fault.code is not None:
            raise Refused(fault.code, fault.message)

    async def _answers(self, answers: list[Any], call: _Call) -> AsyncIterator[bytes]:
        """The stream, as far as the fault lets it."""
        struck = call.fault.after or call.fault.results is not None
        for number, answer in enumerate(answers, 1):
            if call.fault.results is not None and number > call.fault.results:
                break
            if number == len(answers) and not struck:
                call.attempt.end("OK", self.clock.monotonic())
            yield answer.SerializeToString()
        if struck:
            await self._strike(call.fault)

    def _check_database(self, name: str) -> None:
        parts = name.split("/")
        if len(parts) < 4 or parts[0] != "projects" or parts[2] != "databases":
            raise invalid(f'Invalid database name "{name}".')
        if parts[1] != self.project:
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, f"Permission denied on resource project {parts[1]}.")
        if parts[3] != self.database:
            raise Refused(
                grpc.StatusCode.NOT_FOUND,
                f"The database {parts[3]} does not exist for project {parts[1]} Please visit "
                f"https://console.cloud.google.com/datastore/setup?project={parts[1]} to add a Cloud Datastore or "
                "Cloud Firestore database. ",
            )

    def _parse(self, raw: bytes, message: Callable[[], Any]) -> Any:
        request = message()
        request.ParseFromString(raw)
        return request

    def _read_time(self) -> Any:
        return timestamp(self.documents.read_time(self.clock.now() + self.skew))

    async def _commit(self, raw: bytes, context: Context) -> bytes:
        request = self._parse(raw, wire.CommitRequest)
        async with self._call("Commit", request, context) as call:
            self._check_database(request.database)
            self._check_size(raw)
            if request.transaction:
                raise unsupported("A transaction")
            time, updates = self.documents.commit(request.writes, self.clock.now() + self.skew)
            self._count_writes(request, time)
            if call.fault.after or call.fault.results is not None:
                await self._strike(call.fault)
            response = wire.CommitResponse(commit_time=timestamp(time))
            for update in updates:
                result = response.write_results.add()
                if update is not None:
                    result.update_time.CopyFrom(timestamp(update))
        return bytes(response.SerializeToString())

    def _count_writes(self, request: Any, time: int) -> None:
        for write in request.writes:
            if write.WhichOneof("operation") == "delete":
                self.counts.deletes += 1
                name = write.delete
            else:
                self.counts.writes += 1
                name = write.update.name
            self.counts.write_times.setdefault(name, []).append(time)

    def _check_size(self, raw: bytes) -> None:
        if len(raw) > self.limits.request_bytes:
            raise invalid(f"Request payload size exceeds the limit: {self.limits.request_bytes} bytes.")

    async def _batch_get(self, raw: bytes, context: Context) -> AsyncIterator[bytes]:
        """Answers come in another order than asked, and once for a document asked for twice: nothing else is promised."""
        request = self._parse(raw, wire.BatchGetDocumentsRequest)
        async with self._call("BatchGetDocuments", request, context) as call:
            self._check_database(request.database)
            self._check_size(raw)
            self._check_consistency(request)
            mask = [parse_path(path) for path in request.mask.field_paths] if request.HasField("mask") else None
            read_time, answers = self._read_time(), []
            for name in reversed(dict.fromkeys(request.documents)):
                check_name(name, self.documents.prefix)
                stored = self.documents.get(name)
                answer = wire.BatchGetDocumentsResponse(read_time=read_time)
                if stored is None:
                    answer.missing = name
                else:
                    answer.found.CopyFrom(queries.project(stored, mask))
                answers.append(answer)
            self.counts.reads += len(answers)
            async for answer_bytes in self._answers(answers, call):
                yield answer_bytes

    def _check_consistency(self, request: Any) -> None:
        if request.WhichOneof("consistency_selector"):
            raise unsupported(request.WhichOneof("consistency_selector"))

    async def _run_query(self, raw: bytes, context: Context) -> AsyncIterator[bytes]:
        request = self._parse(raw, wire.RunQueryRequest)
        async with self._call("RunQuery", request, context) as call:
            self._check_database(request.parent)
            self._check_consistency(request)
            found = queries.run(request.parent, request.structured_query, self.documents, self.indexes)
            self.counts.reads += max(1, len(found.documents) + found.skipped)
            read_time, paths = self._read_time(), queries.projection(request.structured_query)
            answers = [
                wire.RunQueryResponse(document=queries.project(each, paths), read_time=read_time)
                for each in found.documents
            ]
            async for answer in self._answers(answers or [wire.RunQueryResponse(read_time=read_time)], call):
                yield answer

    async def _aggregate(self, raw: bytes, context: Context) -> AsyncIterator[bytes]:
        request = self._parse(raw, wire.RunAggregationQueryRequest)
        async with self._call("RunAggregationQuery", request, context) as call:
            self._check_database(request.parent)
            self._check_consistency(request)
            aggregation = request.structured_aggregation_query
            if not aggregation.aggregations:
                raise invalid("An aggregation query has no aggregations.")
            found = queries.run(request.parent, aggregation.structured_query, self.documents, self.indexes)
            count = len(found.documents)
            self.counts.reads += max(1, -(-(count + found.skipped) // _ENTRIES_PER_READ))
            answer = wire.RunAggregationQueryResponse(read_time=self._read_time())
            for number, each in enumerate(aggregation.aggregations, 1):
                if each.WhichOneof("operator") != "count":
                    raise unsupported("An aggregation other than COUNT")
                if each.count.HasField("up_to") and each.count.up_to.value <= 0:
                    raise invalid("up_to must be greater than zero.")
                counted = min(count, each.count.up_to.value) if each.count.HasField("up_to") else count
                answer.result.aggregate_fields[each.alias or f"field_{number}"].integer_value = counted
            async for answer_bytes in self._answers([answer], call):
                yield answer_bytes
