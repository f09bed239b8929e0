"""Tokens that open nothing are refused alike, in the work behind them as in words: how long it takes tells nothing of what
there is. The time itself is a row of the benchmark."""

import os
from datetime import UTC, datetime

from chassis.api.ids import new_id
from chassis.clock import FakeClock
from services.sessions.tokens import SessionTokens
from tests.integration.sessions.calls import create, is_live, revoke
from tests.integration.sessions.conftest import WatchedStore, acting, replica, secret
from tests.support.valkey import Valkey

EACH = 20


async def test_refusals_take_the_same_work(store: WatchedStore, valkey: Valkey) -> None:
    """Each token is shown once, so that nothing is cached of it."""
    clock = FakeClock(datetime.now(UTC))
    ours, theirs = SessionTokens(secret("session tokens")), SessionTokens(secret("another deployment"))
    async with replica(store, valkey.url, clock) as sessions:
        await sessions.connected()
        tokens: list[dict[str, str]] = []
        with acting("acme"):
            expired = [(await create(sessions, idle=1)).token for _ in range(EACH)]
            await clock.advance(2)
            for number in range(EACH):
                revoked, live = await create(sessions), await create(sessions)
                await revoke(sessions, revoked.session.session_id)
                tokens.append(
                    {
                        "expired": expired[number],
                        "revoked": revoked.token,
                        "unknown": ours.issue(new_id(os.urandom), 1),
                        "another deployment's": theirs.issue(live.session.session_id, 1),
                        "of a later generation": ours.issue((await create(sessions)).session.session_id, 2),
                        "cut": (await create(sessions)).token[:-1],
                        "garbage": os.urandom(2000).decode("latin-1"),
                    }
                )
        reads: dict[str, int] = {}
        for kinds in tokens:
            for kind, token in kinds.items():
                before = store.reads
                assert not await is_live(sessions, token)
                reads[kind] = reads.get(kind, 0) + store.reads - before
        assert set(reads.values()) == {2 * EACH}
        # Shown again, each is refused from the cache.
        before = store.reads
        for kind, token in tokens[-1].items():
            assert not await is_live(sessions, token), kind
        assert store.reads == before
