"""firestore.indexes.json from what services declare.

Every declared query is served, and nothing else: a wildcard exemption takes the automatic indexes away from each
collection, which would cost a write for every field of every document, and the declared ones are put in its place.
Reference: https://firebase.google.com/docs/reference/firestore/indexes
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

from chassis.store.firestore import collection_id
from chassis.store.firestore_names import field_path
from chassis.store.port import Index, Schema

_UP, _DOWN, _CONTAINS = "ASCENDING", "DESCENDING", "CONTAINS"


def definition(schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """The file's content for the schemas of services, by service name."""
    composite: dict[str, dict[str, Any]] = {}
    overrides: dict[tuple[str, str], dict[str, Any]] = {}
    for service, schema in schemas.items():
        for index in schema.indexes:
            group = collection_id(service, index.collection)
            overrides.setdefault((group, "*"), _override(group, "*", ()))
            for fields in _needed(index):
                if len(fields) > 1:
                    entry = {
                        "collectionGroup": group,
                        "queryScope": "COLLECTION",
                        "fields": [_field(*f) for f in fields],
                    }
                    composite[json.dumps(entry)] = entry
                elif fields:
                    path, mode = fields[0]
                    modes = (_CONTAINS,) if mode == _CONTAINS else (_UP, _DOWN)
                    _add(overrides, group, field_path(path), modes)
        for collection, name in schema.ttl_fields.items():
            group = collection_id(service, collection)
            overrides.setdefault((group, "*"), _override(group, "*", ()))
            kept = overrides.setdefault((group, field_path(name)), _override(group, field_path(name), ()))
            kept["ttl"] = True
    return {
        "indexes": [composite[key] for key in sorted(composite)],
        "fieldOverrides": [overrides[key] for key in sorted(overrides)],
    }


def _needed(index: Index) -> Iterator[tuple[tuple[str, str], ...]]:
    """The index, and those of its order with fewer of its fields: a filter by NE, a second CONTAINS or a list too long is
    checked by the store, which then asks without it."""
    order = tuple((by.field, _DOWN if by.descending else _UP) for by in index.order)
    for number in range(len(index.fields) + 1):
        for fields in combinations(index.fields, number):
            yield (*((name, _CONTAINS if name in index.contains else _UP) for name in fields), *order)


def _add(overrides: dict[tuple[str, str], dict[str, Any]], group: str, path: str, modes: Iterable[str]) -> None:
    kept = overrides.setdefault((group, path), _override(group, path, ()))
    for mode in modes:
        entry = {"queryScope": "COLLECTION", **_mode(mode)}
        if entry not in kept["indexes"]:
            kept["indexes"].append(entry)


def _override(group: str, path: str, indexes: Iterable[dict[str, str]]) -> dict[str, Any]:
    return {"collectionGroup": group, "fieldPath": path, "indexes": list(indexes)}


def _field(name: str, mode: str) -> dict[str, str]:
    return {"fieldPath": field_path(name), **_mode(mode)}


def _mode(mode: str) -> dict[str, str]:
    return {"arrayConfig": mode} if mode == _CONTAINS else {"order": mode}
