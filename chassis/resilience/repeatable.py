"""Whether a call may be sent again without knowing what became of it: by its policy, and by what is in the request."""

from typing import Final

from chassis.policies import Policy, Retry

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED: Final = {_FIXED64: 8, _FIXED32: 4}
_LONGEST: Final = 10


def repeatable(policy: Policy, request: bytes) -> bool:
    """`request` is the serialized message. False for streams, which are begun anew by whoever reads them."""
    if policy.retry is Retry.SAFE:
        return True
    return policy.retry in (Retry.WITH_REQUEST_ID, Retry.WITH_ETAG) and bool(policy.key) and has(request, policy.key)


def has(message: bytes, path: tuple[int, ...]) -> bool:
    """Whether the string at a path of field numbers is set, and not empty. A message that is not well-formed has
    nothing. Parsed by hand: the gateway calls without the message's class, and only the failed ask."""
    parts = [message]
    for number in path:
        try:
            parts = [value for part in parts for value in _values(part, number)]
        except (IndexError, ValueError):
            return False
    return bool(parts) and bool(parts[-1])


def _values(message: bytes, number: int) -> list[bytes]:
    """The values of a length-delimited field, in order."""
    found, at = [], 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _BYTES:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError("the message ends within a field")
            if tag >> 3 == number:
                found.append(message[at : at + size])
            at += size
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise ValueError("groups are not in use")
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_LONGEST):
        byte = message[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:  # noqa: PLR2004 - the last one
            return value, at + index + 1
    raise ValueError("a number is too long")
