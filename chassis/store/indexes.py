"""Declared indexes, compiled: which entries a document has in each.

An entry is (prefix, suffix): the prefix holds the tenant and the filtered values, the suffix the ordered values and the
id. A query fixes the prefix, so that its answer is one run of suffixes, already in order. An order and its reverse are
one index, which is kept forwards and read from either end.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeAlias

from chassis.store.encoding import descending, elements, encode
from chassis.store.port import Fields, Index, Key, Order, Schema, Value

_ENCODING: Final = 1
"""Part of an index's identity: a release that encodes differently rebuilds every index."""

Entry: TypeAlias = tuple[int, bytes, bytes, str]
"""A row of the table `entries`: index number, prefix, suffix, and what finds the document: its id, or, in an index
across tenants, JSON of [tenant, id]. A plain tuple: there are a dozen for each document written."""


class CompiledIndex:
    """One declared index under its number in the file. `order` is the declared one; `kept` is how its entries are in
    the file, and `backwards` whether that is the other way round."""

    __slots__ = ("backwards", "columns", "contains", "declared", "kept", "number", "order")

    def __init__(self, number: int, declared: Index) -> None:
        self.number = number
        self.declared = declared
        self.order = declared.order
        self.kept = _forwards(declared.order)
        self.backwards = self.kept != self.order
        self.contains = next(iter(declared.contains), None)
        self.columns = columns(declared)


@dataclass(frozen=True, slots=True)
class ExpiryIndex:
    """Documents of one collection, of all tenants, by the time at which they may be deleted."""

    number: int
    collection: str
    field: str


class Indexes:
    """All indexes of a store, by collection."""

    def __init__(self, declared: Iterable[CompiledIndex], expiry: Iterable[ExpiryIndex]) -> None:
        self.declared: dict[str, list[CompiledIndex]] = {}
        self.expiry = tuple(expiry)
        for index in declared:
            self.declared.setdefault(index.declared.collection, []).append(index)
        self._kept = {collection: _Collection(those) for collection, those in self.declared.items()}
        self._expiring = {expiring.collection: expiring for expiring in self.expiry}

    def entries(self, key: Key, fields: Fields) -> list[Entry]:
        """Everything that points at the document, each once."""
        kept = self._kept.get(key.collection)
        found = [] if kept is None else kept.entries(key, fields)
        expiring = self._expiring.get(key.collection)
        if expiring is not None and isinstance(expires := fields.get(expiring.field), datetime):
            ref = json.dumps([key.tenant, key.id])
            found.append((expiring.number, b"", encode(expires) + encode(key.tenant) + encode(key.id), ref))
        return found

    def covers(self, collection: str) -> bool:
        return collection in self._kept or collection in self._expiring


class _Collection:
    """The indexes of one collection, laid out so that a document's values are encoded once each, whatever the number of
    indexes that they are in."""

    def __init__(self, declared: Iterable[CompiledIndex]) -> None:
        kept = {index.number: index for index in declared}.values()
        self._orders = tuple(dict.fromkeys(index.kept for index in kept))
        self._filtered: dict[tuple[tuple[str, ...], str | None], list[tuple[int, int]]] = {}
        for index in kept:
            numbered = (index.number, self._orders.index(index.kept))
            self._filtered.setdefault((index.columns, index.contains), []).append(numbered)
        ordered_by = {by.field for order in self._orders for by in order}
        self._plain = ordered_by | {name for index in kept for name in index.columns if name != index.contains}

    def entries(self, key: Key, fields: Fields) -> list[Entry]:
        """One entry an index, one for each distinct element of a CONTAINS field, or none when a field is missing."""
        tenant, name, ref = encode(key.tenant), encode(key.id), key.id
        encoded = {field: encode(fields[field]) for field in self._plain if field in fields}
        suffixes = [_suffix(order, encoded, name) for order in self._orders]
        found: list[Entry] = []
        for (filtered, contains), numbered in self._filtered.items():
            prefixes = _prefixes(tenant, filtered, contains, fields, encoded)
            for number, order in numbered:
                suffix = suffixes[order]
                if suffix is not None:
                    found += [(number, prefix, suffix, ref) for prefix in prefixes]
        return found


def _prefixes(
    tenant: bytes, filtered: Sequence[str], contains: str | None, fields: Fields, encoded: Mapping[str, bytes]
) -> list[bytes]:
    try:
        rest = b"".join([encoded[column] for column in filtered if column != contains])
        searched = () if contains is None else elements(fields[contains])
    except KeyError:
        return []
    return [tenant + rest] if contains is None else [tenant + element + rest for element in searched]


def _suffix(order: Sequence[Order], encoded: Mapping[str, bytes], name: bytes) -> bytes | None:
    try:
        return _joined(order, [encoded[by.field] for by in order], name)
    except KeyError:
        return None


def columns(index: Index) -> tuple[str, ...]:
    """The filtered fields as they stand in the prefix: an array first, so that no range can span two of its elements."""
    return tuple(sorted(index.fields, key=lambda field: field not in index.contains))


def ordered(order: Sequence[Order], values: Sequence[Value], name: str) -> bytes:
    """The suffix of a document, or of a cursor."""
    return _joined(order, [encode(value) for value in values], encode(name))


def _joined(order: Sequence[Order], encoded: Sequence[bytes], name: bytes) -> bytes:
    components = [descending(each) if by.descending else each for by, each in zip(order, encoded, strict=True)]
    return b"".join(components) + (descending(name) if order and order[-1].descending else name)


def _forwards(order: tuple[Order, ...]) -> tuple[Order, ...]:
    """The order or its reverse, whichever begins upwards."""
    if order and order[0].descending:
        return tuple(replace(by, descending=not by.descending) for by in order)
    return order


def definitions(schema: Schema) -> dict[str, None]:
    """What a file must keep, as texts. Two releases whose texts are the same share the index as it is in the file.

    Raises ValueError for an index that no engine could keep.
    """
    for index in schema.indexes:
        _check(index)
    expiring = (_expiry_definition(collection, field) for collection, field in schema.ttl_fields.items())
    return dict.fromkeys([*map(_definition, schema.indexes), *expiring])


def compiled(schema: Schema, numbers: Mapping[str, int]) -> Indexes:
    """The schema's indexes whose definitions have a number."""
    texts = ((_definition(index), index) for index in schema.indexes)
    declared = [CompiledIndex(numbers[text], index) for text, index in texts if text in numbers]
    ends = (
        (_expiry_definition(collection, field), collection, field) for collection, field in schema.ttl_fields.items()
    )
    return Indexes(declared, [ExpiryIndex(numbers[text], *where) for text, *where in ends if text in numbers])


def _definition(index: Index) -> str:
    order = [[by.field, by.descending] for by in _forwards(index.order)]
    return json.dumps([_ENCODING, index.collection, columns(index), order, sorted(index.contains)])


def _expiry_definition(collection: str, field: str) -> str:
    return json.dumps([_ENCODING, collection, "expires", field])


def _check(index: Index) -> None:
    named = (*index.fields, *(by.field for by in index.order))
    if len(set(named)) != len(named) or not named:
        raise ValueError(f"an index names at least one field and each once: {index}")
    if len(index.contains) > 1 or not index.contains <= set(index.fields):
        raise ValueError(f"an index has at most one array, which is among its fields: {index}")
