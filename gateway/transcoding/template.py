"""Path templates of `google.api.http` rules: compile once at the start, match split paths.

    Template = "/" Segments [ ":" LITERAL ]      Segments = Segment { "/" Segment }
    Segment  = "*" | "**" | LITERAL | Variable   Variable = "{" FieldPath [ "=" Segments ] "}"

Source: google/api/http.proto, "Path template syntax".
"""

import re
from dataclasses import dataclass
from typing import Final

STAR: Final = "*"
DOUBLE_STAR: Final = "**"

_FIELD_PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_LITERAL: Final = re.compile(r"[A-Za-z0-9._~!$&'()+,;=@-]+")
_HEX: Final = frozenset("0123456789abcdefABCDEF")


class TemplateError(ValueError):
    """A template breaks the grammar; the message quotes it and says where. A fault of the protos: it stops the start."""


class MalformedPercent(ValueError):
    """A `%` without two hexadecimal digits, or bytes that are not UTF-8."""


@dataclass(frozen=True, slots=True)
class Variable:
    """`{path=…}`: the segments from `start` up to `end` (None: to the end of the path) are the value of the field.

    A variable of one segment is decoded in full. In one of several, `%2F` stays as it is: decoded, it could not be told
    from a separator.
    """

    path: tuple[str, ...]
    start: int
    end: int | None
    single: bool

    def value(self, raw: list[str]) -> str:
        """The text of the variable in the raw (still encoded) segments of a path that matches. Raises MalformedPercent."""
        if self.single:
            return decode(raw[self.start])
        return "/".join(decode(segment, keep_slash=True) for segment in raw[self.start : self.end])


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template: its segments without variables (literals, STAR, DOUBLE_STAR), the verb ("" for none)."""

    text: str
    segments: tuple[str, ...]
    verb: str
    variables: tuple[Variable, ...]

    @property
    def shape(self) -> tuple[tuple[str, ...], str]:
        """Two templates of one shape match the same paths."""
        return self.segments, self.verb


def compile_template(text: str) -> Template:
    """Raises TemplateError."""
    return _Parser(text).template()


def decode(segment: str, *, keep_slash: bool = False) -> str:
    """Percent-decode one segment. Raises MalformedPercent."""
    if "%" not in segment:
        return segment
    head, *escapes = segment.split("%")
    out = bytearray(head, "utf-8")
    for escape in escapes:
        pair = escape[:2]
        if len(pair) != 2 or not _HEX.issuperset(pair):  # noqa: PLR2004 - RFC 3986: two digits
            raise MalformedPercent(segment)
        byte = int(pair, 16)
        if keep_slash and byte == 0x2F:  # noqa: PLR2004 - "/"
            out += b"%" + pair.encode()
        else:
            out.append(byte)
        out += escape[2:].encode()
    try:
        return out.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedPercent(segment) from None


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._segments: list[str] = []
        self._variables: list[Variable] = []

    def template(self) -> Template:
        self._expect("/")
        self._segment_list(inside=False)
        verb = ""
        if self._accept(":"):
            verb = self._literal()
        if self._at != len(self._text):
            raise self._wrong("unexpected text")
        if DOUBLE_STAR in self._segments[:-1]:
            raise self._wrong("`**` stands before the last segment")
        paths = [variable.path for variable in self._variables]
        if len(set(paths)) != len(paths):
            raise self._wrong("a field is bound twice")
        return Template(self._text, tuple(self._segments), verb, tuple(self._variables))

    def _segment_list(self, *, inside: bool) -> None:
        self._segment(inside=inside)
        while self._accept("/"):
            self._segment(inside=inside)

    def _segment(self, *, inside: bool) -> None:
        if self._accept("**"):
            self._segments.append(DOUBLE_STAR)
        elif self._accept("*"):
            self._segments.append(STAR)
        elif not inside and self._accept("{"):
            self._variable()
        else:
            self._segments.append(self._literal())

    def _variable(self) -> None:
        match = _FIELD_PATH.match(self._text, self._at)
        if match is None:
            raise self._wrong("a field path is expected")
        self._at = match.end()
        start = len(self._segments)
        if self._accept("="):
            self._segment_list(inside=True)
        else:
            self._segments.append(STAR)
        self._expect("}")
        matched = self._segments[start:]
        end = None if matched[-1] == DOUBLE_STAR else len(self._segments)
        single = len(matched) == 1 and matched[0] != DOUBLE_STAR
        self._variables.append(Variable(tuple(match[0].split(".")), start, end, single))

    def _literal(self) -> str:
        match = _LITERAL.match(self._text, self._at)
        if match is None:
            raise self._wrong("a segment is expected")
        self._at = match.end()
        return match[0]

    def _accept(self, token: str) -> bool:
        if not self._text.startswith(token, self._at):
            return False
        self._at += len(token)
        return True

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            raise self._wrong(f"`{token}` is expected")

    def _wrong(self, what: str) -> TemplateError:
        return TemplateError(f"path template {self._text!r}: {what} at position {self._at}")
