"""firestore.indexes.json from what the services declare: `python tools/indexes.py`, or `--check` in CI.

Every declared query is served, and nothing else: a wildcard exemption takes the automatic indexes away from each
collection, which would cost a write for every field of every document, and the declared ones are put in its place.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "gen")]

from chassis.store.firestore import collection_id  # noqa: E402 - after the path
from chassis.store.firestore_names import field_path  # noqa: E402 - as above
from chassis.store.port import Index, Schema  # noqa: E402 - as above

TARGET: Final = ROOT / "firestore.indexes.json"
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


def declared() -> dict[str, Schema]:
    """The schemas of all services that there are."""
    from launcher.targets import SERVICES  # noqa: PLC0415 - for the command alone

    return {name: importlib.import_module(module).SPEC.schema for name, module in SERVICES.items()}


def text() -> str:
    return json.dumps(definition(declared()), indent=2) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when the file is not up to date")
    if parser.parse_args().check:
        if TARGET.read_text(encoding="utf-8") == text():
            return 0
        print("firestore.indexes.json is not what the services declare: run python tools/indexes.py", file=sys.stderr)
        return 1
    TARGET.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
