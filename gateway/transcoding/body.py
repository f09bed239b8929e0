"""A JSON body: text to a checked JSON value, and where exactly a bad one is bad.

Syntax, duplicate keys, unknown names and two members of one oneof are found here, in one pass over what a client sent.
Types and ranges are the codec's; only when it refuses a value is the place looked for, by asking it about ever smaller
parts.
"""

import json
from typing import Final

from chassis.errors import ApiError, Code, invalid_field
from gateway.transcoding.codec import BadValue, Codec
from gateway.transcoding.names import join, nearest
from gateway.transcoding.parameter import TEXT_MESSAGES, WRAPPERS, expected
from gateway.transcoding.schema import Field, Kind, Message, Schema

_WELL_KNOWN: Final = "google.protobuf."
_JSON_NAMES: Final = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


class _DuplicateKeyError(ValueError):
    pass


class _BareWordError(ValueError):
    pass


def parse(data: bytes) -> object:
    """The JSON value of a body. Raises ApiError (MALFORMED_JSON) with line and column where it is not JSON."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse)
    except UnicodeDecodeError as problem:
        raise _malformed(f"it is not UTF-8 (byte {problem.start})") from None
    except json.JSONDecodeError as problem:
        raise _malformed(f"{problem.msg} at line {problem.lineno}, column {problem.colno}") from None
    except _DuplicateKeyError as problem:
        raise _malformed(f"the key {str(problem)[:64]!r} stands twice in one object") from None
    except _BareWordError as problem:
        raise _malformed(f"{problem} is not JSON; write it as a string") from None
    except RecursionError:
        raise _malformed("it is nested too deeply") from None
    except ValueError:
        raise _malformed("a number has too many digits") from None


class BodyChecker:
    """Checks values against the messages of one API."""

    def __init__(self, schema: Schema, codec: Codec) -> None:
        self._schema = schema
        self._codec = codec

    def field(self, field: Field, value: object, at: str) -> object:
        """`value` for `field` with every key under its JSON name. Raises ApiError naming the path, which begins with `at`."""
        if field.kind is not Kind.MESSAGE or field.type_name.startswith(_WELL_KNOWN):
            return value
        message = self._schema.messages[field.type_name]
        if field.is_map and isinstance(value, dict):
            return {key: self.message(message, each, f'{at}["{key}"]') for key, each in value.items()}
        if field.repeated and isinstance(value, list):
            return [self.message(message, each, f"{at}[{index}]") for index, each in enumerate(value)]
        return self.message(message, value, at)

    def message(self, message: Message, value: object, at: str = "") -> object:
        """As `field`, for a message."""
        if not isinstance(value, dict):
            return value
        checked: dict[str, object] = {}
        chosen: dict[str, str] = {}
        for name, each in value.items():
            field = message.by_name.get(name)
            if field is None:
                raise invalid_field(join(at, name), f"There is no such field{nearest(name, message)}.")
            if field.json_name in checked:
                raise invalid_field(join(at, field.json_name), "The field is given twice, under both of its names.")
            if field.oneof and each is not None:
                other = chosen.setdefault(field.oneof, field.json_name)
                if other != field.json_name:
                    raise invalid_field(
                        join(at, field.json_name), f"{other!r} is set already: only one of them may be."
                    )
            checked[field.json_name] = (
                self.field(field, each, join(at, field.json_name)) if field.kind is Kind.MESSAGE else each
            )
        return checked

    def explain(self, message: Message, value: object, at: str = "") -> ApiError:
        """Why the codec refuses `value` for `message`: the path of the first wrong place, and what is accepted there."""
        if not isinstance(value, dict):
            return invalid_field(at or "body", f"An object is expected, not {_named(value)}.")
        for name, each in value.items():
            if not self._fits(message, name, each):
                return self._explain_field(message, message.by_name[name], name, each, join(at, name))
        return invalid_field(at or "body", "The value is not accepted.")

    def _explain_field(self, message: Message, field: Field, name: str, value: object, at: str) -> ApiError:
        if field.is_map and isinstance(value, dict):
            for key, each in value.items():
                if not self._fits(message, name, {key: each}):
                    return self._explain_one(field, each, f'{at}["{key}"]')
        if field.is_map:
            return invalid_field(at, f"An object is expected, not {_named(value)}.")
        if field.repeated and isinstance(value, list):
            for index, each in enumerate(value):
                if not self._fits(message, name, [each]):
                    return self._explain_one(field, each, f"{at}[{index}]")
        if field.repeated:
            return invalid_field(at, f"An array is expected, not {_named(value)}.")
        return self._explain_one(field, value, at)

    def _explain_one(self, field: Field, value: object, at: str) -> ApiError:
        inner = self._schema.messages.get(field.type_name)
        plain = field.type_name in TEXT_MESSAGES or field.type_name in WRAPPERS
        if field.kind is Kind.MESSAGE and inner is not None and not plain and isinstance(value, dict):
            return self.explain(inner, value, at)
        return invalid_field(at, f"{_capital(expected(field))} is expected, not {_named(value)}.")

    def _fits(self, message: Message, name: str, value: object) -> bool:
        try:
            self._codec[message.name].to_binary({name: value})
        except BadValue:
            return False
        return True


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        raise _DuplicateKeyError(next(name for name, _ in pairs if name in seen or seen.add(name)))  # type: ignore[func-returns-value]
    return made


def _refuse(word: str) -> object:
    raise _BareWordError(word)


def _malformed(why: str) -> ApiError:
    return ApiError(Code.INVALID_ARGUMENT, "MALFORMED_JSON", f"The body is not JSON: {why}.")


def _named(value: object) -> str:
    """The value, briefly, as the client knows it."""
    if isinstance(value, str) and len(value) <= 32:  # noqa: PLR2004 - a message, not a mirror
        return json.dumps(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return json.dumps(value) if not isinstance(value, int) or abs(value) < 1 << 64 else "such a big number"
    return _JSON_NAMES.get(type(value), "this")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
