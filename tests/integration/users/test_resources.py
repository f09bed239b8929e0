"""Creating, reading, finding, changing and removing users."""

import asyncio

import pytest

from bas.users.v2.users_pb2 import User
from chassis.cache.readthrough import LeaseReadThrough
from chassis.clock import SystemClock
from chassis.errors import ApiError, Code
from chassis.store.port import StoreUnavailable
from tests.integration.users.calls import batch, create, delete, get, lookup, refused, update
from tests.integration.users.conftest import CountingStore, Users, replica
from tests.support.valkey import Valkey


async def test_a_created_user_is_read_and_found_as_it_was_answered(users: Users) -> None:
    made = await create(users, email="Ada@Example.com", display_name="Ada", metadata={"plan": "pro"})
    assert made.etag
    assert made.email == "Ada@Example.com"
    assert made.create_time == made.update_time
    for _ in range(2):
        assert await get(users) == made
        assert await lookup(users, "ada@example.COM") == made
    with refused("USER_ALREADY_EXISTS"):
        await create(users, email="other@example.com")


async def test_an_id_that_is_left_out_is_made(users: Users) -> None:
    one, other = await create(users, "", "a@b.c"), await create(users, "", "d@b.c")
    assert one.user_id != other.user_id
    assert await get(users, one.user_id) == one


async def test_a_created_user_is_found_where_it_was_missed_before(users: Users) -> None:
    with refused("USER_NOT_FOUND"):
        await get(users)
    with refused("USER_NOT_FOUND"):
        await lookup(users)
    made = await create(users)
    assert await get(users) == made
    assert await lookup(users) == made
