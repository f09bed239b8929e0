"""The documents, in memory, and atomic commits with preconditions.

What production does, and the adapter may stumble over:
 - One commit has one time, which is the update time of all that it changed; times are whole microseconds and strictly grow.
 - A write that leaves a document's fields as they are keeps its update time ("If the write did not actually change the
   document, this will be the previous update_time", WriteResult).
 - An update time that is yet to come is INVALID_ARGUMENT, any other but the current one FAILED_PRECONDITION.
 - Writes of a commit apply in order, each precondition upon what the writes before it left; the same document may come twice.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import grpc

from tests.firestore.limits import Limits, check_document, check_name
from tests.firestore.stored import Stored, micros_of, timestamp
from tests.firestore.values import truncate
from tests.firestore.views import Collection
from tests.firestore.wire import Document, Refused, invalid, unsupported


class Documents:
    """One database."""

    def __init__(self, prefix: str, limits: Limits) -> None:
        self.prefix = prefix
        """`projects/{project}/databases/{database}/documents`"""
        self._limits = limits
        self._documents: dict[str, Stored] = {}
        self._collections: dict[str, Collection] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._documents)

    def get(self, name: str) -> Stored | None:
        return self._documents.get(name)

    def names(self) -> list[str]:
        return sorted(self._documents)

    def collection(self, path: str) -> Collection:
        """The documents right under `path` (`{prefix}/…/{collection}`)."""
        return self._collections.get(path) or Collection()

    def collection_group(self, ancestor: str, collection_id: str) -> Iterator[Stored]:
        """The documents of all collections of that id beneath `ancestor`; of whatever id when it is empty."""
        for path, collection in self._collections.items():
            if path.startswith(ancestor + "/") and collection_id in {"", path.rsplit("/", 1)[1]}:
                yield from collection.documents.values()

    def read_time(self, now: datetime) -> int:
        """Microseconds; not before the last commit."""
        return max(self._last, _micros(now))

    def commit(self, writes: Iterable[Any], now: datetime) -> tuple[int, list[int | None]]:
        """Commit time and, for each write, the update time (None for a delete), microseconds. Refused: nothing applied."""
        writes = list(writes)
        if self._limits.writes is not None and len(writes) > self._limits.writes:
            raise invalid(f"maximum {self._limits.writes} writes allowed per request")
        time = max(self._last + 1, _micros(now))
        staged: dict[str, Stored | None] = {}
        results: list[int | None] = []
        for write in writes:
            name = self._target(write)
            current = staged[name] if name in staged else self._documents.get(name)
            _check(write, name, current, time)
            if write.WhichOneof("operation") == "delete":
                staged[name] = None
                results.append(None)
            else:
                staged[name] = after = self._written(write.update, name, current, time)
                results.append(after.updated)
        for name, document in staged.items():
            self._place(name, document)
        self._last = time
        return time, results

    def _target(self, write: Any) -> str:
        match write.WhichOneof("operation"):
            case "update":
                name: str = write.update.name
            case "delete":
                name = write.delete
            case None:
                raise invalid("A write has no operation.")
            case kind:
                raise unsupported(f"A write of the kind {kind}")
        if write.HasField("update_mask"):
            raise unsupported("update_mask")
        if write.update_transforms:
            raise unsupported("update_transforms")
        check_name(name, self.prefix)
        return name

    def _written(self, update: Any, name: str, current: Stored | None, time: int) -> Stored:
        document = Document(name=name)
        for field_name, value in update.fields.items():
            document.fields[field_name].CopyFrom(value)
        check_document(name, document, self._limits, self.prefix)
        truncate(document.fields)
        if current is None:
            document.create_time.CopyFrom(timestamp(time))
        else:
            if _same(current.pb, document):
                return current
            document.create_time.CopyFrom(current.pb.create_time)
        document.update_time.CopyFrom(timestamp(time))
        return Stored(name, document, time)

    def _place(self, name: str, document: Stored | None) -> None:
        path = name.rsplit("/", 1)[0]
        collection = self._collections.setdefault(path, Collection())
        collection.place(name, document)
        if document is None:
            self._documents.pop(name, None)
        else:
            self._documents[name] = document
        if not collection.documents:
            del self._collections[path]


def _same(one: Any, other: Any) -> bool:
    """By bytes: NaN is what it was, and -0.0 is not 0.0."""
    return bool(_bytes(one) == _bytes(other))


def _bytes(document: Any) -> Any:
    return Document(fields=document.fields).SerializeToString(deterministic=True)


def _micros(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


def _check(write: Any, name: str, current: Stored | None, now: int) -> None:
    condition = write.current_document
    match condition.WhichOneof("condition_type"):
        case "exists" if condition.exists and current is None:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"No document to update: {name}")
        case "exists" if not condition.exists and current is not None:
            raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"Document already exists: {name}")
        case "update_time":
            if condition.update_time.nanos % 1000:
                raise invalid("The Timestamp is not of whole microseconds.")
            wanted, stored = micros_of(condition.update_time), 0 if current is None else current.updated
            if wanted > now:
                raise invalid(f"The required base version ({wanted}) is in the future.")
            if wanted != stored or current is None:
                raise Refused(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"the stored version ({stored}) does not match the required base version ({wanted})",
                )
