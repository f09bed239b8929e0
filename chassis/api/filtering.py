r"""List filters: a documented subset of AIP-160, parsed into conditions.

    filter    = [ condition { "AND" condition } ]
    condition = field op value          op is = != < <= > >=
              | field "." key op value  an entry of a map; the key is a word or a quoted string
              | field ":" key           the map has the key
    value     = a bare word, or text in "…" or '…' with \" \' and \\

What the fields are, and what may be asked of them, is declared by a service in a `FilterSpec`
(`chassis.api.filter_spec`). Errors are INVALID_ARGUMENT on `filter`, and give the position, counted from 1.
"""

import re
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import Final

from chassis.errors import ApiError, invalid_field

MAX_LENGTH: Final = 2048
MAX_CONDITIONS: Final = 10

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEY: Final = re.compile(r"[A-Za-z0-9_~/@-]+")
_OPERATOR: Final = re.compile(r"!=|<=|>=|=|<|>|:")
_BARE: Final = re.compile(r"[^\s\"'()=<>!,\\]+")
_SHOWN: Final = re.compile(r"[A-Za-z0-9_.~-]+|.", re.DOTALL)
_RESERVED: Final = frozenset({"AND", "OR", "NOT"})
_UNSUPPORTED: Final = {
    "OR": "OR is not supported: ask once for each alternative",
    "NOT": "NOT is not supported: use !=",
    "-": "negation with - is not supported: use !=",
    "(": "parentheses are not supported: conditions are joined with AND only",
    ")": "parentheses are not supported: conditions are joined with AND only",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """`field op value`, of the map entry `key` when that is not None; for `:` the value is the key asked for.

    `quoted` tells `"5"` from `5`; `position` (from 1) is where it begins, and is no part of what it means.
    """

    field: str
    key: str | None
    op: str
    value: str
    quoted: bool = False
    position: int = attribute(default=1, compare=False)

    def __str__(self) -> str:
        name = (
            self.field if self.key is None else f"{self.field}.{_written(self.key, quote=not _KEY.fullmatch(self.key))}"
        )
        gap = "" if self.op == ":" else " "
        return f"{name}{gap}{self.op}{gap}{_written(self.value, quote=self.quoted)}"


def text_of(conditions: tuple[Condition, ...]) -> str:
    """The filter in its one spelling: equal conditions have equal texts, and parsing the text gives them back."""
    return " AND ".join(map(str, conditions))


def parse(text: str) -> tuple[Condition, ...]:
    """The conditions of `text`, none for blank text. Raises ApiError on field `filter`."""
    if len(text) > MAX_LENGTH:
        raise invalid_field("filter", f"has {len(text)} characters; at most {MAX_LENGTH} are accepted")
    reader = _Reader(text)
    if reader.at_end():
        return ()
    conditions = [reader.condition()]
    while not reader.at_end():
        reader.conjunction()
        if len(conditions) == MAX_CONDITIONS:
            raise refused(reader.position, f"more than {MAX_CONDITIONS} conditions")
        conditions.append(reader.condition())
    return tuple(conditions)


def refused(position: int, problem: str) -> ApiError:
    return invalid_field("filter", f"at position {position}: {problem}")


class _Reader:
    """Walks over the text once; every method begins at the next character that is not a space."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    @property
    def position(self) -> int:
        return self._at + 1

    def at_end(self) -> bool:
        space = _SPACE.match(self._text, self._at)
        self._at = space.end() if space else self._at
        return self._at == len(self._text)

    def condition(self) -> Condition:
        self.at_end()
        start = self.position
        name = self._take(_NAME)
        if name is None or name in _RESERVED:
            raise self._unexpected(start, "a field name")
        key = None
        if self._text.startswith(".", self._at):
            self._at += 1
            key = self._key()
        self.at_end()
        op = self._take(_OPERATOR)
        if op is None:
            raise self._unexpected(self.position, f"an operator (= != < <= > >= :) after {name!r}")
        self.at_end()
        quoted = self._text[self._at : self._at + 1] in ("'", '"')
        value = self._quoted() if quoted else self._bare()
        return Condition(name, key, op, value, quoted, start)

    def conjunction(self) -> None:
        start = self.position
        if self._take(_NAME) != "AND":
            raise self._unexpected(start, "AND")

    def _key(self) -> str:
        if self._text[self._at : self._at + 1] in ("'", '"'):
            return self._quoted()
        start = self.position
        key = self._take(_KEY)
        if key is None:
            raise self._unexpected(start, "a key after the dot")
        if self._text.startswith(".", self._at):
            raise refused(start, 'a key with a dot in it must be quoted, as in labels."a.b" = "c"')
        return key

    def _bare(self) -> str:
        start = self.position
        word = self._take(_BARE)
        if word is None or word in _RESERVED:
            raise self._unexpected(start, "a value")
        return word

    def _quoted(self) -> str:
        start, quote = self.position, self._text[self._at]
        self._at += 1
        out: list[str] = []
        while self._at < len(self._text):
            character = self._text[self._at]
            self._at += 1
            if character == quote:
                return "".join(out)
            if character == "\\":
                character = self._text[self._at : self._at + 1]
                if character not in ("\\", "'", '"') or not character:
                    raise refused(self._at, "\\ must be followed by a quote or by another \\")
                self._at += 1
            out.append(character)
        raise refused(start, "the quoted text does not end")

    def _take(self, pattern: "re.Pattern[str]") -> str | None:
        match = pattern.match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        return match[0]

    def _unexpected(self, position: int, expected: str) -> ApiError:
        found = _SHOWN.match(self._text, position - 1)
        if found is None:
            return refused(position, f"expected {expected}, found the end")
        shown = found[0]
        known = _UNSUPPORTED.get(shown) or _UNSUPPORTED.get(shown[0])
        return refused(position, known or f"expected {expected}, found {shown[:40]!r}")


def _written(text: str, *, quote: bool) -> str:
    if not quote:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
