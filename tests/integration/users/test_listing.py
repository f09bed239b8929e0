"""Pages, filters and orders."""

import asyncio
from typing import Any

import pytest

from bas.users.v2.users_pb2 import User
from bas.users.v2.users_service_pb2 import ListUsersRequest
from chassis.errors import ApiError
from tests.integration.users.calls import create, delete, get, ids, listed, update
from tests.integration.users.conftest import Users


@pytest.fixture
async def people(users: Users) -> Users:
    """u00 … u11, created in that order, named backwards, every third `Ada`; u04 changed last."""
    for n in range(12):
        await create(users, f"u{n:02d}", display_name="Ada" if n % 3 == 0 else f"name {11 - n:02d}")
    await update(users, User(user_id="u04", metadata={"k": "v"}), "metadata")
    return users


def names(*numbers: int) -> list[str]:
    return [f"u{n:02d}" for n in numbers]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", range(12)),
        ("display_name = Ada", (0, 3, 6, 9)),
        ('display_name = "name 01"', (10,)),
        ("display_name != Ada", (1, 2, 4, 5, 7, 8, 10, 11)),
        ('display_name != Ada AND display_name != "name 01"', (1, 2, 4, 5, 7, 8, 11)),
        ("display_name = Ada AND display_name = Eve", ()),
        ("display_name = nobody", ()),
    ],
)
async def test_filters(people: Users, written: str, expected: range) -> None:
    assert await ids(people, filter=written, order_by="create_time") == names(*expected)
    assert await ids(people, filter=written, order_by="create_time", page_size=2) == names(*expected)
    assert sorted(await ids(people, filter=written, order_by="update_time desc")) == names(*expected)


async def test_times_are_compared(people: Users) -> None:
    at = (await get(people, "u05")).create_time.ToJsonString()
    assert await ids(people, filter=f'create_time < "{at}"', order_by="create_time") == names(*range(5))
    assert await ids(people, filter=f'create_time >= "{at}" AND display_name = Ada') == names(9, 6)
    assert await ids(people, filter=f'create_time = "{at}"') == names(5)
    changed = (await get(people, "u04")).update_time.ToJsonString()
    assert await ids(people, filter=f'update_time >= "{changed}"') == names(4)
    assert await ids(people, filter=f'update_time < "{changed}"', page_size=4) == names(
        11, 10, 9, 8, 7, 6, 5, 3, 2, 1, 0
    )


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("", range(11, -1, -1)),
        ("create_time", range(12)),
        ("create_time desc", range(11, -1, -1)),
        ("user_id", range(12)),
        ("user_id desc", range(11, -1, -1)),
        ("display_name", (0, 3, 6, 9, 11, 10, 8, 7, 5, 4, 2, 1)),
        ("display_name desc", (1, 2, 4, 5, 7, 8, 10, 11, 9, 6, 3, 0)),
        ("update_time desc", (4, 11, 10, 9, 8, 7, 6, 5, 3, 2, 1, 0)),
        ("update_time asc, user_id", (0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 4)),
    ],
)
@pytest.mark.parametrize("size", [0, 1, 5])
async def test_orders(people: Users, order: str, expected: range, size: int) -> None:
    assert await ids(people, order_by=order, page_size=size) == names(*expected)


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"filter": "email = ada"}, "filter"),
        ({"filter": "display_name > a"}, "filter"),
        ({"filter": "create_time > yesterday"}, "filter"),
        ({"filter": 'create_time > "2026-01-01T00:00:00Z" AND update_time > "2026-01-01T00:00:00Z"'}, "filter"),
        ({"filter": 'create_time = "2026-01-01T00:00:00Z" AND update_time = "2026-01-01T00:00:00Z"'}, "filter"),
        ({"order_by": "email"}, "order_by"),
        ({"filter": 'create_time > "2026-01-01T00:00:00Z"', "order_by": "display_name"}, "order_by"),
        ({"filter": "display_name = Ada", "order_by": "user_id"}, "order_by"),
        ({"page_token": "bm9wZQ"}, "page_token"),
    ],
)
async def test_what_is_refused(users: Users, request_fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ApiError) as refusal:
        await users.api.ListUsers(ListUsersRequest(**request_fields))
    assert refusal.value.violations[0].field == field


async def test_pages_are_bounded(users: Users) -> None:
    for start in range(0, 1001, 91):
        await asyncio.gather(*(create(users, f"u{n:04d}") for n in range(start, start + 91)))
    assert len((await listed(users)).users) == 50
    page = await listed(users, page_size=5000, order_by="user_id")
    assert len(page.users) == 1000
    rest = await listed(users, page_size=5000, order_by="user_id", page_token=page.next_page_token)
    assert [user.user_id for user in rest.users] == ["u1000"]
    assert not rest.next_page_token


async def test_a_page_of_large_users_ends_early(users: Users) -> None:
    big = {f"k{n}": "v" * 1000 for n in range(64)}
    for n in range(40):
        await create(users, f"u{n:02d}", metadata=big)
    page = await listed(users, page_size=1000, order_by="user_id")
    assert 1 < len(page.users) < 40
    assert page.ByteSize() < 3 * 1024 * 1024
    assert await ids(users, page_size=1000, order_by="user_id") == names(*range(40))


async def test_a_token_belongs_to_its_tenant_and_list(people: Users) -> None:
    token = (await listed(people, page_size=2)).next_page_token
    with people.tenant("other"), pytest.raises(ApiError) as foreign:
        await listed(people, page_size=2, page_token=token)
    for fields in ({"filter": "display_name = Ada"}, {"order_by": "user_id"}):
        with pytest.raises(ApiError) as moved:
            await listed(people, page_size=2, page_token=token, **fields)
        assert str(moved.value) == str(foreign.value)
    again = await listed(people, page_size=3, page_token=token)
    assert [user.user_id for user in again.users] == names(9, 8, 7)


async def test_a_cursor_goes_on_behind_a_user_who_is_gone(people: Users) -> None:
    page = await listed(people, page_size=2, order_by="display_name")
    await delete(people, "u03")
    following = await listed(people, page_size=3, order_by="display_name", page_token=page.next_page_token)
    assert [user.user_id for user in following.users] == names(6, 9, 11)


async def test_every_change_shows_at_once_and_to_its_tenant_alone(people: Users) -> None:
    await update(people, User(user_id="u01", display_name="Zoe"), "display_name")
    assert await ids(people, filter="display_name = Zoe") == ["u01"]
    await delete(people, "u01")
    assert await ids(people, filter="display_name = Zoe") == []
    with people.tenant("other"):
        assert await ids(people) == []
