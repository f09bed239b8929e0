"""HPACK (RFC 7541) without a dynamic table: what a client needs that announces SETTINGS_HEADER_TABLE_SIZE 0.

Without that table a block means the same wherever it stands, so blocks can be kept, compared and skipped.
"""

from typing import Final

Header = tuple[bytes, bytes]


class HpackError(ValueError):
    """The block is not one that a peer may send us."""


_CODE_LENGTHS: Final = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b08060606"
    "0505050606060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e06"
    "0f05060506050606060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817"
    "181816171817171717151617161717181615141616171715171616181516171715151615171617171416161617161617"
    "1a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a17"
    "1a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)
_STATIC: Final[tuple[Header, ...]] = (
    (b":authority", b""), (b":method", b"GET"), (b":method", b"POST"), (b":path", b"/"), (b":path", b"/index.html"),
    (b":scheme", b"http"), (b":scheme", b"https"), (b":status", b"200"), (b":status", b"204"), (b":status", b"206"),
    (b":status", b"304"), (b":status", b"400"), (b":status", b"404"), (b":status", b"500"), (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"), (b"accept-language", b""), (b"accept-ranges", b""), (b"accept", b""),
    (b"access-control-allow-origin", b""), (b"age", b""), (b"allow", b""), (b"authorization", b""),
    (b"cache-control", b""), (b"content-disposition", b""), (b"content-encoding", b""), (b"content-language", b""),
    (b"content-length", b""), (b"content-location", b""), (b"content-range", b""), (b"content-type", b""),
    (b"cookie", b""), (b"date", b""), (b"etag", b""), (b"expect", b""), (b"expires", b""), (b"from", b""),
    (b"host", b""), (b"if-match", b""), (b"if-modified-since", b""), (b"if-none-match", b""), (b"if-range", b""),
    (b"if-unmodified-since", b""), (b"last-modified", b""), (b"link", b""), (b"location", b""),
    (b"max-forwards", b""), (b"proxy-authenticate", b""), (b"proxy-authorization", b""), (b"range", b""),
    (b"referer", b""), (b"refresh", b""), (b"retry-after", b""), (b"server", b""), (b"set-cookie", b""),
    (b"strict-transport-security", b""), (b"transfer-encoding", b""), (b"user-agent", b""), (b"vary", b""),
    (b"via", b""), (b"www-authenticate", b""),
)  # fmt: skip

_EOS: Final = 256
_MORE: Final = 0x80
_TABLE_SIZE_UPDATE: Final = 0x20
_LONGEST_INTEGER: Final = 5
"""Bytes after the prefix; more than 2³⁵ is nothing that a block of ours can hold."""


def _codes() -> dict[tuple[int, int], int]:
    """(bits, code) → symbol. The code of the RFC is canonical, so the lengths say it all."""
    codes, code, length = {}, 0, 0
    for symbol in sorted(range(len(_CODE_LENGTHS)), key=lambda each: (_CODE_LENGTHS[each], each)):
        code <<= _CODE_LENGTHS[symbol] - length
        length = _CODE_LENGTHS[symbol]
        codes[length, code] = symbol
        code += 1
    return codes


_SYMBOLS: Final = _codes()


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """`value` behind a prefix of `bits` bits, the rest of whose byte is `first` (§5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    out = bytearray((first | most,))
    value -= most
    while value >= _MORE:
        out.append(value & 0x7F | _MORE)
        value >>= 7
    out.append(value)
    return bytes(out)


def literal(name: bytes, value: bytes, *, secret: bool = False) -> bytes:
    """A field that no table keeps; `secret` forbids it to everyone on the way (§6.2.3)."""
    head = b"\x10" if secret else b"\x00"
    return head + integer(len(name), 7) + name + integer(len(value), 7) + value


def decode(block: bytes) -> list[Header]:
    """The fields of a whole block. Raises HpackError, also for a reference to the table that there is not."""
    headers: list[Header] = []
    position = 0
    try:
        while position < len(block):
            first = block[position]
            if first & 0x80:
                index, position = _integer(block, position, 7)
                headers.append(_entry(index))
            elif first & 0xE0 == _TABLE_SIZE_UPDATE:
                size, position = _integer(block, position, 5)
                if size:
                    raise HpackError("a table was not offered")
            else:
                index, position = _integer(block, position, 6 if first & 0x40 else 4)
                if index:
                    name = _entry(index)[0]
                else:
                    name, position = _string(block, position)
                value, position = _string(block, position)
                headers.append((name, value))
    except IndexError:
        raise HpackError("the block ends within a field") from None
    return headers


def _entry(index: int) -> Header:
    if not 0 < index <= len(_STATIC):
        raise HpackError(f"there is no entry {index}")
    return _STATIC[index - 1]


def _integer(block: bytes, position: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    value = block[position] & most
    position += 1
    if value < most:
        return value, position
    for shift in range(0, 7 * _LONGEST_INTEGER, 7):
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < _MORE:
            return value, position
    raise HpackError("an integer is too long")


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    coded = block[position] & 0x80
    length, position = _integer(block, position, 7)
    end = position + length
    if end > len(block):
        raise HpackError("the block ends within a string")
    raw = block[position:end]
    return (_huffman(raw) if coded else raw), end


def _huffman(raw: bytes) -> bytes:
    out = bytearray()
    code = length = 0
    for byte in raw:
        for shift in range(7, -1, -1):
            code = code << 1 | byte >> shift & 1
            length += 1
            symbol = _SYMBOLS.get((length, code))
            if symbol is not None:
                if symbol == _EOS:
                    raise HpackError("the end of a string is in its middle")
                out.append(symbol)
                code = length = 0
    if length > 7 or code != (1 << length) - 1:  # noqa: PLR2004 - padding is less than a byte, of ones (§5.2)
        raise HpackError("a string is padded wrongly")
    return bytes(out)
