"""What a session shows of itself, and that what is over stays over."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bas.sessions.v2.sessions_pb2 import (
    SESSION_STATUS_ACTIVE,
    SESSION_STATUS_EXPIRED,
    SESSION_STATUS_REVOKED,
    Session,
)
from bas.sessions.v2.sessions_service_pb2 import AuthenticateSessionResponse
from chassis.store.port import Document
from services.sessions import session as rules
from services.sessions.records import Stored, answer, fields_of, pack, stored, unpack
from services.sessions.rotation import Secret
from services.sessions.timeouts import Limits

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(seconds=60)
LIMITS = Limits(timedelta(minutes=30), timedelta(days=400), timedelta(days=1), timedelta(days=400), STEP)
SECONDS = st.integers(0, 100_000)
SECRETS = st.builds(
    Secret,
    st.integers(1, 2**32 - 1),
    st.binary(min_size=32, max_size=32),
    st.lists(st.integers(0, 2**62), max_size=8).map(tuple),
)


def started(**fields: Any) -> Session:
    return rules.started("s1", Session(user_id="ada", **fields), LIMITS, NOW)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@given(SECRETS, st.text("abc.~-", min_size=1, max_size=128), st.dictionaries(st.text(max_size=9), st.text(max_size=99)))
def test_a_document_and_an_entry_hold_all_of_it(secret: Secret, tenant: str, metadata: dict[str, str]) -> None:
    held = Stored(tenant, started(metadata=metadata, scopes=["devices:read"]), "", secret, 3)
    read = stored(Document(held.key, "v1", fields_of(held)))
    assert read.session.etag
    entry = unpack("s1", pack(read, STEP))
    assert (read.secret, read.slot, entry.secret, entry.tenant) == (secret, 3, secret, tenant)
    assert Session.FromString(entry.session) == read.session
    assert AuthenticateSessionResponse.FromString(answer(entry)) == AuthenticateSessionResponse(
        session=read.session, tenant=tenant
    )
    read.session.etag = ""
    assert read.session == held.session


@given(st.lists(st.tuples(st.sampled_from(("use", "end", "look")), SECONDS), max_size=20))
def test_what_is_over_stays_over_and_times_do_not_go_back(steps: list[tuple[str, int]]) -> None:
    held = Stored("acme", started(), "", Secret(1, b""))
    over = False
    for step, seconds in steps:
        now = at(seconds)  # in any order: clocks jump, and replicas' clocks differ
        before = Session()
        before.CopyFrom(held.session)
        if step == "end" and not over:
            live = rules.live(held.session, now)
            held = held.over("why", now)
            over = True
            assert held.session.status == (SESSION_STATUS_REVOKED if live else SESSION_STATUS_EXPIRED)
            assert held.session.revoke_reason == ("why" if live else "")
            assert held.session.HasField("revoke_time") == live
        elif step == "use" and rules.live(held.session, now):
            assert not over
            rules.use(held.session, STEP, now)
        assert not (over and rules.live(held.session, now))
        for name in ("last_seen_time", "update_time", "expire_time"):
            assert rules.when(getattr(held.session, name)) >= rules.when(getattr(before, name))


def test_expiry_is_shown_without_being_written() -> None:
    session = started()
    end = rules.when(session.expire_time)
    assert end == at(1860)
    assert rules.status_at(session, end - timedelta(microseconds=1)) == SESSION_STATUS_ACTIVE
    assert rules.status_at(session, end) == SESSION_STATUS_EXPIRED
    assert session.status == SESSION_STATUS_ACTIVE
    assert rules.removable_at(session, timedelta(hours=1)) == end
    revoked = Stored("acme", session, "", Secret(1, b"")).over("", at(5)).session
    assert rules.removable_at(revoked, timedelta(hours=1)) == at(3605)
    assert session.status == SESSION_STATUS_ACTIVE
