"""What text in a request may look like: one check for each `bas.annotations.v2.Format`, with its lengths.

A check takes the text and returns None, or what is accepted instead, in words that follow the field's name. It never
repeats the text: that may be a secret or two megabytes long. Checks run on every request, so the common case, short
printable ASCII, is decided first.
"""

import ipaddress
import re
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from bas.annotations.v2 import annotations_pb2 as annotations

TextCheck: TypeAlias = Callable[[str], str | None]

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+")
_EMAIL_LENGTH: Final = 254
_ID_LENGTH: Final = 128

_PATTERNS: Final = {
    annotations.FORMAT_ID: (r"[A-Za-z0-9._~-]", "letters, digits and . _ ~ -"),
    annotations.FORMAT_FIELDS: (r"[A-Za-z0-9_., ]", "field names, separated by commas"),
    annotations.FORMAT_ATTRIBUTE: (r"[a-z0-9]", "lower-case letters and digits"),
}
"""Formats that are so many of one class of characters."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_SCOPE: Final = re.compile(r"(sessions|users|devices|audit|events):(read|write|admin)")


@dataclass(frozen=True, slots=True)
class Lengths:
    """Bounds in characters, and in bytes of UTF-8; 0 is no bound."""

    least: int = 0
    most: int = 0
    most_bytes: int = 0

    def problem(self, text: str) -> str | None:
        size = len(text)
        if size < self.least or 0 < self.most < size:
            return self.accepted()
        # A character has at most 4 bytes: short text need not be encoded to be measured.
        if self.most_bytes and size * 4 > self.most_bytes and len(text.encode()) > self.most_bytes:
            return f"must have at most {self.most_bytes} bytes"
        return None

    def accepted(self) -> str:
        if self.least and self.most:
            return f"must have {self.least} to {self.most} characters"
        return (
            f"must have at least {self.least} characters" if self.least else f"must have at most {self.most} characters"
        )


def text_check(wanted: "annotations.Format.ValueType", lengths: Lengths) -> TextCheck:
    """The check for one format and its lengths. Raises ValueError for a format that this release does not know."""
    if wanted in _PATTERNS:
        return _of_characters(wanted, lengths)
    if wanted == annotations.FORMAT_UNSPECIFIED:
        return lengths.problem
    if wanted == annotations.FORMAT_TEXT:
        return _of_text(lengths)
    known: dict[int, TextCheck] = {
        annotations.FORMAT_EMAIL: _email,
        annotations.FORMAT_TOKEN: _token,
        annotations.FORMAT_SCOPE: _scope,
        annotations.FORMAT_IP: _ip,
    }
    if wanted not in known:
        raise ValueError(f"format {wanted} has no check")
    characters, bounded = known[wanted], lengths.problem

    def check(text: str) -> str | None:
        return bounded(text) or characters(text)

    return check


def _of_characters(wanted: "annotations.Format.ValueType", lengths: Lengths) -> TextCheck:
    one, words = _PATTERNS[wanted]
    most = lengths.most or (_ID_LENGTH if wanted == annotations.FORMAT_ID else 0)
    least = max(1, lengths.least)
    # Length and characters in one match: this is the check of every id in every request.
    matches = re.compile(f"{one}{{{least},{most or ''}}}").fullmatch
    accepted = f"must be {least} to {most} of {words}" if most else f"must be {words}"

    def check(text: str) -> str | None:
        return None if matches(text) else accepted

    return check


def _of_text(lengths: Lengths) -> TextCheck:
    # ASCII has as many bytes as characters, is NFC, and has no control character when it can be printed.
    least = lengths.least
    most = min(lengths.most or sys.maxsize, lengths.most_bytes or sys.maxsize)
    bounded = lengths.problem

    def check(text: str) -> str | None:
        if text.isascii() and text.isprintable() and least <= len(text) <= most:
            return None
        return bounded(text) or _plain_text(text)

    return check


def _plain_text(text: str) -> str | None:
    if text.isascii() and text.isprintable():
        return None
    found = _CONTROL.search(text)
    if found:
        return f"must not have control characters; there is U+{ord(found[0]):04X} at position {found.start() + 1}"
    if not unicodedata.is_normalized("NFC", text):
        return "must be in Unicode Normalization Form C (NFC)"
    return None


def _email(text: str) -> str | None:
    if len(text) > _EMAIL_LENGTH or not _EMAIL.fullmatch(text):
        return f"must be an e-mail address of at most {_EMAIL_LENGTH} characters, such as ada@example.com"
    return _plain_text(text)


def _token(text: str) -> str | None:
    return None if _TOKEN.fullmatch(text) else "must be a token as the API gave it out"


def _scope(text: str) -> str | None:
    return None if _SCOPE.fullmatch(text) else "must be a scope such as devices:read"


def _ip(text: str) -> str | None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return "must be an IPv4 or IPv6 address"
    return None if "%" not in text else "must be an IPv4 or IPv6 address without a zone"
