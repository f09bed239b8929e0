"""In which form a stream is answered, by the request's `Accept` (RFC 9110 §12.5.1)."""

from enum import Enum
from typing import Final


class Form(Enum):
    """A stream's media type, and the names under which clients ask for it."""

    NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/json")
    SSE = ("text/event-stream",)

    @property
    def media_type(self) -> str:
        return str(self.value[0])

    @property
    def content_type(self) -> bytes:
        """The header's value. That JSON is UTF-8 goes without saying."""
        return b"text/event-stream; charset=utf-8" if self is Form.SSE else self.media_type.encode()


_LEAST: Final = 0.0


def form_of(accept: str, default: Form) -> Form:
    """The form that `accept` likes best; `default` where it likes both alike, and where it likes neither: a client that
    asks for what there is not is better served with something than with nothing."""
    wanted = _qualities(accept)
    other = Form.SSE if default is Form.NDJSON else Form.NDJSON
    return other if _quality(wanted, other) > _quality(wanted, default) else default


def _quality(wanted: dict[str, float], form: Form) -> float:
    """By the most specific range that matches."""
    named = [wanted[name] for name in form.value if name in wanted]
    if named:
        return max(named)
    kind = form.media_type.partition("/")[0]
    return wanted.get(f"{kind}/*", wanted.get("*/*", _LEAST))


def _qualities(accept: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for piece in accept.lower().split(","):
        name, *parameters = (part.strip() for part in piece.split(";"))
        if name:
            weights = [each[2:] for each in parameters if each.startswith("q=")]
            found[name] = _weight(weights[0]) if weights else 1.0
    return found


def _weight(text: str) -> float:
    """What is no weight is none given."""
    plain = text.replace(".", "", 1)
    return min(1.0, float(text)) if plain.isascii() and plain.isdecimal() and len(text) <= 5 else 1.0  # noqa: PLR2004 - 0.123
