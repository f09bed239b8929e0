"""Who may speak for the platform, and what ends a stream that was rightly begun. Rules without I/O."""

from collections.abc import Iterable
from typing import Final

from chassis.api.validation import MAX_VIOLATIONS
from chassis.context import Caller
from chassis.errors import ApiError, Code, Violation
from services.events.port import Entry

PLATFORM: Final = "/bas/"
"""How the sources of the platform's own events begin."""
_SERVICE: Final = "service:"
_SESSIONS: Final = "/bas/sessions"
_SUBJECT: Final = "sessions/"
_ENDED: Final = frozenset({"session.revoked", "session.expired"})
_WARNING: Final = 30.0
_SHARE: Final = 0.1


def speaks_for_platform(caller: Caller) -> bool:
    """Whether it is a service of this deployment. A session's user may be called anything, but comes with the session."""
    return caller.subject.startswith(_SERVICE) and not caller.session_id


def may_publish(caller: Caller, source: str) -> bool:
    """Whether the caller may publish as `source`: sources of the platform are for its services alone, as streams end on
    what they say."""
    return not source.startswith(PLATFORM) or speaks_for_platform(caller)


def check_sources(caller: Caller, sources: Iterable[str]) -> None:
    """Raises SOURCE_RESERVED (PERMISSION_DENIED) that names the events whose source the caller may not publish as."""
    refused = [index for index, source in enumerate(sources) if not may_publish(caller, source)]
    if refused:
        said = f"Sources that begin with {PLATFORM} are those of the platform's own services."
        violations = tuple(Violation(f"events[{index}].source", said) for index in refused[:MAX_VIOLATIONS])
        raise ApiError(Code.PERMISSION_DENIED, "SOURCE_RESERVED", said, violations=violations)


def ended_session(entry: Entry) -> str | None:
    """The id of the session that the event says has ended, None for all other events."""
    if entry.type not in _ENDED or entry.source != _SESSIONS or not entry.subject.startswith(_SUBJECT):
        return None
    return entry.subject.removeprefix(_SUBJECT)


def warn_before(left: float) -> float:
    """Seconds before its end at which a stream is warned, of a credential with `left` seconds to live."""
    return min(_WARNING, max(0.0, left) * _SHARE)
