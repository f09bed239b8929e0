"""Documents as text: JSON, which a person can read in the file and which C code parses.

What JSON lacks is an object with one key: `{"$time": µs}`, `{"$bytes": base64}`; a map that looks like one of these is
wrapped in `{"$map": …}`. The same walk checks that a value is one of the port's and adds up its size by Firestore's
accounting (https://firebase.google.com/docs/firestore/storage-size).
"""

import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from chassis.store.encoding import EPOCH, microseconds
from chassis.store.port import Document, DocumentTooLarge, Fields, Key, Value

MAX_DOCUMENT: Final = 1024 * 1024
MAX_COMMIT: Final = 10 * 1024 * 1024
MAX_NAME: Final = 1500
MAX_DEPTH: Final = 20
_INT64: Final = 1 << 63
_OVERHEAD: Final = 32 + 16
_ROOT: Final = len("tenants") + 1
_plain: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def pack(key: Key, fields: Fields) -> tuple[str, int]:
    """(text, size in bytes). The text is the stored array less its first element, the version.

    Raises ValueError for what no engine can hold, DocumentTooLarge over 1 MiB.
    """
    if "" in fields:
        raise ValueError("a field has no name")
    size = _OVERHEAD + _ROOT + sum(_text(part) for part in (key.tenant, key.collection, key.id))
    natural, held = _map(fields, 0)
    size += held
    if _looks_special(natural):
        natural = {"$map": list(natural.items())}
    if size > MAX_DOCUMENT:
        raise DocumentTooLarge
    return f"{_plain(key.id)},{_plain(natural)}]", size


def unpack(tenant: str, collection: str, text: str) -> Document:
    """The document of one stored array, `[version, id, fields]`."""
    return document(tenant, collection, parse(text))


def document(tenant: str, collection: str, stored: Sequence[Any]) -> Document:
    version, name, fields = stored
    return Document(Key(tenant, collection, name), version, fields)


def parse(text: str) -> Any:
    """Stored JSON with its values restored."""
    return _special(text) if '"$' in text else json.loads(text)


def check_key(key: Key) -> None:
    """Raises ValueError for an address that no engine can hold."""
    for part in (key.tenant, key.collection, key.id):
        if not part or len(part.encode()) > MAX_NAME:
            raise ValueError(f"each part of a key has 1 to {MAX_NAME} bytes")


def _text(value: str) -> int:
    return len(value) + 1 if value.isascii() else len(value.encode()) + 1


def _map(fields: Mapping[str, Value], depth: int) -> tuple[dict[str, Any], int]:
    if depth > MAX_DEPTH:
        raise ValueError(f"values are nested deeper than {MAX_DEPTH}")
    natural: dict[str, Any] = {}
    size = 0
    for name, value in fields.items():
        natural[name], held = _value(value, depth)
        size += _text(name) + held
    return natural, size


def _value(value: Value, depth: int) -> tuple[Any, int]:
    kind = type(value)
    if kind is str:
        return value, _text(value)  # type: ignore[arg-type]  # what most values are, told without asking what it is like
    if kind is dict:
        natural, size = _map(value, depth + 1)  # type: ignore[arg-type]
        return ({"$map": list(natural.items())} if _looks_special(natural) else natural), size
    if kind is list:
        return _array(value, depth + 1)  # type: ignore[arg-type]
    return _other(value, depth)


def _other(value: Value, depth: int) -> tuple[Any, int]:  # noqa: C901, PLR0911 - one return a type reads best
    if value is None or isinstance(value, bool):
        return value, 1
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a timestamp has no time zone")
        return {"$time": microseconds(value)}, 8
    if isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            raise ValueError("an integer has more than 64 bits")
        return int(value), 8
    if isinstance(value, float):
        return value, 8
    if isinstance(value, str):
        return value, _text(value)
    if isinstance(value, bytes):
        return {"$bytes": binascii.b2a_base64(value, newline=False).decode()}, len(value)
    if isinstance(value, Mapping):
        return _value(dict(value), depth)
    if isinstance(value, Sequence):
        return _value(list(value), depth)
    raise ValueError(f"{type(value).__name__} is not a value of the store")


def _array(values: Sequence[Value], depth: int) -> tuple[list[Any], int]:
    if depth > MAX_DEPTH:
        raise ValueError(f"values are nested deeper than {MAX_DEPTH}")
    natural, size = [], 0
    for value in values:
        if type(value) is not str and isinstance(value, Sequence) and not isinstance(value, str | bytes):
            raise ValueError("an array cannot hold an array: wrap the inner one in a map")
        item, held = _value(value, depth)
        natural.append(item)
        size += held
    return natural, size


def _looks_special(natural: Mapping[str, Any]) -> bool:
    return len(natural) == 1 and next(iter(natural)) in _RESTORE


def _restored(found: dict[str, Any]) -> Any:
    if len(found) == 1:
        ((name, held),) = found.items()
        restore = _RESTORE.get(name)
        if restore is not None:
            return restore(held)
    return found


def _moment(since: int) -> datetime:
    return EPOCH + timedelta(microseconds=since)


_RESTORE: Final[dict[str, Any]] = {"$time": _moment, "$bytes": binascii.a2b_base64, "$map": dict}
_special: Final = json.JSONDecoder(object_hook=_restored).decode
