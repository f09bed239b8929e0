"""JSON ↔ protobuf, in canonical proto3 JSON: the only file that knows the protobuf-py runtime.

Messages are named as in the protos (`bas.devices.v2.Device`). A JSON value comes in as Python's own (`dict`, `list`,
`str` …), parsed by the caller, and goes out as text. Differences from `google.protobuf.json_format`, each held by a
test: `docs/gateway.md`, "JSON".
"""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any, Final

from protobuf import DescMessage, Message, Registry, wkt

_GENERATED: Final = "bas_json."
_DESCRIPTORS: Final = ("google.protobuf.compiler.", "google.api.")


class BadValue(ValueError):
    """A JSON value does not fit its message. The text is the codec's own and is not for callers."""


class JsonType:
    """One message type in both forms."""

    __slots__ = ("_decode", "_encode", "name")

    def __init__(self, name: str, message: type[Message[Any]]) -> None:
        self.name = name
        self._encode: Callable[..., Message[Any]] = message._from_json_value  # noqa: SLF001 - message_from_json_value is one call more
        self._decode: Callable[[bytes], Message[Any]] = message.from_binary

    def to_binary(self, tree: object) -> bytes:
        """The wire form of a JSON value. Raises BadValue."""
        try:
            return self._encode(tree, ignore_unknown_fields=False, registry=None).to_binary()
        except (ValueError, TypeError, OverflowError, RecursionError) as problem:
            raise BadValue(str(problem)) from None

    def from_binary(self, data: bytes) -> "Decoded":
        """Raises BadValue when `data` is not a message of this type."""
        try:
            return Decoded(self._decode(data))
        except (ValueError, TypeError, RecursionError) as problem:
            raise BadValue(str(problem)) from None


class Decoded:
    """A message on its way to JSON; fields can be looked at before, or instead of, writing it all."""

    __slots__ = ("_message",)

    def __init__(self, message: Message[Any]) -> None:
        self._message = message

    def text(self, path: tuple[str, ...]) -> str:
        """The string field at `path` (proto names), "" when something on the way is not set."""
        value: Any = self._message
        for name in path:
            value = getattr(value, name, None)
        return value if isinstance(value, str) else ""

    def json(self) -> bytes:
        """Fields with implicit presence are always there. Raises BadValue for what JSON cannot say."""
        try:
            return self._message.to_json(always_emit_implicit=True).encode()
        except (ValueError, TypeError) as problem:
            raise BadValue(str(problem)) from None


class Codec:
    """The types of the API by full name."""

    def __init__(self, types: Mapping[str, JsonType]) -> None:
        self._types = types

    def __getitem__(self, name: str) -> JsonType:
        return self._types[name]

    def __contains__(self, name: str) -> bool:
        return name in self._types

    def names(self) -> Iterable[str]:
        return self._types.keys()


def load_codec(files: Iterable[str], package: str = _GENERATED) -> Codec:
    """The codec of every message in these proto files (`bas/devices/v2/devices.proto`), whose generated modules lie in
    `package`, and of the well-known types. Raises ImportError when code was not generated for one."""
    registry = Registry()
    for file in files:
        module = import_module(package + file.removesuffix(".proto").replace("/", ".") + "_pb")
        registry.add(module.desc())
    registry.add(wkt.Empty)
    return Codec(
        {
            each.type_name: JsonType(each.type_name, each.type)
            for each in registry
            if isinstance(each, DescMessage) and not each.type_name.startswith(_DESCRIPTORS)
        }
    )
