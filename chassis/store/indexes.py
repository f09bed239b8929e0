"""Declared indexes, compiled: which entries a document has in each.

An entry is (prefix, suffix): the prefix holds the tenant and the filtered values, the suffix the ordered values and the
id. A query fixes the prefix, so that its answer is one run of suffixes, already in order.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from chassis.store.encoding import descending, elements, encode
from chassis.store.port import Fields, Index, Key, Order, Schema, Value

_ENCODING: Final = 1
"""Part of an index's identity: a release that encodes differently rebuilds every index."""


Definition: TypeAlias = Index | tuple[str, str]
"""A declared index, or (collection, field) of an expiry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the table `entries`. `ref` finds the document: its id, or, in an index across tenants, JSON of [tenant, id]."""

    number: int
    prefix: bytes
    suffix: bytes
    ref: str


class CompiledIndex:
    """One declared index under its number in the file."""

    __slots__ = ("columns", "contains", "declared", "number", "order")

    def __init__(self, number: int, declared: Index) -> None:
        self.number = number
        self.declared = declared
        self.order = declared.order
        self.contains = next(iter(declared.contains), None)
        self.columns = columns(declared)

    def entries(self, key: Key, fields: Fields) -> Iterable[Entry]:
        """One entry, one for each distinct element of a CONTAINS field, or none when a field is missing."""
        try:
            suffix = ordered(self.order, [fields[order.field] for order in self.order], key.id)
            values = [fields[column] for column in self.columns]
        except KeyError:
            return
        tenant = encode(key.tenant)
        if self.contains is None:
            yield Entry(self.number, tenant + b"".join(map(encode, values)), suffix, key.id)
            return
        rest = b"".join(map(encode, values[1:]))
        for element in elements(values[0]):
            yield Entry(self.number, tenant + element + rest, suffix, key.id)


class ExpiryIndex:
    """Documents of one collection, of all tenants, by the time at which they may be deleted."""

    __slots__ = ("collection", "field", "number")

    def __init__(self, number: int, collection: str, field: str) -> None:
        self.number = number
        self.collection = collection
        self.field = field

    def entries(self, key: Key, fields: Fields) -> Iterable[Entry]:
        expires = fields.get(self.field)
        if isinstance(expires, datetime):
            ref = json.dumps([key.tenant, key.id])
            yield Entry(self.number, b"", encode(expires) + encode(key.tenant) + encode(key.id), ref)


class Indexes:
    """All indexes of a store, by collection."""

    def __init__(self, declared: Iterable[CompiledIndex], expiry: Iterable[ExpiryIndex]) -> None:
        self.declared: dict[str, list[CompiledIndex]] = {}
        self.expiry = tuple(expiry)
        self._kept: dict[str, list[CompiledIndex | ExpiryIndex]] = {}
        for index in declared:
            self.declared.setdefault(index.declared.collection, []).append(index)
            self._kept.setdefault(index.declared.collection, []).append(index)
        for expiring in self.expiry:
            self._kept.setdefault(expiring.collection, []).append(expiring)

    def entries(self, key: Key, fields: Fields) -> frozenset[Entry]:
        """Everything that points at the document."""
        return frozenset(entry for index in self._kept.get(key.collection, ()) for entry in index.entries(key, fields))

    def covers(self, collection: str) -> bool:
        return collection in self._kept


def columns(index: Index) -> tuple[str, ...]:
    """The filtered fields as they stand in the prefix: an array first, so that no range can span two of its elements."""
    return tuple(sorted(index.fields, key=lambda field: field not in index.contains))


def ordered(order: Sequence[Order], values: Sequence[Value], name: str) -> bytes:
    """The suffix of a document, or of a cursor."""
    components = [
        descending(encode(value)) if by.descending else encode(value) for by, value in zip(order, values, strict=True)
    ]
    last = encode(name)
    return b"".join(components) + (descending(last) if order and order[-1].descending else last)


def definitions(schema: Schema) -> dict[str, Definition]:
    """Definition text → what it defines. Two releases whose texts are the same share the index as it is in the file.

    Raises ValueError for an index that no engine could keep.
    """
    found: dict[str, Definition] = {}
    for index in schema.indexes:
        _check(index)
        order = [[by.field, by.descending] for by in index.order]
        text = [_ENCODING, index.collection, columns(index), order, sorted(index.contains)]
        found[json.dumps(text)] = index
    for collection, field in schema.ttl_fields.items():
        found[json.dumps([_ENCODING, collection, "expires", field])] = (collection, field)
    return found


def _check(index: Index) -> None:
    named = (*index.fields, *(by.field for by in index.order))
    if len(set(named)) != len(named) or not named:
        raise ValueError(f"an index names at least one field and each once: {index}")
    if len(index.contains) > 1 or not index.contains <= set(index.fields):
        raise ValueError(f"an index has at most one array, which is among its fields: {index}")
