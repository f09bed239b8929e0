"""A document as it is stored."""

from dataclasses import dataclass, field
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from tests.firestore.values import NAME, Path, SortKey, lookup, name_key, sort_key


@dataclass(slots=True)
class Stored:
    """With the sort keys of the fields that were asked for."""

    name: str
    pb: Any
    """A `Document`; never changed."""
    updated: int
    """Update time, microseconds since 1970."""
    keys: dict[Path, SortKey | None] = field(default_factory=dict)

    def key(self, path: Path) -> SortKey | None:
        """The field's sort key; None when it is missing."""
        try:
            return self.keys[path]
        except KeyError:
            value = None if path == NAME else lookup(self.pb.fields, path)
            key = name_key(self.name) if path == NAME else None if value is None else sort_key(value)
            self.keys[path] = key
            return key


def timestamp(micros: int) -> Timestamp:
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def micros_of(stamp: Timestamp) -> int:
    return stamp.seconds * 1_000_000 + stamp.nanos // 1000
