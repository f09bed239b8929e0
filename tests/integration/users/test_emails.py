"""An e-mail address has one user in its tenant, whoever races for it and however it is spelt."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator
from hashlib import sha256

import pytest

from bas.users.v2.users_pb2 import User
from chassis.clock import SystemClock
from chassis.errors import ApiError
from chassis.store.port import Query
from services.users import user as rules
from services.users.email import claim_of
from services.users.records import CLAIMS, holder, stored
from tests.integration.users.calls import create, delete, get, lookup, refused, update
from tests.integration.users.conftest import CountingStore, Users, replica
from tests.support.valkey import Valkey

SPELLINGS = (
    "ada@m\u00fcnchen.example",
    "ADA@M\u00dcNCHEN.EXAMPLE",
    "Ada@xn--mnchen-3ya.example",
    "\uff41\uff44\uff41@m\u00fcnchen.example",
    "ad\u00ada@M\u00fcnchen\u3002example",
    '"ada"@XN--mnchen-3ya.Example.',
)


async def settled(calls: Iterator[Awaitable[User]]) -> tuple[list[User], Counter[str]]:
    """Who won, and why the others did not."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    won = [answer for answer in answers if isinstance(answer, User)]
    lost = [answer for answer in answers if isinstance(answer, ApiError)]
    assert len(won) + len(lost) == len(answers)
    return won, Counter(failure.reason for failure in lost)


async def torn(store: CountingStore, tenant: str = "acme") -> list[str]:
    """What is wrong between the users and the claims of a tenant."""
    users = [stored(document) for document in await store.query(Query(tenant, "users", limit=500))]
    claims = {document.key.id: holder(document) for document in await store.query(Query(tenant, CLAIMS, limit=500))}
    wrong = [
        f"{each.user.user_id} does not hold its address"
        for each in users
        if claims.get(claim_of(each.user.email)) != each.user.user_id
    ]
    held = {each.claim for each in users}
    return wrong + [f"{claims[claim]} holds an address that it does not have" for claim in claims.keys() - held]


async def race(store: CountingStore, valkey: Valkey) -> tuple[list[User], Counter[str]]:
    """Sixty creates of one address in six spellings, by two replicas."""
    clock = SystemClock()
    async with replica(store, valkey, clock) as one, replica(store, valkey, clock) as two:
        with one.tenant("acme"):
            return await settled(create((one, two)[n % 2], f"u{n}", SPELLINGS[n % len(SPELLINGS)]) for n in range(60))


async def test_of_racing_creates_exactly_one_wins(store: CountingStore, valkey: Valkey) -> None:
    won, lost = await race(store, valkey)
    assert len(won) == 1
    assert lost == {"USER_EMAIL_TAKEN": 59}
    assert await torn(store) == []


async def test_they_would_all_win_if_the_claim_were_not_in_the_same_commit(
    store: CountingStore, valkey: Valkey
) -> None:
    """The first seeded bug."""
    store.torn = True
    won, _ = await race(store, valkey)
    assert len(won) > 1
    assert await torn(store) != []


async def test_one_spelling_each_would_win_if_only_case_made_no_difference(
    store: CountingStore, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second seeded bug."""
    monkeypatch.setattr(rules, "claim_of", lambda address: sha256(address.lower().encode()).hexdigest())
    won, _ = await race(store, valkey)
    assert len(won) > 1


async def test_who_has_the_address_is_not_said(users: Users) -> None:
    await create(users, "holder", SPELLINGS[0])
    with pytest.raises(ApiError) as refusal:
        await create(users, "u2", SPELLINGS[1])
    assert repr(refusal.value) == (
        "ApiError(ALREADY_EXISTS, USER_EMAIL_TAKEN, 'Another user has this e-mail address.')"
    )
    assert not refusal.value.metadata


async def test_an_address_belongs_to_a_tenant(users: Users, store: CountingStore) -> None:
    made = await create(users, email="ada@b.c")
    with users.tenant("other"):
        mine = await create(users, "u2", email="ADA@b.c")
        assert await lookup(users, "ada@b.c") == mine
    assert await lookup(users, "ada@b.c") == made
    assert await torn(store) == await torn(store, "other") == []


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_a_user_is_found_by_every_spelling(users: Users, spelling: str) -> None:
    made = await create(users, email=SPELLINGS[0])
    assert await lookup(users, spelling) == made


async def test_a_change_moves_the_claim(users: Users, store: CountingStore) -> None:
    await create(users, email="old@b.c")
    await lookup(users, "old@b.c")
    with refused("USER_NOT_FOUND"):
        await lookup(users, "new@b.c")
    changed = await update(users, User(user_id="u1", email="new@b.c"), "email")
    assert await lookup(users, "new@b.c") == changed
    with refused("USER_NOT_FOUND"):
        await lookup(users, "old@b.c")
    other = await create(users, "u2", "OLD@b.c")
    assert await lookup(users, "old@b.c") == other
    assert await torn(store) == []


async def test_another_spelling_of_the_same_address_keeps_the_claim(users: Users, store: CountingStore) -> None:
    await create(users, email=SPELLINGS[0])
    for spelling in SPELLINGS:
        changed = await update(users, User(user_id="u1", email=spelling), "email")
        assert changed.email == spelling
        assert await lookup(users, SPELLINGS[0]) == changed
    assert await torn(store) == []


async def test_a_change_to_an_address_that_is_taken_changes_nothing(users: Users, store: CountingStore) -> None:
    made = await create(users)
    await create(users, "u2")
    with refused("USER_EMAIL_TAKEN"):
        await update(users, User(user_id="u1", email="U2@example.com", display_name="x"), "email", "display_name")
    assert await get(users) == made
    assert await torn(store) == []


async def test_a_deleted_users_address_is_free(users: Users, store: CountingStore) -> None:
    await create(users, email="ada@b.c")
    await delete(users)
    assert await torn(store) == []
    made = await create(users, "u2", "ada@b.c")
    assert await lookup(users, "ada@b.c") == made


async def test_racing_changes_to_one_address(users: Users, store: CountingStore) -> None:
    for n in range(12):
        await create(users, f"u{n}")
    won, lost = await settled(update(users, User(user_id=f"u{n}", email=SPELLINGS[n % 6]), "email") for n in range(12))
    assert len(won) == 1
    assert lost == {"USER_EMAIL_TAKEN": 11}
    assert await lookup(users, SPELLINGS[0]) == won[0]
    assert await torn(store) == []


async def test_users_who_pass_addresses_around_lose_none_and_share_none(users: Users, store: CountingStore) -> None:
    """Creates, changes and deletes of five users over four addresses, all at once, on one tenant."""
    pool = [f"shared{n}@b.c" for n in range(4)]

    async def wander(number: int) -> None:
        for step in range(12):
            address = pool[(number * 5 + step * 3) % 4]
            try:
                if step % 6 == 5:
                    await delete(users, f"u{number}", allow_missing=True)
                else:
                    user = User(user_id=f"u{number}", email=address)
                    await update(users, user, "email", allow_missing=True)
            except ApiError as failure:
                if failure.reason not in ("USER_EMAIL_TAKEN", "VERSION_CONFLICT"):
                    raise

    await asyncio.gather(*(wander(number) for number in range(5)))
    assert await torn(store) == []
    for address in pool:
        try:
            found = await lookup(users, address)
        except ApiError:
            continue
        assert found == await get(users, found.user_id)
        assert claim_of(found.email) == claim_of(address)


async def test_a_lookup_whose_cached_parts_disagree_asks_the_store(users: Users, valkey: Valkey) -> None:
    """As after a change that the cache could not be told of."""
    await create(users, email="old@b.c")
    await lookup(users, "old@b.c")
    claim = f"user:email:{{acme/{claim_of('old@b.c')}}}"
    before = valkey.command("GET", claim)
    await update(users, User(user_id="u1", email="new@b.c"), "email")
    valkey.command("SET", claim, before, "EX", 30)
    with refused("USER_NOT_FOUND"):
        await lookup(users, "old@b.c")
    other = await create(users, "u2", "old@b.c")
    valkey.command("SET", claim, before, "EX", 30)
    assert await lookup(users, "old@b.c") == other


async def test_a_claim_of_another_releases_rules_is_still_let_go(
    users: Users, store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(rules, "claim_of", lambda address: sha256(address.encode()).hexdigest())
        await create(users, email="Ada@b.c")
    await update(users, User(user_id="u1", display_name="Ada"), "display_name")
    await update(users, User(user_id="u1", email="new@b.c"), "email")
    assert await torn(store) == []
