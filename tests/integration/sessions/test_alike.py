"""Tokens that open nothing are refused alike, in time as in words: how long it takes tells nothing of what there is."""

import os
import statistics
import time
from datetime import UTC, datetime

from chassis.api.ids import new_id
from chassis.clock import FakeClock
from services.sessions.tokens import SessionTokens
from tests.integration.sessions.calls import create, is_live, revoke
from tests.integration.sessions.conftest import WatchedStore, acting, replica, secret
from tests.support.valkey import Valkey

EACH = 150


async def test_refusals_take_the_same_time(store: WatchedStore, valkey: Valkey) -> None:
    """Each token is shown once, so that nothing is cached of it; kinds by turns, so that they share the noise."""
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
        times: dict[str, list[float]] = {}
        reads: dict[str, int] = {}
        for kinds in tokens:
            for kind, token in kinds.items():
                before, begun = store.reads, time.perf_counter()
                assert not await is_live(sessions, token)
                times.setdefault(kind, []).append(time.perf_counter() - begun)
                reads[kind] = reads.get(kind, 0) + store.reads - before
        assert set(reads.values()) == {2 * EACH}
        # The quick ones of each: a busy machine makes any of them slow.
        quick = {kind: statistics.quantiles(taken, n=10)[0] for kind, taken in times.items()}
        assert max(quick.values()) < 1.6 * min(quick.values()), quick
        # Shown again, each is refused from the cache.
        before = store.reads
        for kind, token in tokens[-1].items():
            assert not await is_live(sessions, token), kind
        assert store.reads == before
