"""Ids and field names as Firestore can hold them: reversible, in the same order, and readable wherever they were plain.

Firestore refuses ids with a slash, the ids `.` and `..`, ids and field names that look like `__this__`, empty names, and
names over 1500 bytes (https://firebase.google.com/docs/firestore/quotas). Each forbidden character becomes two that
sort where it sorted, so that documents ordered by id come in the same order on every engine.
"""

import re
from hashlib import sha256
from typing import Final

COMMIT: Final = "_commit"
"""The reserved field of every document: the random id of the commit that wrote it. It tells a commit that was applied
although its answer got lost, and makes every write a change, so that the version differs after it."""
ID: Final = "_id"
"""The reserved field of a document whose id is too long for its path: the id."""
RESERVED: Final = frozenset({COMMIT, ID})
MAX_NAME: Final = 1500

_END: Final = " !"
_CUT: Final = " ?"
_PLAIN: Final = re.compile(r"(?!__)[^\x00-\x20./]{1,375}")
"""Ids that are their own encoding: 375 characters are at most 1500 bytes."""
_CODES: Final = {
    **{number: " " + chr(0x40 + number) for number in range(0x20)},
    0x20: " ~",
    ord("."): ".-",
    ord("/"): "._",
}
_BACK: Final = {code: chr(number) for number, code in _CODES.items()}
_CODE: Final = re.compile(r"[ .].", re.DOTALL)
_SIMPLE_FIELD: Final = re.compile(r"[A-Za-z][A-Za-z_0-9]{0,99}")
_KEPT: Final = MAX_NAME - len(_CUT) - 64


def encode_id(text: str) -> str:
    """A path segment for any text of 1 to 1500 bytes. One that becomes too long ends in a hash, and its document holds
    the id in a field; such ids keep their order down to the first 1434 bytes."""
    if _PLAIN.fullmatch(text):
        return text
    coded = text.translate(_CODES)
    if text.startswith("__"):
        coded += _END
    raw = coded.encode()
    if len(raw) <= MAX_NAME:
        return coded
    return raw[:_KEPT].decode(errors="ignore") + _CUT + sha256(raw).hexdigest()


def decode_id(segment: str) -> str | None:
    """The id of a path segment, or None when only the document's `ID` field knows it."""
    if " " not in segment and "." not in segment:
        return segment
    if segment[-66:-64] == _CUT:
        return None
    return _CODE.sub(lambda found: _BACK[found[0]], segment.removesuffix(_END))


def encode_field(name: str) -> str:
    """The stored name of a field. Raises ValueError over 1500 bytes, which Firestore cannot hold."""
    if _SIMPLE_FIELD.fullmatch(name):
        return name
    if not name or name.startswith("__") or name in RESERVED or name.endswith(_END):
        name += _END
    if len(name.encode()) > MAX_NAME:
        raise ValueError(f"a field's name has at most {MAX_NAME} bytes")
    return name


def decode_field(stored: str) -> str:
    return stored.removesuffix(_END)


def field_path(name: str) -> str:
    """A stored top-level field as queries name it: quoted unless it is a plain word."""
    stored = encode_field(name)
    if _SIMPLE_FIELD.fullmatch(stored):
        return stored
    return "`" + stored.replace("\\", "\\\\").replace("`", "\\`") + "`"
