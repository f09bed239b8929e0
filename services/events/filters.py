"""Which events a reader wants: types, exact or with a wildcard at their end, a subject and a source."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from chassis.errors import Violation, invalid_argument
from services.events.port import Entry

WILDCARD: Final = "*"


@dataclass(frozen=True, slots=True)
class EventFilter:
    """What passes: any of `types` (exact names), any that begins with one of `prefixes`; no types and no prefixes: all.
    An empty subject or source is any. Equal filters are written alike: they can be shared, and compared."""

    types: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    subject: str = ""
    source: str = ""

    @property
    def everything(self) -> bool:
        return not (self.types or self.prefixes or self.subject or self.source)

    def matches(self, entry: Entry) -> bool:
        return (
            (not self.subject or entry.subject == self.subject)
            and (not self.source or entry.source == self.source)
            and self.wants(entry.type)
        )

    def wants(self, event_type: str) -> bool:
        if not self.types and not self.prefixes:
            return True
        return event_type in self.types or (bool(self.prefixes) and event_type.startswith(self.prefixes))


def compile_filter(types: Iterable[str], subject: str = "", source: str = "", *, field: str = "types") -> EventFilter:
    """The filter that a request asks for. Raises INVALID_ARGUMENT that names `types[2]` for a wildcard that is not at the
    end, and for what no type can be."""
    exact: set[str] = set()
    prefixes: set[str] = set()
    wrong: list[Violation] = []
    everything = False
    for index, written in enumerate(types):
        stem = written.removesuffix(WILDCARD)
        if stem and not _is_type(stem):
            wrong.append(
                Violation(f"{field}[{index}]", "A type is letters, digits and . _ ~ -, with a * at most at its end.")
            )
        elif not written:
            wrong.append(Violation(f"{field}[{index}]", "A type is not empty; leave all out to mean any."))
        elif stem == written:
            exact.add(written)
        elif stem:
            prefixes.add(stem)
        else:
            everything = True
    if wrong:
        raise invalid_argument(*wrong)
    if everything:
        return EventFilter(subject=subject, source=source)
    return EventFilter(*_least(exact, prefixes), subject, source)


def _least(exact: set[str], prefixes: set[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Without what another part lets pass anyhow."""
    kept = tuple(sorted(each for each in prefixes if not any(each != one and each.startswith(one) for one in prefixes)))
    return frozenset(each for each in exact if not (kept and each.startswith(kept))), kept


def _is_type(text: str) -> bool:
    return text.isascii() and all(character.isalnum() or character in "._~-" for character in text)
