"""The matrix is able to fail: deployments with one bug each, and the cells that catch it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
from google.protobuf.unknown_fields import UnknownFieldSet

from chassis import context, peers
from chassis.api.cursors import Cursors
from chassis.api.paging import Listing
from chassis.auth import tokens
from chassis.auth.keys import KeySet
from chassis.auth.tokens import Grant, expand
from chassis.config import Auth
from chassis.context import Caller
from chassis.errors import ApiError, Code
from chassis.interceptors import admission, server
from chassis.store import requests
from chassis.store.port import Committed, Document, DocumentStore, Key, Query, Write
from gateway.sessions import Sessions
from gateway.sse.hub import Hub
from gateway.transcoding.binding import Binder
from gateway.transcoding.body import BodyChecker
from services.devices.store import DeviceStore
from services.events.store import RedisEventLog
from services.sessions.authentication import Authenticator
from services.sessions.cleanup import Cleanup
from services.sessions.records import lookup_key, session_key, stored
from services.sessions.store import SessionStore
from tests.isolation import matrix
from tests.isolation.deployment import Faults, deployed
from tests.isolation.world import World
from tests.support.valkey import Valkey


class LooksEverywhere:
    """A store whose reads go on to other tenants."""

    def __init__(self, inner: DocumentStore) -> None:
        self._inner = inner
        self._tenants: dict[str, None] = {}

    async def get(self, key: Key) -> Document | None:
        for tenant in (key.tenant, *self._tenants):
            found = await self._inner.get(replace(key, tenant=tenant))
            if found is not None:
                return found
        return None

    async def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        return [await self.get(key) for key in keys]

    async def query(self, query: Query) -> list[Document]:
        found = [each for name in self._tenants for each in await self._inner.query(replace(query, tenant=name))]
        return found[: query.limit]

    async def count(self, query: Query) -> int:
        return sum([await self._inner.count(replace(query, tenant=name)) for name in self._tenants])

    async def commit(self, writes: Sequence[Write]) -> Committed:
        self._tenants |= dict.fromkeys(write.key.tenant for write in writes)
        return await self._inner.commit(writes)

    async def close(self) -> None:
        await self._inner.close()


def _as(tenant: str) -> None:
    call = context.current()
    assert call is not None
    if call.caller is not None:
        context.enter(replace(call, caller=replace(call.caller, tenant=tenant)))


class TrustsUnknownFields:
    """A servicer that believes a tenant in field 99 of a request."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        handler = getattr(self._inner, name)

        async def call(request: Any) -> Any:
            for each in UnknownFieldSet(request):  # type: ignore[attr-defined]  # it has no iterator, and can be indexed
                if each.field_number == 99:
                    _as(each.data.decode())
            return await handler(request)

        return call


_admission = admission.admission
_authentication = admission._authentication
_verify = tokens.verify
_read = DeviceStore.read
_get = DeviceStore.get
_admit = Authenticator._admit
_some = Cleanup.some
_from_query = Binder._from_query
_message = BodyChecker.message
_exchange = Sessions.exchange
_credentials = peers._Credentials.__call__
_mac = Cursors._mac
_publish = RedisEventLog.publish
_follow = Hub._follow


def _admission_by_header(*given: Any, **more: Any) -> Any:
    admit = _admission(*given, **more)

    def trusting(rpc: Any, progress: Any) -> None:
        admit(rpc, progress)
        named = dict(rpc.invocation_metadata()).get("x-tenant")
        if named:
            _as(named)

    return trusting


def _any_scope(verifier: Any, policy: Any) -> Any:
    return _authentication(verifier, replace(policy, scope=""))


def _anonymous(verifier: Any, policy: Any) -> Any:
    authenticate = _authentication(verifier, policy)
    nobody = Caller("public", "nobody", expand(tokens.ALL_SCOPES), 4e9)
    return lambda authorization: authenticate(authorization) if authorization else nobody


def _believing(instead: Callable[[str, KeySet, Auth, datetime], Caller]) -> Callable[..., Caller]:
    """A verification that asks another one for what it would refuse, and otherwise refuses as it should."""

    def verify(token: str, held: KeySet, auth: Auth, now: datetime) -> Caller:
        try:
            return _verify(token, held, auth, now)
        except ApiError as refused:
            try:
                return instead(token, held, auth, now)
            except (ApiError, jwt.PyJWTError):
                raise refused from None

    return verify


def _any_audience(token: str, held: KeySet, auth: Auth, now: datetime) -> Caller:
    return _verify(token, held, replace(auth, audience="others"), now)


def _any_issuer(token: str, held: KeySet, auth: Auth, now: datetime) -> Caller:
    return _verify(token, held, replace(auth, issuer="others"), now)


def _any_time(token: str, held: KeySet, auth: Auth, now: datetime) -> Caller:
    return _verify(token, held, auth, now - timedelta(hours=2))


def _any_signature(token: str, held: KeySet, auth: Auth, now: datetime) -> Caller:
    claims = jwt.decode(token, options={"verify_signature": False})
    there = len(token.rpartition(".")[2]) == 86  # what 64 bytes are in base64url
    if not there or now.timestamp() > claims["exp"] or (claims["aud"], claims["iss"]) != (auth.audience, auth.issuer):
        raise tokens.invalid()
    return Caller(claims["tenant"], claims["sub"], expand(claims["scope"].split()), claims["exp"])


def _unbound(listing: Listing) -> bytes:
    return "\n".join((listing.method, *listing.shape)).encode()


def _one_log(_: str, method: str, request_id: str) -> Key:
    return Key("everybody", requests.COLLECTION, sha256(f"{method}\n{request_id}".encode()).hexdigest())


async def _telltale(self: DeviceStore, tenant: str, device_id: str) -> Any:
    """PERMISSION_DENIED for what another tenant has."""
    found = await _read(self, tenant, device_id)
    if found is None and device_id.startswith("its-"):
        raise ApiError(Code.PERMISSION_DENIED, "NOT_YOURS", "That is another tenant's.")
    return found


async def _cached_for_all(self: DeviceStore, tenant: str, device_id: str) -> bytes:
    """The key of what is cached lacks the tenant."""
    held: dict[str, bytes] = self.__dict__.setdefault("held", {})
    if device_id not in held:
        held[device_id] = await _get(self, tenant, device_id)
    return held[device_id]


async def _anybodys(self: SessionStore, _: str, session_id: str) -> Any:
    lookup = await self.documents.get(lookup_key(session_id))
    document = await self.documents.get(session_key(str(lookup.fields["tenant"]), session_id)) if lookup else None
    return None if document is None else stored(document)


async def _any_tenants(self: Authenticator, presented: Any, entry: Any, standing: Any, now: int, _: str) -> None:
    await _admit(self, presented, entry, standing, now, "")


async def _cleans_all(self: Cleanup, limit: int, tenant: str = "") -> Any:
    return await _some(self, limit)


def _any_query(self: Any, tree: Any, query: bytes) -> None:
    kept = [each for each in query.split(b"&") if not each.startswith(b"tenant=")]
    _from_query(self, tree, b"&".join(kept))


def _any_member(self: Any, message: Any, value: Any, at: str = "") -> Any:
    if isinstance(value, dict):
        value = {name: each for name, each in value.items() if name != "tenant"}
    return _message(self, message, value, at)


def _one_tenant(self: Any, tenant: str, scope: str) -> Any:
    """Another service is always called as the tenant that was first."""
    first = self.__dict__.setdefault("first", tenant)
    return _credentials(self, first, scope)


async def _by_user(self: Sessions, token: str, seconds: float, metadata: Any) -> str:
    """The caller tokens of sessions are remembered by the user's name."""
    held: dict[str, str] = self.__dict__.setdefault("held", {})
    user = (await self.authenticate(token, seconds, metadata)).session.user_id
    if user not in held:
        held[user] = await _exchange(self, token, seconds, metadata)
    return held[user]


async def _as_maker(self: Sessions, token: str, seconds: float, metadata: Any) -> str:
    """A session may do everything."""
    answer = await self.authenticate(token, seconds, metadata)
    return f"Bearer {self._issue(Grant(answer.tenant, answer.session.user_id))}"


def _of_anybody(self: Cursors, _: str, epoch: str, sequence: int) -> str:
    return _mac(self, "", epoch, sequence)


def _shared_by_all(self: Hub, tenant: str, request: bytes) -> Any:
    """Who asks for the same gets the same stream, whoever it is."""
    first: dict[bytes, str] = self.__dict__.setdefault("first", {})
    return _follow(self, first.setdefault(request, tenant), request)


async def _for_all(self: RedisEventLog, tenant: str, events: Any) -> Any:
    """What one tenant publishes is in the log of every other that has one."""
    seen: dict[str, None] = self.__dict__.setdefault("seen", {})
    for other in (each for each in tuple(seen) if each != tenant):
        await _publish(self, other, events)
    seen[tenant] = None
    return await _publish(self, tenant, events)


Patch = tuple[Any, str, Any]

LATE: Final[dict[str, tuple[str, Patch]]] = {
    "wrong audience": ("DeviceService.GetDevice-grpc-refusals", (tokens, "verify", _believing(_any_audience))),
    "wrong issuer": ("UserService.GetUser-rest-refusals", (tokens, "verify", _believing(_any_issuer))),
    "expired": ("SessionService.AuthenticateSession-grpc-refusals", (tokens, "verify", _believing(_any_time))),
    "foreign key": ("SessionService.GetSession-grpc-refusals", (tokens, "verify", _believing(_any_signature))),
    "page tokens of anybody": ("DeviceService.ListDevices-grpc-foreign cursor", (Listing, "digest_input", _unbound)),
    "and of users": ("UserService.ListUsers-rest-foreign cursor", (Listing, "digest_input", _unbound)),
    "one log of requests": ("DeviceService.CreateDevice-grpc-foreign request id", (requests, "_key", _one_log)),
    "and of sessions": ("SessionService.CreateSession-rest-foreign request id", (requests, "_key", _one_log)),
    "another refusal": ("DeviceService.GetDevice-grpc-foreign device_id", (DeviceStore, "read", _telltale)),
    "one cache": ("DeviceService.GetDevice-rest-smuggled in headers", (DeviceStore, "get", _cached_for_all)),
    "anybody's session": ("SessionService.RevokeSession-rest-foreign session_id", (SessionStore, "read", _anybodys)),
    "a stranger's token": (
        "SessionService.AuthenticateSession-grpc-foreign session", (Authenticator, "_admit", _any_tenants)
    ),
    "a clean-up of all": (
        "SessionService.CleanupExpiredSessions-grpc-smuggled in headers", (Cleanup, "some", _cleans_all)
    ),
    "a peer's tenant": (
        "UserService.DeleteUser-grpc-smuggled in headers", (peers._Credentials, "__call__", _one_tenant)
    ),
    "sessions by user": ("DeviceService.ListDevices-rest-by session", (Sessions, "exchange", _by_user)),
    "sessions for all": ("UserService.GetUser-rest-by a weak session", (Sessions, "exchange", _as_maker)),
    "any query": ("DeviceService.GetDevice-rest-smuggled in query", (Binder, "_from_query", _any_query)),
    "cursors of anybody": ("EventService.ListEvents-rest-foreign cursor", (Cursors, "_mac", _of_anybody)),
    "and of streams": ("EventService.SubscribeEvents-grpc-foreign cursor", (Cursors, "_mac", _of_anybody)),
    "one log of events": ("EventService.SubscribeEvents-rest-follows", (RedisEventLog, "publish", _for_all)),
    "one stream of events": ("EventService.SubscribeEvents-grpc-follows", (RedisEventLog, "publish", _for_all)),
    "one stream for all": ("EventService.SubscribeEvents-sse-shows ''", (Hub, "_follow", _shared_by_all)),
    "any member": ("DeviceService.CreateDevice-rest-smuggled in body", (BodyChecker, "message", _any_member)),
}  # fmt: skip
"""Bug → the cell that has to notice, and what is patched in a deployment that runs."""

EARLY: Final[dict[str, tuple[Sequence[str], Patch | None, Faults]]] = {
    "a tenant in a header": (
        ["DeviceService.GetDevice-grpc-smuggled in headers", "UserService.ListUsers-grpc-smuggled in headers"],
        (server, "admission", _admission_by_header),
        Faults(),
    ),
    "a tenant in field 99": (
        ["DeviceService.DeleteDevice-grpc-smuggled in unknown fields"],
        None,
        Faults(module=lambda module: replace(module, servicer=TrustsUnknownFields(module.servicer))),
    ),
    "scope": (["UserService.DeleteUser-grpc-refusals"], (admission, "_authentication", _any_scope), Faults()),
    "no credential": (
        ["DeviceService.ListDevices-grpc-refusals"],
        (admission, "_authentication", _anonymous),
        Faults(),
    ),
    "a store that looks everywhere": (
        [
            "DeviceService.GetDevice-grpc-foreign device_id",
            "DeviceService.ListDevices-grpc-shows ''",
            "DeviceService.CountDevices-rest-shows ''",
            "UserService.BatchGetUsers-grpc-foreign user_ids[]",
            "SessionService.ListSessions-rest-shows ''",
        ],
        None,
        Faults(store=LooksEverywhere),
    ),
}
"""Bug → the cells, and what a deployment is made with."""


def _cell(name: str) -> Any:
    return next(cell for cell in (*matrix.cells(), *matrix.refusals()) if str(cell) == name)


def _noticed(cell: str, bug: str) -> Any:
    """Of many refusals it is the one that the bug is named after."""
    return pytest.raises(AssertionError, match=f"'{bug}'|^{bug} " if cell.endswith("refusals") else None)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("bug", LATE)
async def test_the_bug_is_caught(world: World, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    cell, (where, name, instead) = LATE[bug]
    monkeypatch.setattr(where, name, instead)
    with _noticed(cell, bug):
        await _cell(cell).check(world)


@pytest.mark.parametrize("bug", EARLY)
async def test_a_deployment_with_the_bug_is_caught(
    valkey_server: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    cells, patch, faults = EARLY[bug]
    if patch is not None:
        monkeypatch.setattr(*patch)
    async with deployed(tmp_path, valkey_server.url, faults) as deployment:
        world = World(deployment, f"bug-{list(EARLY).index(bug)}")
        for cell in cells:
            with _noticed(cell, bug):
                await _cell(cell).check(world)
