"""The documents, in memory, and atomic commits with preconditions.

What production does, and the adapter may stumble over:
 - One commit has one time, which is the update time of all that it changed; times are whole microseconds and strictly grow.
 - A write that leaves a document's fields as they are keeps its update time ("If the write did not actually change the
   document, this will be the previous update_time", WriteResult).
 - Writes of a commit apply in order, each precondition upon what the writes before it left; the same document may come twice.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from tests.firestore.limits import Limits, check_document, check_name
from tests.firestore.values import SortKey, lookup, name_key, sort_key, truncate
from tests.firestore.wire import Document, Refused, invalid, unsupported

NAME = ("__name__",)


@dataclass(slots=True)
class Stored:
    """A document as it is, with the sort keys of the fields that were asked for."""

    name: str
    pb: Any
    updated: int
    """Update time, microseconds since 1970."""
    keys: dict[tuple[str, ...], SortKey | None] = field(default_factory=dict)

    def key(self, path: tuple[str, ...]) -> SortKey | None:
        """The field's sort key; None when it is missing."""
        try:
            return self.keys[path]
        except KeyError:
            if path == NAME:
                key: SortKey | None = name_key(self.name)
            else:
                value = lookup(self.pb.fields, path)
                key = None if value is None else sort_key(value)
            self.keys[path] = key
            return key


def timestamp(micros: int) -> Timestamp:
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def micros_of(stamp: Timestamp) -> int:
    return stamp.seconds * 1_000_000 + stamp.nanos // 1000


class Documents:
    """One database."""

    def __init__(self, prefix: str, limits: Limits) -> None:
        self.prefix = prefix
        """`projects/{project}/databases/{database}/documents`"""
        self._limits = limits
        self._documents: dict[str, Stored] = {}
        self._collections: dict[str, dict[str, Stored]] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._documents)

    def get(self, name: str) -> Stored | None:
        return self._documents.get(name)

    def names(self) -> list[str]:
        return sorted(self._documents)

    def collection(self, path: str) -> Iterable[Stored]:
        """The documents right under `path` (`{prefix}/…/{collection}`)."""
        return self._collections.get(path, {}).values()

    def collection_group(self, ancestor: str, collection: str) -> Iterator[Stored]:
        """The documents of all collections of that id beneath `ancestor`."""
        for path, documents in self._collections.items():
            if path.startswith(ancestor + "/") and path.rsplit("/", 1)[1] == collection:
                yield from documents.values()

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
            _check(write, name, current)
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
            if _same(current.pb.fields, document.fields):
                return current
            document.create_time.CopyFrom(current.pb.create_time)
        document.update_time.CopyFrom(timestamp(time))
        return Stored(name, document, time)

    def _place(self, name: str, document: Stored | None) -> None:
        collection = name.rsplit("/", 1)[0]
        if document is None:
            self._documents.pop(name, None)
            siblings = self._collections.get(collection, {})
            siblings.pop(name, None)
            if not siblings:
                self._collections.pop(collection, None)
        else:
            self._documents[name] = document
            self._collections.setdefault(collection, {})[name] = document


def _same(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(name in one and one[name] == value for name, value in other.items())


def _micros(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


def _check(write: Any, name: str, current: Stored | None) -> None:
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
            if wanted != stored or current is None:
                raise Refused(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"the stored version ({stored}) does not match the required base version ({wanted})",
                )
