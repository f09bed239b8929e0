# ruff: noqa: N802 - methods are named as their RPCs are
"""UserService: one method an RPC. Scopes, deadlines and field rules are checked before a method runs."""

from typing import Final

from google.protobuf.empty_pb2 import Empty

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
from chassis.context import tenant
from chassis.errors import invalid_field
from services.users import user as rules
from services.users.listing import UserLists
from services.users.registry import Registry
from services.users.store import UserStore

_FRAMING: Final = 64 * 1024
"""Bytes of a message kept for what is around the users in it."""


class UserServicer:
    def __init__(self, store: UserStore, registry: Registry, lists: UserLists, max_message: int) -> None:
        self._store = store
        self._registry = registry
        self._lists = lists
        self._batch_bytes = max_message - _FRAMING

    async def GetUser(self, request: GetUserRequest) -> bytes:
        return await self._store.get(tenant(), request.user_id)

    async def BatchGetUsers(self, request: BatchGetUsersRequest) -> BatchGetUsersResponse:
        found = await self._store.get_many(tenant(), list(dict.fromkeys(request.user_ids)))
        present = [data for data in found.values() if data is not None]
        if sum(map(len, present)) > self._batch_bytes:
            raise invalid_field("user_ids", "these users do not fit one answer: ask for fewer at once")
        return BatchGetUsersResponse(
            users=map(User.FromString, present), missing_ids=[user_id for user_id in found if found[user_id] is None]
        )

    async def LookupUser(self, request: LookupUserRequest) -> bytes:
        return await self._store.lookup(tenant(), rules.claim(request.email, "email"))

    async def ListUsers(self, request: ListUsersRequest) -> ListUsersResponse:
        return await self._lists.page(tenant(), request)

    async def CreateUser(self, request: CreateUserRequest) -> User:
        return await self._registry.create(tenant(), request)

    async def UpdateUser(self, request: UpdateUserRequest) -> User:
        return await self._registry.update(
            tenant(), request.user, request.update_mask, allow_missing=request.allow_missing
        )

    async def DeleteUser(self, request: DeleteUserRequest) -> Empty:
        await self._registry.remove(tenant(), request)
        return Empty()
