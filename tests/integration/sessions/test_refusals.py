"""Whose session a refused token was of: told to the audit log, and to nobody who asks."""

import pytest

from bas.sessions.v2.sessions_service_pb2 import RevokeSessionRequest
from chassis.auth.refusals import Refusals
from chassis.clock import SystemClock
from chassis.errors import ApiError
from chassis.telemetry.metrics import Metrics
from tests.integration.sessions.calls import authenticate, create
from tests.integration.sessions.conftest import Sessions, acting


async def refusal(sessions: Sessions, token: str) -> list[tuple[str, str, str, str]]:
    """What is counted of a use that is refused: tenant, subject, session, reason."""
    refusals = Refusals(SystemClock(), Metrics())
    with pytest.raises(ApiError) as failure:
        await authenticate(sessions, token)
    error = failure.value
    assert (error.reason, error.message) == ("SESSION_INVALID", "The session token is not valid.")
    assert not error.metadata
    refusals.caught(error, "", "r1")
    return [refused[:4] for refused in refusals.take()]


async def test_a_token_of_a_session_that_was_revoked(sessions: Sessions) -> None:
    made = await create(sessions)
    session_id = made.session.session_id
    await sessions.api.RevokeSession(RevokeSessionRequest(session_id=session_id))
    assert await refusal(sessions, made.token) == [("acme", "ada", session_id, "SESSION_ENDED")]
    other = (await create(sessions)).token
    # The session's id alone proves nothing: the rest of the token is another one's.
    assert await refusal(sessions, made.token[:-20] + other[-20:]) == []


async def test_another_tenants_token_is_told_to_both(sessions: Sessions) -> None:
    made = await create(sessions)
    with acting("other"):
        told = await refusal(sessions, made.token)
    assert told == [
        ("acme", "ada", made.session.session_id, "SESSION_OF_ANOTHER_TENANT"),
        ("other", "tester", "", "SESSION_OF_ANOTHER_TENANT"),
    ]


async def test_what_is_no_token_is_nobodys(sessions: Sessions) -> None:
    assert await refusal(sessions, "bas_made_up") == []
