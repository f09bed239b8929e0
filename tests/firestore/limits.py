"""Quotas and limits, and the published accounting of a document's size."""

from dataclasses import dataclass
from typing import Any

from tests.firestore.wire import invalid

MAX_ID_BYTES = 1500
MAX_DEPTH = 20
_MAP_OVERHEAD = 32
_DOCUMENT_OVERHEAD = 32
_NAME_OVERHEAD = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """`writes` None: production has had no limit on the writes of a commit since 2023, only on its bytes."""

    document_bytes: int = 1 << 20
    request_bytes: int = 10 << 20
    writes: int | None = None


def check_name(name: str, prefix: str) -> None:
    """A document's full name under `prefix` (`projects/p/databases/d/documents`), of well-formed ids; else refused."""
    if not name.startswith(prefix + "/"):
        raise invalid(f'Document name "{name}" is not of the database "{prefix.removesuffix("/documents")}".')
    check_path(name[len(prefix) + 1 :], even=True)


def check_path(path: str, *, even: bool) -> None:
    segments = path.split("/")
    if (len(segments) % 2 == 0) != even:
        raise invalid(
            f'Document name "{path}" has invalid trailing or missing segments: collection/id pairs are wanted.'
        )
    for segment in segments:
        if not segment:
            raise invalid(f'Document name "{path}" has an empty segment.')
        if segment in {".", ".."}:
            raise invalid(f'Resource id "{segment}" is invalid because it is . or ..')
        if len(segment) >= 4 and segment.startswith("__") and segment.endswith("__"):
            raise invalid(f'Resource id "{segment}" is invalid because it is reserved.')
        if len(segment.encode()) > MAX_ID_BYTES:
            raise invalid(f"Resource id is longer than {MAX_ID_BYTES} bytes.")


def check_document(name: str, document: Any, limits: Limits, prefix: str) -> None:
    """Field names, nesting and size; else refused."""
    size = name_size(name[len(prefix) + 1 :]) + _fields(document.fields, 0, prefix) + _DOCUMENT_OVERHEAD
    if size > limits.document_bytes:
        raise invalid(
            f"Document '{name}' cannot be written because its size ({size:,} bytes) exceeds the maximum allowed size of "
            f"{limits.document_bytes:,} bytes."
        )


def name_size(path: str) -> int:
    return sum(len(segment.encode()) + 1 for segment in path.split("/")) + _NAME_OVERHEAD


def _fields(fields: Any, depth: int, prefix: str) -> int:
    if depth > MAX_DEPTH:
        raise invalid(f"Property contains a value nested deeper than {MAX_DEPTH} levels.")
    size = 0
    for name, value in fields.items():
        length = len(name.encode())
        if not 1 <= length <= MAX_ID_BYTES:
            raise invalid(f"Property name is of {length} bytes: 1 to {MAX_ID_BYTES} are allowed.")
        if len(name) >= 4 and name.startswith("__") and name.endswith("__"):
            raise invalid(f'Property name "{name}" is reserved.')
        size += length + 1 + _value(value, depth, prefix)
    return size


def _value(value: Any, depth: int, prefix: str) -> int:  # noqa: PLR0911 - one return a type reads best
    match value.WhichOneof("value_type"):
        case "null_value" | "boolean_value":
            return 1
        case "integer_value" | "double_value" | "timestamp_value":
            return 8
        case "string_value":
            return len(value.string_value.encode()) + 1
        case "bytes_value":
            return len(value.bytes_value)
        case "reference_value":
            return name_size(value.reference_value.removeprefix(prefix + "/"))
        case "geo_point_value":
            return 16
        case "array_value":
            return _array(value.array_value.values, depth + 1, prefix)
        case "map_value":
            return _fields(value.map_value.fields, depth + 1, prefix) + _MAP_OVERHEAD
        case kind:
            raise invalid(f"Value of an unsupported type: {kind}")


def _array(values: Any, depth: int, prefix: str) -> int:
    if depth > MAX_DEPTH:
        raise invalid(f"Property contains a value nested deeper than {MAX_DEPTH} levels.")
    if any(item.WhichOneof("value_type") == "array_value" for item in values):
        raise invalid("Cannot convert an array value in an array value.")
    return sum(_value(item, depth, prefix) for item in values)
