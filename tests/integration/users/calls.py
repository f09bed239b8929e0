"""The RPCs of the users service, as short as a test wants them."""

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from bas.users.v2.users_pb2 import User
from bas.users.v2.users_service_pb2 import (
    BatchGetUsersRequest,
    BatchGetUsersResponse,
    CreateUserRequest,
    DeleteUserRequest,
    GetUserRequest,
    ListUsersRequest,
    ListUsersResponse,
    LookupUserRequest,
    UpdateUserRequest,
)
from chassis.errors import ApiError
from tests.integration.users.conftest import Users


async def create(users: Users, user_id: str = "u1", email: str = "", request_id: str = "", **fields: Any) -> User:
    user = User(user_id=user_id, email=email or f"{user_id}@example.com", **fields)
    return await users.api.CreateUser(CreateUserRequest(user=user, request_id=request_id))


async def get(users: Users, user_id: str = "u1") -> User:
    return User.FromString(await users.api.GetUser(GetUserRequest(user_id=user_id)))


async def batch(users: Users, *user_ids: str) -> BatchGetUsersResponse:
    return await users.api.BatchGetUsers(BatchGetUsersRequest(user_ids=user_ids))


async def lookup(users: Users, email: str = "u1@example.com") -> User:
    return User.FromString(await users.api.LookupUser(LookupUserRequest(email=email)))


async def update(users: Users, user: User, *paths: str, allow_missing: bool = False) -> User:
    request = UpdateUserRequest(user=user, update_mask=FieldMask(paths=paths), allow_missing=allow_missing)
    return await users.api.UpdateUser(request)


async def delete(users: Users, user_id: str = "u1", etag: str = "", *, allow_missing: bool = False) -> None:
    await users.api.DeleteUser(DeleteUserRequest(user_id=user_id, etag=etag, allow_missing=allow_missing))


async def listed(users: Users, **fields: Any) -> ListUsersResponse:
    return await users.api.ListUsers(ListUsersRequest(**fields))


async def ids(users: Users, **fields: Any) -> list[str]:
    """Ids of all pages."""
    found: list[str] = []
    token = ""
    while True:
        page = await listed(users, page_token=token, **fields)
        found += [user.user_id for user in page.users]
        token = page.next_page_token
        if not token:
            return found


def refused(reason: str) -> Any:
    """Expect an ApiError of that reason."""
    return pytest.raises(ApiError, check=lambda failure: failure.reason == reason)
