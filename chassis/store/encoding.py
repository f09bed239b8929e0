"""Values as bytes whose memcmp order is Firestore's order of values, so that an index is one sorted set of bytes.

Every encoding is prefix-free and starts with a tag between 0x01 and 0xFE. Hence encodings can be concatenated, a
descending component is the bitwise complement of an ascending one, and `x + END` lies behind everything that goes on
from `x` and before everything else.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from chassis.store.port import Value

END: Final = b"\xff"
"""Behind every encoding that starts with what it is appended to."""
ABOVE_NULL: Final = b"\x02"
"""Before every encoding but null's."""

_NULL: Final = b"\x01"
_FALSE: Final = b"\x02\x01"
_TRUE: Final = b"\x02\x02"
_NUMBER: Final = b"\x03"
_TIMESTAMP: Final = b"\x04"
_STRING: Final = b"\x05"
_BYTES: Final = b"\x06"
_ARRAY: Final = b"\x07"
_MAP: Final = b"\x08"
_STOP: Final = b"\x00"
_NAN: Final = _NUMBER + bytes(10)
_COMPLEMENT: Final = bytes(255 - byte for byte in range(256))
_SIGN: Final = 1 << 63
_ALL: Final = (1 << 64) - 1
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def encode(value: Value) -> bytes:  # noqa: PLR0911 - one return a type reads best
    """The order-preserving bytes of any value of the port."""
    if value is None:
        return _NULL
    if isinstance(value, str):
        return _STRING + _delimited(value.encode())
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, datetime):
        return _TIMESTAMP + struct.pack(">Q", microseconds(value) + _SIGN)
    if isinstance(value, bytes):
        return _BYTES + _delimited(value)
    if isinstance(value, Mapping):
        named = sorted((encode(name), entry) for name, entry in value.items())
        return _MAP + b"".join(name + encode(entry) for name, entry in named) + _STOP
    return _ARRAY + b"".join(map(encode, value)) + _STOP


def descending(encoded: bytes) -> bytes:
    """The same component for an index that runs downwards."""
    return encoded.translate(_COMPLEMENT)


def elements(value: Value) -> list[bytes]:
    """The distinct encoded elements of an array; none for anything else."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return list(dict.fromkeys(map(encode, value)))
    return []


def microseconds(moment: datetime) -> int:
    """Whole microseconds since 1970, exact (a float of seconds is not)."""
    return (moment - EPOCH) // _MICROSECOND


def incomparable(value: Value) -> bool:
    """Null and NaN: found by EQ and excluded by NE, matched by no other comparison."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _delimited(raw: bytes) -> bytes:
    return raw.replace(b"\x00", b"\x00\xff") + b"\x00\x01"


def _float(value: float) -> bytes:
    return _NAN if math.isnan(value) else _number(value + 0.0, 0)  # + 0.0 makes -0.0 equal to 0.0


def _integer(value: int) -> bytes:
    """The largest double not above the integer, then what the integer has on top of it: exact, where a plain double
    would make neighbours beyond 2^53 equal."""
    if not -_SIGN <= value < _SIGN:
        raise ValueError("an integer has more than 64 bits")
    floor = float(value)
    if int(floor) > value:
        floor = math.nextafter(floor, -math.inf)
    return _number(floor, value - int(floor))


def _number(floor: float, rest: int) -> bytes:
    bits = int.from_bytes(struct.pack(">d", floor), "big")
    ordered = bits ^ (_ALL if bits & _SIGN else _SIGN)
    return _NUMBER + struct.pack(">QH", ordered, rest)
