"""The document-store port: five operations, two engines (SQLite, Firestore), one conformance suite.

Every sentence of a docstring here is a promise that `tests/conformance` holds every adapter and wrapper to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Protocol, TypeAlias

from chassis.errors import ApiError, Code

Value: TypeAlias = "bool | int | float | datetime | str | bytes | Sequence[Value] | Mapping[str, Value] | None"
"""What a field may hold; values of different types order as Firestore orders them:
null < bool < number < timestamp < string < bytes < array < map. Integers are 64-bit, timestamps aware with whole
microseconds, strings ordered by their UTF-8 bytes. Integers and floats are compared as numbers, exactly; -0.0 equals 0
and NaN lies below every number. An array holds no array directly, and maps and arrays nest at most 20 deep (Firestore's
limits). What is outside of this raises ValueError."""

Fields: TypeAlias = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Key:
    """A document's address. `tenant` is its partition; no operation but `get_many` and `commit` spans two tenants.

    Each part is any text of 1 to 1500 UTF-8 bytes; `commit` raises ValueError for another.
    """

    tenant: str
    collection: str
    id: str


@dataclass(frozen=True, slots=True)
class Document:
    """A stored document. `version` is opaque and differs after every committed write to the key."""

    key: Key
    version: str
    fields: Fields


class Op(Enum):
    """Comparison in a filter. A missing field matches nothing; a null field matches only EQ null.

    As the filter's value, null and NaN are for EQ and NE (everything there is but null, or NaN and null); in any other
    comparison, and within an IN list, they match nothing.
    """

    EQ = "=="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    IN = "in"
    CONTAINS = "array-contains"


@dataclass(frozen=True, slots=True)
class Filter:
    """`field` is a top-level field name; IN takes a sequence of at most 30 values (else ValueError; none matches
    nothing). Comparisons match within one type, except that NE matches values of all others."""

    field: str
    op: Op
    value: Value


@dataclass(frozen=True, slots=True)
class Order:
    field: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """Documents of one collection of one tenant that match every filter, ordered.

    Order ends with the document id, in the direction of the last `order` (ascending when there is none), so that it is
    total. Documents that lack an ordered field are left out. `after` is the cursor: one value for each `order` and then
    the id of the last document already seen; the page starts strictly behind it, whether or not that document still
    exists. `limit` is at least 1.
    """

    tenant: str
    collection: str
    filters: tuple[Filter, ...] = ()
    order: tuple[Order, ...] = ()
    after: tuple[Value, ...] | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Index:
    """A declared way to query: the filtered fields (equality first), then the order.

    `contains` names the fields among `fields` that are arrays searched by CONTAINS. A query is admitted when each of its
    equality-like filters (EQ, IN, NE, CONTAINS) is a leading field of some declared index that goes on with the query's
    whole order, and all fields of that index are filtered by; engines may intersect such indexes. Range filters apply to
    the first ordered field. A count needs the same indexes without order, or, with a range filter, with that field as
    the only order. Documents of a collection by id, all of them, need no index. An index has at most one array.
    Everything else is refused with UndeclaredQuery, on every engine alike.
    """

    collection: str
    fields: tuple[str, ...]
    order: tuple[Order, ...] = ()
    contains: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Create:
    """Write a document that must not exist."""

    key: Key
    fields: Fields


@dataclass(frozen=True, slots=True)
class Update:
    """Replace a document whole. It must exist and, with `version`, be at that version."""

    key: Key
    fields: Fields
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Put:
    """Write a document whether or not it exists."""

    key: Key
    fields: Fields


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a document. With `version` it must exist at that version; with `must_exist` it must exist; else it may be absent."""

    key: Key
    version: str | None = None
    must_exist: bool = False


Write: TypeAlias = Create | Update | Put | Delete


@dataclass(frozen=True, slots=True)
class Committed:
    """Answer of a commit: one version for each write, in order ("" for a delete), and the commit's time.

    All writes of one commit share one version, so each tells the others' (`requests.py` relies on it). Times never go back
    from one commit to a later one, whatever the clock does; a version is never used twice for a key.
    Versions compare in the order of the commits, as text: of two commits to one store, the second of which began after the
    first was acknowledged, the second's is the greater (the outbox's relay relies on it), whatever keys they wrote.
    """

    versions: tuple[str, ...]
    commit_time: datetime


@dataclass(frozen=True, slots=True)
class Schema:
    """What a service's store declares of its collections, before the engine opens."""

    indexes: tuple[Index, ...] = ()
    ttl_fields: Mapping[str, str] = field(default_factory=dict)
    """collection → the timestamp field after which its documents may be deleted by the engine, at any later time."""


class DocumentStore(Protocol):
    """Reads see every commit acknowledged before they began. All raise StoreUnavailable or StoreTimeout when the engine
    does not answer within the store's budget and the caller's deadline, whichever is earlier."""

    async def get(self, key: Key) -> Document | None:
        """The document, or None."""
        ...

    async def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        """One answer for each key, in order; duplicates are answered each time. At most 500 keys."""
        ...

    async def query(self, query: Query) -> list[Document]:
        """The page, in order. Fewer than `limit` documents mean that there are no more. Raises UndeclaredQuery."""
        ...

    async def count(self, query: Query) -> int:
        """How many documents match the filters; `order`, `after` and `limit` are not looked at. Raises UndeclaredQuery."""
        ...

    async def commit(self, writes: Sequence[Write]) -> Committed:
        """Apply all writes or none. At most 500, each key at most once; an empty commit is refused (ValueError).

        Raises DocumentExists (Create of an existing key), DocumentMissing (Update or Delete(must_exist) of an absent
        key), VersionConflict (`version` is not the current one, or absent), DocumentTooLarge, StoreFull, StoreUnavailable
        (maybe applied: a retry is safe because of the preconditions), StoreTimeout (the same). Cancelled before the
        engine has begun it, it is not applied. Once it has returned, the writes survive kill -9 and loss of power.
        """
        ...

    async def close(self) -> None:
        """Finish what was accepted and release the engine; idempotent. Later calls raise StoreUnavailable."""
        ...


class PreconditionFailed(ApiError):
    """A write's precondition did not hold; nothing was applied. `key` names the first such write."""

    def __init__(self, reason: str, message: str, key: Key) -> None:
        super().__init__(Code.ABORTED, reason, message)
        self.key = key


class DocumentExists(PreconditionFailed):
    def __init__(self, key: Key) -> None:
        super().__init__("DOCUMENT_EXISTS", "A document of that id exists already.", key)


class DocumentMissing(PreconditionFailed):
    def __init__(self, key: Key) -> None:
        super().__init__("DOCUMENT_MISSING", "The document does not exist.", key)


class VersionConflict(PreconditionFailed):
    def __init__(self, key: Key) -> None:
        super().__init__("VERSION_CONFLICT", "The document was changed by somebody else: read it again.", key)


class StoreUnavailable(ApiError):
    pushback = -1.0
    """The engine was asked again already, where that makes sense: no tier above shall."""

    def __init__(self, message: str = "The store cannot be reached.", *, retry_after: float = 1.0) -> None:
        super().__init__(Code.UNAVAILABLE, "STORE_UNAVAILABLE", message, retry_after=retry_after)


class StoreTimeout(ApiError):
    def __init__(self, message: str = "The store did not answer in time.") -> None:
        super().__init__(Code.DEADLINE_EXCEEDED, "STORE_TIMEOUT", message)


class StoreFull(ApiError):
    """No space left: reads go on, writes are refused with nothing half done."""

    def __init__(self, message: str = "The store has no space left.") -> None:
        super().__init__(Code.RESOURCE_EXHAUSTED, "STORE_FULL", message)


class DocumentTooLarge(ApiError):
    """Over 1 MiB a document or 10 MiB a commit, by Firestore's accounting, on every engine."""

    def __init__(self, message: str = "The document is larger than 1 MiB.") -> None:
        super().__init__(Code.INVALID_ARGUMENT, "DOCUMENT_TOO_LARGE", message)


class UndeclaredQuery(ApiError):
    """The query has no declared index: a bug in a store module, found by its first test."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.INTERNAL, "UNDECLARED_QUERY", message)


class StoreCorrupt(ApiError):
    """The data cannot be trusted or was written by a newer release; nothing was overwritten."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.DATA_LOSS, "STORE_CORRUPT", message)
