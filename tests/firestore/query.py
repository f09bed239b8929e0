"""Structured queries over the documents: filters, total order, cursors, offset, limit, projection."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tests.firestore import filters
from tests.firestore.documents import Documents
from tests.firestore.indexes import ASCENDING, DESCENDING, Indexes, Orders, Shape
from tests.firestore.limits import check_name, check_path
from tests.firestore.stored import Stored
from tests.firestore.values import NAME, Path, lookup, parse_path, sort_key
from tests.firestore.views import Entry, View, index_of, part
from tests.firestore.wire import Document, StructuredQuery, invalid, unsupported


@dataclass(frozen=True, slots=True)
class Found:
    """`skipped` documents were read for the offset: production bills them."""

    documents: list[Stored]
    skipped: int = 0


def run(parent: str, query: Any, documents: Documents, indexes: Indexes) -> Found:
    """The documents, in order. Refused: INVALID_ARGUMENT, or FAILED_PRECONDITION without an index."""
    collection, group = _source(parent, query, documents.prefix)
    where = filters.read(query.where)
    order = _order(query, where)
    indexes.check(_shape(collection, group, where, order))
    if query.offset < 0:
        raise invalid("Offset must be non-negative.")
    if query.HasField("limit") and query.limit.value < 0:
        raise invalid("Limit must be non-negative.")
    if query.HasField("find_nearest"):
        raise unsupported("find_nearest")
    if group:
        view = View(tuple(sorted(where.fixed)), order)
        for each in documents.collection_group(parent, collection):
            view.add(each)
    else:
        view = documents.collection(f"{parent}/{collection}").view(tuple(sorted(where.fixed)), order)
    entries = view.group(tuple(where.fixed[path] for path in view.fixed))
    start, end = 0, len(entries)
    if query.HasField("start_at"):
        start = _cursor(entries, query.start_at, order)
    if query.HasField("end_at"):
        end = _cursor(entries, query.end_at, order)
    matching = (entries[number][1] for number in range(start, end) if where.match(entries[number][1]))
    limit = query.limit.value if query.HasField("limit") else None
    skipped = sum(1 for _ in islice(matching, query.offset))
    return Found(list(islice(matching, limit)), skipped)


def project(stored: Stored, paths: Iterable[Path] | None) -> Any:
    """The document as answered; `paths` None: whole."""
    if paths is None:
        return stored.pb
    answer = Document(name=stored.name, create_time=stored.pb.create_time, update_time=stored.pb.update_time)
    for path in paths:
        value = None if path == NAME else lookup(stored.pb.fields, path)
        if value is None:
            continue
        fields = answer.fields
        for segment in path[:-1]:
            fields = fields[segment].map_value.fields
        fields[path[-1]].CopyFrom(value)
    return answer


def projection(query: Any) -> list[Path] | None:
    if not query.HasField("select"):
        return None
    return [parse_path(each.field_path) for each in query.select.fields]


def _source(parent: str, query: Any, prefix: str) -> tuple[str, bool]:
    if parent != prefix:
        check_name(parent, prefix)
    selectors = query.from_
    if len(selectors) != 1:
        raise unsupported("A query of anything but one source")
    collection: str = selectors[0].collection_id
    if not collection:
        # Kindless: everything beneath the parent, as the SDKs' recursive delete asks for it.
        if not selectors[0].all_descendants or query.where.WhichOneof("filter_type"):
            raise unsupported("A query without a collection but of all descendants, by name")
        return "", True
    check_path(collection, even=False)
    return collection, selectors[0].all_descendants


def _order(query: Any, where: filters.Filters) -> Orders:
    order: list[tuple[Path, str]] = []
    for each in query.order_by:
        path = parse_path(each.field.field_path)
        if path in {seen for seen, _ in order}:
            raise invalid(f"order by clause contains a duplicate field: {each.field.field_path}")
        order.append((path, DESCENDING if each.direction == StructuredQuery.DESCENDING else ASCENDING))
    last = order[-1][1] if order else ASCENDING
    seen = {path for path, _ in order}
    order += [(path, last) for path in sorted(where.unequal - seen - {NAME})]
    if NAME not in seen:
        order.append((NAME, last))
    elif order[-1][0] != NAME:
        raise invalid(f"order by clause cannot contain more fields after the key {'.'.join(order[-1][0])}")
    return tuple(order)


def _shape(collection: str, group: bool, where: filters.Filters, order: Orders) -> Shape:  # noqa: FBT001
    fixed = frozenset(where.fixed)
    sorting = tuple((path, direction) for path, direction in order if path not in fixed)
    ordered = {path for path, _ in sorting}
    return Shape(collection, group, fixed | (where.within - ordered - {NAME}), frozenset(where.contains), sorting)


def _cursor(entries: list[Entry], cursor: Any, order: Orders) -> int:
    """How many entries lie before it."""
    if len(cursor.values) > len(order):
        raise invalid("Cursor has too many values.")
    if not cursor.values:
        raise invalid("Cursor has no values.")
    position = []
    for value, (path, direction) in zip(cursor.values, order, strict=False):
        if path == NAME and value.WhichOneof("value_type") != "reference_value":
            raise invalid("Cursor value of __name__ must be a document reference.")
        position.append(part(sort_key(value), direction))
    return index_of(entries, tuple(position), before=cursor.before)
