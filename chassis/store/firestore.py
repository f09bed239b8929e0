"""The document store on Firestore: Google's service, its emulator, or the stand-in of the tests.

Documents are `tenants/{tenant}/{collection}/{id}`. Where one database serves several services, a service's collections
other than its namesake begin with its name (`devices`, `devices-requests`): each has its own, as with files.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from google.auth.exceptions import GoogleAuthError
from grpc import StatusCode
from grpc.aio import AioRpcError

from chassis.clock import Clock
from chassis.config import Store as Budget
from chassis.resilience.deadline import budget, within
from chassis.store import firestore_queries as queries
from chassis.store.filters import matches
from chassis.store.firestore_commits import PendingCommit, Seen, keys_once
from chassis.store.firestore_errors import (
    MAYBE,
    REFUSALS,
    at_start,
    is_transient,
    may_be_applied,
    no_credentials,
    translated,
)
from chassis.store.firestore_names import COMMIT, ID, decode_id, encode_id
from chassis.store.firestore_values import read_fields, stamp
from chassis.store.firestore_wire import Wire
from chassis.store.indexes import compiled, definitions
from chassis.store.planner import Planner
from chassis.store.port import (
    Committed,
    Document,
    Key,
    Query,
    Schema,
    StoreCorrupt,
    StoreTimeout,
    StoreUnavailable,
    Write,
)
from chassis.store.retry import Backoff, Retrier

MAX_KEYS: Final = 500
OPENING: Final = 10.0
"""Seconds within which the database has to answer for the first time."""
_STARTS: Final = 1000
"""Attempts while opening: the time ends them."""
_STEP: Final = 64
"""Documents turned into messages, or back, without letting others run."""
_CHUNK: Final = 300
"""Documents asked for at once when some have to be left out again."""
_MARKER_BYTES: Final = 16

_T = TypeVar("_T")


class FirestoreStore:
    """A `DocumentStore`. Made by `open` on the event loop that uses it."""

    def __init__(
        self,
        wire: Wire,
        schema: Schema,
        *,
        clock: Clock,
        budget: Budget,
        random_bytes: Callable[[int], bytes],
        service: str = "",
    ) -> None:
        self._wire = wire
        self._clock = clock
        self._budget = budget
        self._random_bytes = random_bytes
        self._service = service
        self._planner = Planner(compiled(schema, {text: number for number, text in enumerate(definitions(schema))}))
        self._retrier = Retrier(clock, self._random, budget.retries)
        self._tenants = f"{wire.documents}/tenants/"
        self._known = 0
        """The latest server time seen, microseconds."""
        self._running = 0
        self._idle = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        project: str,
        database: str,
        schema: Schema,
        *,
        clock: Clock,
        budget: Budget,
        random_bytes: Callable[[int], bytes],
        service: str = "",
    ) -> "FirestoreStore":
        """Connect and read one document, to know that it works.

        Raises ConfigError for what waiting does not mend (no credentials, no permission, no such database), saying what
        to run, and StoreUnavailable or StoreTimeout when there is no answer within 10 seconds.
        """
        where = f"BAS_STORE_URL=firestore://{project}/{database}"

        def late() -> StoreTimeout:
            return StoreTimeout(f"{where} did not answer within {OPENING:g} s.")

        try:
            async with within(clock, OPENING, late):
                wire = await Wire.open(project, database)
        except GoogleAuthError as failure:
            raise no_credentials(where, str(failure)) from failure
        store = cls(wire, schema, clock=clock, budget=budget, random_bytes=random_bytes, service=service)
        try:
            async with within(clock, OPENING, late):
                await store._first_read()
        except AioRpcError as failure:
            await wire.close()
            raise at_start(failure, project, database) from failure
        except BaseException:
            await wire.close()
            raise
        return store

    async def get(self, key: Key) -> Document | None:
        return (await self.get_many((key,)))[0]

    async def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        if len(keys) > MAX_KEYS:
            raise ValueError(f"at most {MAX_KEYS} keys are read at once")
        if not keys:
            self._check_open()
            return []
        names = [self.name(key) for key in keys]
        distinct = names if len(names) == 1 else list(dict.fromkeys(names))
        answers = await self._reading(lambda left: self._wire.batch_get(distinct, left))
        found: dict[str, Any] = {}
        for answer in answers:
            if answer.WhichOneof("result") == "found":
                found[answer.found.name] = answer.found
        self._note(answers)
        documents: list[Document | None] = []
        for number, (key, name) in enumerate(zip(keys, names, strict=True), 1):
            if number % _STEP == 0:
                await asyncio.sleep(0)
            document = found.get(name)
            documents.append(None if document is None else _document(key, document))
        return documents

    async def query(self, query: Query) -> list[Document]:
        self._check_open()
        self._planner.page(query)
        parent, collection = self._place(query)
        asked = queries.page(query, collection, parent)
        if asked is None:
            return []
        return await self._reading(lambda left: self._page(query, parent, asked, left))

    async def count(self, query: Query) -> int:
        self._check_open()
        self._planner.count(query)
        parent, collection = self._place(query)
        asked = queries.count(query, collection, self._planner)
        if asked is None:
            return 0
        if not asked.residual:
            return await self._reading(lambda left: self._wire.count(parent, asked.structured, left))
        return await self._reading(lambda left: self._counted(parent, asked, left))

    async def commit(self, writes: Sequence[Write]) -> Committed:
        self._check_open()
        keys_once(writes)
        pending = PendingCommit(self._random_bytes(_MARKER_BYTES), self._known)
        for number, write in enumerate(writes, 1):
            if number % _STEP == 0:
                await asyncio.sleep(0)  # a large batch lets others run in between
            pending.add(write, self.name(write.key))
        try:
            return await self._bounded(self._budget.write_timeout, lambda left: self._committed(pending, left))
        except AioRpcError as failure:
            error = translated(failure)
            if pending.ambiguous and not isinstance(error, StoreTimeout | StoreCorrupt):
                error = StoreUnavailable(MAYBE)
            elif failure.code() is StatusCode.ABORTED:
                error = pending.contended()
            raise error from failure

    @property
    def documents(self) -> str:
        """The prefix of every document's name, without the slash."""
        return self._wire.documents

    def name(self, key: Key) -> str:
        """The document's full name in the database."""
        return f"{self._tenants}{encode_id(key.tenant)}/{self._collection(key.collection)}/{encode_id(key.id)}"

    async def scan(self, structured: Any, parent: str) -> list[Any]:
        """What any query finds beneath `parent`, as Firestore's messages: for copying, declared or not."""
        answers = await self._reading(lambda left: self._wire.run_query(parent, structured, left))
        return [answer.document for answer in answers if answer.HasField("document")]

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        while self._running:
            self._idle.clear()
            await self._idle.wait()
        await self._wire.close()

    async def _reading(self, attempt: Callable[[float], Awaitable[_T]]) -> _T:
        """An idempotent operation, whole: a stream that breaks is begun anew, and nothing of it is kept."""
        try:
            return await self._bounded(self._budget.read_timeout, attempt)
        except AioRpcError as failure:
            raise translated(failure) from failure

    async def _bounded(self, seconds: float, attempt: Callable[[float], Awaitable[_T]]) -> _T:
        """`attempt` gets the seconds that are left, and is repeated as far as they and the budget's retries go."""
        self._check_open()
        self._running += 1
        try:
            async with within(self._clock, seconds, StoreTimeout):
                deadline = self._clock.monotonic() + budget(self._clock, seconds)

                async def once() -> _T:
                    return await attempt(max(0.001, deadline - self._clock.monotonic()))

                return await self._retrier.run(once, is_transient, deadline)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def _page(self, query: Query, parent: str, asked: queries.Asked, left: float) -> list[Document]:
        structured, found = asked.structured, list[Document]()
        deadline = self._clock.monotonic() + left
        while True:
            size = query.limit if not asked.residual else max(query.limit, _CHUNK)
            structured.limit.value = size
            left = deadline - self._clock.monotonic()
            answers = await self._wire.run_query(parent, structured, max(0.001, left))
            self._note(answers)
            read = [answer.document for answer in answers if answer.HasField("document")]
            for number, document in enumerate(read, 1):
                if number % _STEP == 0:
                    await asyncio.sleep(0)
                decoded = identified(query.tenant, query.collection, document)
                if all(matches(item, decoded.fields) for item in asked.residual):
                    found.append(decoded)
            if len(found) >= query.limit or len(read) < size:
                return found[: query.limit]
            queries.advance(structured, asked.order, read[-1])

    async def _counted(self, parent: str, asked: queries.Asked, left: float) -> int:
        """A count that has to read: as many documents as match what could be sent."""
        structured, total = asked.structured, 0
        deadline = self._clock.monotonic() + left
        structured.limit.value = _CHUNK
        while True:
            left = deadline - self._clock.monotonic()
            answers = await self._wire.run_query(parent, structured, max(0.001, left))
            self._note(answers)
            read = [answer.document for answer in answers if answer.HasField("document")]
            for document in read:
                fields = read_fields(document)
                total += all(matches(item, fields) for item in asked.residual)
            if len(read) < _CHUNK:
                return total
            queries.advance(structured, asked.order, read[-1])

    async def _committed(self, pending: PendingCommit, left: float) -> Committed:
        """One attempt. What an earlier one may have done is found out before anything is done twice."""
        deadline = self._clock.monotonic() + left
        if pending.ambiguous and pending.loose:
            settled = pending.pin(await self._look(pending.names, left), self._known)
            if settled is not None:
                return settled
            left = max(0.001, deadline - self._clock.monotonic())
        try:
            response = await self._wire.commit(pending.messages, left)
        except AioRpcError as failure:
            if failure.code() in REFUSALS:
                return await self._refused(pending, failure, max(0.001, deadline - self._clock.monotonic()))
            pending.ambiguous = pending.ambiguous or may_be_applied(failure)
            raise
        self._known = max(self._known, stamp(response.commit_time))
        return pending.answer(response)

    async def _refused(self, pending: PendingCommit, failure: AioRpcError, left: float) -> Committed:
        alone = pending.alone(failure.code())
        if alone is not None:
            raise alone from failure
        found = await self._look(pending.names, left)
        if pending.ambiguous and (answer := pending.recognized(found)):
            return answer
        raise pending.refusal(found) from failure

    async def _look(self, names: Iterable[str], left: float) -> dict[str, Seen]:
        """What is there, without the documents' contents."""
        answers = await self._wire.batch_get(names, left, marker_only=True)
        self._note(answers)
        return {
            answer.found.name: Seen(stamp(answer.found.update_time), answer.found.fields[COMMIT].bytes_value)
            for answer in answers
            if answer.WhichOneof("result") == "found"
        }

    async def _first_read(self) -> None:
        """One read, repeated while the database is away: it may be starting, as this process is."""
        deadline = self._clock.monotonic() + OPENING
        names = [f"{self._tenants}-/probe/-"]
        patient = Retrier(self._clock, self._random, _STARTS, Backoff(base=0.1, cap=1.0))
        self._note(
            await patient.run(
                lambda: self._wire.batch_get(names, max(0.001, deadline - self._clock.monotonic())),
                is_transient,
                deadline,
            )
        )

    def _random(self) -> float:
        return int.from_bytes(self._random_bytes(4), "big") / 2**32

    def _note(self, answers: Sequence[Any]) -> None:
        if answers:
            self._known = max(self._known, stamp(answers[-1].read_time))

    def _place(self, query: Query) -> tuple[str, str]:
        return f"{self._tenants}{encode_id(query.tenant)}", self._collection(query.collection)

    def _collection(self, name: str) -> str:
        return collection_id(self._service, name)

    def _check_open(self) -> None:
        if self._closing is not None:
            raise StoreUnavailable("The store is closed.")


def collection_id(service: str, collection: str) -> str:
    """The Firestore collection of a service's collection."""
    return encode_id(collection if not service or collection == service else f"{service}-{collection}")


def identified(tenant: str, collection: str, document: Any) -> Document:
    """A document of Firestore's as the port's, with the id that its name or its own field tells."""
    decoded = decode_id(document.name.rpartition("/")[2])
    name = document.fields[ID].string_value if decoded is None else decoded
    return _document(Key(tenant, collection, name), document)


def _document(key: Key, document: Any) -> Document:
    return Document(key, str(stamp(document.update_time)), read_fields(document))
