"""What is told of a session's changes."""

from datetime import UTC, datetime, timedelta

from bas.sessions.v2.sessions_pb2 import Session
from services.sessions import effects
from services.sessions import session as rules
from services.sessions.timeouts import Limits

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
HOUR = timedelta(hours=1)
LIMITS = Limits(HOUR, HOUR, HOUR, HOUR, timedelta(minutes=1))


def session() -> Session:
    made = rules.started("s1", Session(user_id="ada", metadata={"app": "web"}), LIMITS, NOW)
    made.etag = "e1"
    return made


def ended(at: datetime, reason: str = "") -> Session:
    made = session()
    rules.end(made, reason, at)
    return made


def test_a_session_is_told_as_it_is_shown() -> None:
    told = effects.created("acme", session())
    assert (told.tenant, told.type, told.subject) == ("acme", "session.created", "sessions/s1")
    assert told.resource["userId"] == "ada"
    assert "etag" not in told.resource
    assert not any("token" in name.lower() or "secret" in name.lower() for name in told.resource)


def test_a_revocation_is_told_with_its_reason() -> None:
    (told,) = effects.changed("acme", session(), ended(LATER, "lost phone"))
    assert (told.type, told.more) == ("session.revoked", {"reason": "lost phone"})
    assert told.resource["status"] == "SESSION_STATUS_REVOKED"
    (told,) = effects.changed("acme", session(), ended(LATER))
    assert (told.type, told.more) == ("session.revoked", {})


def test_what_its_timeouts_had_ended_is_told_as_expired() -> None:
    (told,) = effects.changed("acme", session(), ended(NOW + 2 * HOUR, "too late"))
    assert (told.type, told.more) == ("session.expired", {})


def test_a_theft_is_told_before_what_comes_of_it() -> None:
    theft, end = effects.changed("acme", session(), ended(LATER, rules.STOLEN), stolen=True)
    assert (theft.type, end.type) == ("session.theft_detected", "session.revoked")
    assert theft.subject == end.subject
    assert end.more == {"reason": rules.STOLEN}


def test_whoever_gives_the_reason_of_a_theft_has_detected_none() -> None:
    (told,) = effects.changed("acme", session(), ended(LATER, rules.STOLEN))
    assert told.type == "session.revoked"


def test_an_exchange_is_told_as_one() -> None:
    after = session()
    rules.use(after, timedelta(minutes=1), LATER)
    (told,) = effects.changed("acme", session(), after, exchanged=True)
    assert told.type == "session.refreshed"


def test_an_update_is_told_by_its_paths() -> None:
    after = session()
    after.metadata["app"] = "phone"
    after.update_time.FromDatetime(LATER)
    (told,) = effects.changed("acme", session(), after)
    assert (told.type, told.more) == ("session.updated", {"changedPaths": ["metadata"]})


def test_that_it_is_in_use_is_told_to_nobody() -> None:
    after = session()
    rules.use(after, timedelta(minutes=1), LATER)
    after.etag = "e2"
    assert after != session()
    assert effects.changed("acme", session(), after) == []


def test_a_clean_up_tells_what_nobody_told_before() -> None:
    (told,) = effects.removed("acme", session())
    assert told.type == "session.expired"
    assert told.resource["status"] == "SESSION_STATUS_EXPIRED"
    assert effects.removed("acme", ended(LATER)) == []
    assert effects.removed("acme", ended(NOW + 2 * HOUR)) == []
