"""Who may speak for the platform, and which event ends a session's streams."""

import pytest

from chassis.api.cursors import Position
from chassis.context import Caller
from services.events.authorisation import ended_session, may_publish, warn_before
from services.events.port import Entry


def who(subject: str, session_id: str = "") -> Caller:
    return Caller("acme", subject, frozenset({"events:write"}), 4e9, session_id)


@pytest.mark.parametrize(
    ("caller", "source", "may"),
    [
        (who("ada"), "/sensors", True),
        (who("ada"), "/basement", True),
        (who("ada"), "/bas/sessions", False),
        (who("ada"), "/bas/", False),
        (who("service:sessions"), "/bas/sessions", True),
        (who("service:sessions", "s1"), "/bas/sessions", False),
    ],
)
def test_only_services_publish_as_the_platform(caller: Caller, source: str, *, may: bool) -> None:
    assert may_publish(caller, source) is may


@pytest.mark.parametrize(
    ("kind", "source", "subject", "session"),
    [
        ("session.revoked", "/bas/sessions", "sessions/s1", "s1"),
        ("session.expired", "/bas/sessions", "sessions/s1", "s1"),
        ("session.created", "/bas/sessions", "sessions/s1", None),
        ("session.revoked", "/bas/sessions/", "sessions/s1", None),
        ("session.revoked", "/elsewhere", "sessions/s1", None),
        ("session.revoked", "/bas/sessions", "s1", None),
    ],
)
def test_what_ends_a_session(kind: str, source: str, subject: str, session: str | None) -> None:
    assert ended_session(Entry("acme", Position("e", 1), "", kind, subject, source, b"")) == session


def test_the_warning_comes_a_tenth_before_the_end_and_at_most_half_a_minute() -> None:
    assert warn_before(3600) == 30
    assert warn_before(60) == pytest.approx(6)
    assert warn_before(-1) == 0
