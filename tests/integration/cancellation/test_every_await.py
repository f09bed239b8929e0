"""Every RPC of devices, sessions and users, left by its caller at every await that matters: afterwards state and events agree,
what is shown is what is stored, nothing is left running, and the next call finds nothing in its way."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bas.devices.v2 import devices_service_pb2
from bas.devices.v2.devices_pb2 import DEVICE_STATUS_DISABLED, Device, Reading
from bas.devices.v2.devices_service_pb2 import GetTelemetryRequest, ReportTelemetryRequest
from bas.sessions.v2 import sessions_service_pb2
from bas.sessions.v2.sessions_pb2 import Session
from bas.users.v2 import users_service_pb2
from bas.users.v2.users_pb2 import User
from chassis.errors import ApiError, Code
from chassis.store.landing import Landings
from chassis.store.port import Query
from services.devices.filters import COLLECTION as DEVICES
from services.sessions.filters import COLLECTION as SESSIONS
from services.users.filters import COLLECTION as USERS
from services.users.records import CLAIMS
from tests.integration.cancellation.rig import Rig, rig
from tests.integration.devices import calls as devices
from tests.integration.sessions import calls as sessions
from tests.integration.sessions.conftest import acting
from tests.integration.users import calls as users
from tests.support.valkey import Valkey, valkey, valkey_server

__all__ = ["valkey", "valkey_server"]

SCOPES = ("devices:admin", "sessions:admin", "users:admin")
MOST = 60
"""Places of one RPC: more of them than this would be a loop."""


@dataclass(frozen=True, slots=True)
class Case:
    """`arrange` makes what the call needs, and its answer is given to `act`, which is cut."""

    rpc: str
    act: Callable[[Any, Any], Awaitable[Any]]
    arrange: Callable[[Any], Awaitable[Any]] | None = None


async def _device(replica: Any) -> None:
    """Made, and cached."""
    await devices.create(replica)
    await devices.get(replica)


async def _session(replica: Any) -> Any:
    made = await sessions.create(replica)
    await sessions.authenticate(replica, made.token)
    return made


async def _user(replica: Any) -> None:
    await users.create(replica)
    await users.lookup(replica)


async def _telemetry(replica: Any, _: Any = None) -> Any:
    request = ReportTelemetryRequest(device_id="d1", readings={"t": Reading(double_value=1.0)})
    return await replica.api.ReportTelemetry(request)


async def _reported(replica: Any) -> None:
    await devices.create(replica)
    await _telemetry(replica)


async def _beaten(replica: Any) -> None:
    await devices.create(replica)
    await devices.beat(replica)


ON_DEVICES = (
    Case("CreateDevice", lambda one, _: devices.create(one, request_id="r1")),
    Case("BatchCreateDevices", lambda one, _: devices.batch(one, [Device(device_id=f"d{n}") for n in (1, 2)], "b1")),
    Case("GetDevice", lambda one, _: devices.get(one), _device),
    Case("ListDevices", lambda one, _: devices.listed(one), _device),
    Case("CountDevices", lambda one, _: devices.count(one), _device),
    Case(
        "UpdateDevice", lambda one, _: devices.update(one, Device(device_id="d1", type="new"), "type"), devices.create
    ),
    Case("DeleteDevice", lambda one, _: devices.delete(one), _device),
    Case("Heartbeat", lambda one, _: devices.beat(one), _device),
    Case("SetDeviceStatus", lambda one, _: devices.set_status(one, DEVICE_STATUS_DISABLED), _beaten),
    Case("ReportTelemetry", _telemetry, _device),
    Case("GetTelemetry", lambda one, _: one.api.GetTelemetry(GetTelemetryRequest(device_id="d1")), _reported),
)


async def _revoked(replica: Any) -> Any:
    made = await sessions.create(replica)
    await sessions.revoke(replica, made.session.session_id)
    return made


async def _two(replica: Any) -> Any:
    await sessions.create(replica)
    return await sessions.create(replica)


async def _noted(replica: Any, made: Any) -> Any:
    session = Session(session_id=made.session.session_id, metadata={"note": "new"})
    return await sessions.update(replica, session, "metadata")


ON_SESSIONS = (
    Case("CreateSession", lambda one, _: sessions.create(one, request_id="r1")),
    Case("AuthenticateSession", lambda one, made: sessions.authenticate(one, made.token), _session),
    Case("RefreshSession", lambda one, made: sessions.refresh(one, made.token), _session),
    Case("GetSession", lambda one, made: sessions.get(one, made.session.session_id), _session),
    Case("ListSessions", lambda one, _: sessions.listed(one), _session),
    Case("UpdateSession", _noted, _session),
    Case("RevokeSession", lambda one, made: sessions.revoke(one, made.session.session_id), _session),
    Case("RevokeUserSessions", lambda one, _: sessions.revoke_all(one), _two),
    Case("CleanupExpiredSessions", lambda one, _: sessions.clean_up(one), _revoked),
)

ON_USERS = (
    Case("CreateUser", lambda one, _: users.create(one, request_id="r1")),
    Case("GetUser", lambda one, _: users.get(one), _user),
    Case("BatchGetUsers", lambda one, _: users.batch(one, "u1", "u2"), _user),
    Case("LookupUser", lambda one, _: users.lookup(one), _user),
    Case("ListUsers", lambda one, _: users.listed(one), _user),
    Case(
        "UpdateUser",
        lambda one, _: users.update(one, User(user_id="u1", email="new@example.com"), "email"),
        _user,
    ),
    Case("DeleteUser", lambda one, _: users.delete(one), _user),
)

ALL = {"devices": ON_DEVICES, "sessions": ON_SESSIONS, "users": ON_USERS}
MODULES = {
    "devices": (devices_service_pb2, "DeviceService"),
    "sessions": (sessions_service_pb2, "SessionService"),
    "users": (users_service_pb2, "UserService"),
}


@pytest.mark.parametrize("service", ALL)
def test_no_rpc_is_left_out(service: str) -> None:
    module, name = MODULES[service]
    assert {case.rpc for case in ALL[service]} == set(module.DESCRIPTOR.services_by_name[name].methods_by_name)


@pytest.mark.parametrize(
    ("service", "case"),
    [(service, case) for service, cases in ALL.items() for case in cases],
    ids=lambda each: getattr(each, "rpc", each),
)
async def test_a_call_may_be_left_anywhere(service: str, case: Case, tmp_path: Path, valkey: Valkey) -> None:
    async with rig(service, tmp_path, valkey) as made:
        assert await _cut_everywhere(made, service, case) > 0, "no call was ever cut"


async def _cut_everywhere(made: Rig, service: str, case: Case) -> int:
    """How many calls were cut."""
    cut = 0
    for place in range(MOST):
        with acting(f"t{place}", *SCOPES):
            given = await case.arrange(made.other) if case.arrange is not None else None
            cut += await made.knife.run(case.act(made.cut, given), place)
            reached = made.knife.places > place
            await made.settled()
            await HOLDS[service](made, f"t{place}")
        if not reached:
            return cut
    raise AssertionError("more places than a call has")


async def test_a_commit_that_ends_with_its_caller_is_found(
    tmp_path: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeded bug: who leaves between a commit and its invalidation leaves what is stale in the cache."""

    async def land(self: Landings, work: Coroutine[Any, Any, Any]) -> Any:
        return await work

    monkeypatch.setattr(Landings, "land", land)
    async with rig("users", tmp_path, valkey) as made:
        (case,) = (case for case in ON_USERS if case.rpc == "UpdateUser")
        with pytest.raises((AssertionError, ApiError)):
            await _cut_everywhere(made, "users", case)


async def _told(made: Rig, tenant: str, subject: str) -> list[Any]:
    return [told for told in await made.outbox.told(made.store) if (told.tenant, told.subject) == (tenant, subject)]


async def _devices(made: Rig, tenant: str) -> None:
    documents = await made.store.query(Query(tenant, DEVICES))
    stored = {document.key.id: document for document in documents}
    assert sorted(await devices.ids(made.other)) == sorted(stored), "what is listed is what is stored"
    assert sum((await devices.count(made.other)).values()) == len(stored), "what is counted is what is stored"
    for name in ("d1", "d2"):
        types = [told.type for told in await _told(made, tenant, f"devices/{name}")]
        if name not in stored:
            assert types in ([], ["device.created", "device.deleted"]), "what is gone was told to be gone"
            with devices.refused("DEVICE_NOT_FOUND"):
                await devices.get(made.other, name)
            continue
        shown = await devices.get(made.other, name)
        assert shown == await devices.get(made.bare, name)
        assert types[:1] == ["device.created"]
        assert types.count("device.created") == 1
        assert ("device.updated" in types) == (shown.type == "new"), "a change is told, and what is told was changed"
        assert ("device.disabled" in types) == (shown.status == DEVICE_STATUS_DISABLED)
        changed = await devices.update(made.cut, Device(device_id=name, display_name="after"), "display_name")
        assert (await devices.get(made.other, name)).display_name == changed.display_name == "after"


async def _sessions(made: Rig, tenant: str) -> None:
    documents = await made.store.query(Query(tenant, SESSIONS))
    for document in documents:
        shown = await sessions.get(made.other, document.key.id)
        assert shown == await sessions.get(made.bare, document.key.id)
        types = [told.type for told in await _told(made, tenant, f"sessions/{document.key.id}")]
        assert types[:1] == ["session.created"]
        assert ("session.revoked" in types) == (shown.status != 1), (
            "who is revoked was told to be, and the other way round"
        )
        assert ("session.updated" in types) == ("note" in shown.metadata)
        await sessions.revoke(made.cut, document.key.id)
        assert (await sessions.get(made.other, document.key.id)).status != 1
    for told in await made.outbox.told(made.store):
        if told.tenant == tenant and told.subject.removeprefix("sessions/") not in {each.key.id for each in documents}:
            with pytest.raises(ApiError) as refusal:
                await sessions.get(made.other, told.subject.removeprefix("sessions/"))
            assert refusal.value.code is Code.NOT_FOUND


async def _users(made: Rig, tenant: str) -> None:
    stored = {document.key.id: document for document in await made.store.query(Query(tenant, USERS))}
    claims = await made.store.query(Query(tenant, CLAIMS))
    assert len(claims) == len(stored), "each has its address, and no address is nobody's"
    assert sorted(await users.ids(made.other)) == sorted(stored)
    types = [told.type for told in await _told(made, tenant, "users/u1")]
    if "u1" not in stored:
        assert types in ([], ["user.created", "user.deleted"])
        with pytest.raises(ApiError) as refusal:
            await users.lookup(made.other)
        assert refusal.value.code is Code.NOT_FOUND
        await users.create(made.cut)  # the address is free
        return
    shown = await users.get(made.other)
    assert shown == await users.get(made.bare)
    assert types[:1] == ["user.created"]
    assert ("user.updated" in types) == (shown.email == "new@example.com")
    assert (await users.lookup(made.other, shown.email)).user_id == "u1"
    await users.delete(made.cut)
    with pytest.raises(ApiError):
        await users.get(made.other)


HOLDS = {"devices": _devices, "sessions": _sessions, "users": _users}
