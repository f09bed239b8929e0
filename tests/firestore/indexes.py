"""Which queries the declared indexes can serve, as production decides it.

The rule. A query is a set of equalities (EQUAL, IN, IS_NULL, IS_NAN, ARRAY_CONTAINS; a field each) and a total order: its
explicit orders, then the fields compared by inequality (<, <=, >, >=, NOT_EQUAL, NOT_IN, IS_NOT_NULL, IS_NOT_NAN) that are
not among them, by name, in the last order's direction, then `__name__` in that direction. A field fixed by EQUAL drops out
of the order; one fixed by IN and ordered by is served by the order. An index serves a subset of the equalities when its
fields are these, in whatever sequence and direction, followed by exactly the rest of the order with exactly its directions
(ascending does not serve descending), `__name__` included: it ends an index unsaid, in its last field's direction. Indexes
that serve subsets are merged (zigzag): the query runs when all its equalities are covered, by one index or by several.

Automatic single-field indexes exist for every field, ascending, descending and array-contains, in a collection's scope,
unless a field override exempts it (`"indexes": []`, or only some of them). Hence equalities on any number of fields without an
order need no declared index, and neither does an order by one field without an equality; both together do. Documents by
ascending `__name__` need none; descending they do.

Sources: "Index types", "Take advantage of index merging", "multiple range fields", the reference of the index definition.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any, TypeAlias

import grpc

from tests.firestore.values import NAME, Path, parse_path
from tests.firestore.wire import Refused

Direction: TypeAlias = str
ASCENDING, DESCENDING, CONTAINS = "ASCENDING", "DESCENDING", "CONTAINS"
Orders: TypeAlias = tuple[tuple[Path, Direction], ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a query decides on its indexes."""

    collection: str
    group: bool
    """All collections of that id, under whatever parent."""
    equal: frozenset[Path]
    contains: frozenset[Path]
    order: Orders
    """Total: ends in `__name__`; without fields in `equal`."""


@dataclass(frozen=True, slots=True)
class Index:
    collection: str
    group: bool
    fields: Orders
    """Path and ASCENDING, DESCENDING or CONTAINS; ends in `__name__`."""

    def serves(self, shape: Shape) -> frozenset[Path] | None:
        """The equalities it covers; None when it cannot serve the order, or has a field too many."""
        tail = len(shape.order)
        if (self.collection, self.group) != (shape.collection, shape.group) or len(self.fields) < tail:
            return None
        head, rest = self.fields[: len(self.fields) - tail], self.fields[len(self.fields) - tail :]
        if rest != shape.order:
            return None
        for path, mode in head:
            if path not in (shape.contains if mode == CONTAINS else shape.equal):
                return None
        return frozenset(path for path, _ in head)


class Indexes:
    """`definition` is the content of a `firestore.indexes.json`. `any_query` admits everything."""

    def __init__(self, definition: Mapping[str, Any] | None = None, *, any_query: bool = False) -> None:
        self._any = any_query
        self._composite: list[Index] = []
        self._overrides: dict[tuple[str, Path], frozenset[tuple[str, str]]] = {}
        for entry in (definition or {}).get("indexes", ()):
            self._composite.append(_composite(entry))
        for entry in (definition or {}).get("fieldOverrides", ()):
            if "indexes" in entry:  # without them it says something else of the field, such as `ttl`
                self._overrides[entry["collectionGroup"], _path(entry["fieldPath"])] = frozenset(
                    (each.get("queryScope", "COLLECTION"), each.get("order") or each["arrayConfig"])
                    for each in entry["indexes"]
                )
        self._admitted: set[Shape] = set()

    @classmethod
    def load(cls, source: File | str | Mapping[str, Any] | None) -> "Indexes":
        if source is None or isinstance(source, Mapping):
            return cls(source)
        return cls(json.loads(File(source).read_text()))

    def check(self, shape: Shape) -> None:
        """FAILED_PRECONDITION when no indexes serve it."""
        if self._any or shape in self._admitted:
            return
        wanted = shape.equal | shape.contains
        if not wanted and shape.order == ((NAME, ASCENDING),):
            return
        serving = [
            covered
            for index in (*self._composite, *self._automatic(shape))
            if (covered := index.serves(shape)) is not None
        ]
        if not serving or frozenset().union(*serving) != wanted:
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION,
                "The query requires an index. You can create it here: "
                f"https://console.firebase.google.com/v1/r/project/_/firestore/indexes ({_needed(shape)})",
            )
        self._admitted.add(shape)

    def _automatic(self, shape: Shape) -> list[Index]:
        """The single-field indexes of the fields that the shape names."""
        scope = "COLLECTION_GROUP" if shape.group else "COLLECTION"
        found = []
        for path in {*shape.equal, *shape.contains, *(path for path, _ in shape.order)} - {NAME}:
            modes = self._override(shape.collection, path)
            for mode in (ASCENDING, DESCENDING, CONTAINS):
                automatic = not shape.group if modes is None else (scope, mode) in modes
                if automatic:
                    # An array-contains entry of one value can be read in both directions of `__name__`: both are kept.
                    tails = (ASCENDING, DESCENDING) if mode == CONTAINS else (mode,)
                    found += [Index(shape.collection, shape.group, ((path, mode), (NAME, tail))) for tail in tails]
        return found

    def _override(self, collection: str, path: Path) -> frozenset[tuple[str, str]] | None:
        """The nearest: the field's own, that of a map it is in, the collection's; None when there is none."""
        for length in range(len(path), 0, -1):
            if (collection, path[:length]) in self._overrides:
                return self._overrides[collection, path[:length]]
        return self._overrides.get((collection, ("*",)))


def _composite(entry: Mapping[str, Any]) -> Index:
    fields = [(_path(each["fieldPath"]), each.get("order") or each["arrayConfig"]) for each in entry["fields"]]
    if sum(mode == CONTAINS for _, mode in fields) > 1:
        raise ValueError("an index has at most one array field")
    if fields[-1][0] != NAME:
        last = fields[-1][1]
        fields.append((NAME, ASCENDING if last == CONTAINS else last))
    return Index(entry["collectionGroup"], entry.get("queryScope", "COLLECTION") == "COLLECTION_GROUP", tuple(fields))


def _path(text: str) -> Path:
    return ("*",) if text == "*" else parse_path(text)


def _needed(shape: Shape) -> str:
    fields = [f"{'.'.join(path)} {CONTAINS}" for path in sorted(shape.contains)]
    fields += [f"{'.'.join(path)} {ASCENDING}" for path in sorted(shape.equal)]
    fields += [f"{'.'.join(path)} {direction}" for path, direction in shape.order]
    scope = "collection group" if shape.group else "collection"
    return f"{scope} {shape.collection}, fields {', '.join(fields)}"
