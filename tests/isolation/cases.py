"""The classification: for each RPC, how to make a valid request about what a tenant owns; for each field that holds an
id, whose it is. A new RPC or a new id needs a line here, and is then held to every check there is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from bas.audit.v2 import audit_service_pb2 as a
from bas.audit.v2.audit_pb2 import OUTCOME_SUCCESS, Actor, Entry, Resource
from bas.devices.v2 import devices_service_pb2 as d
from bas.devices.v2.devices_pb2 import DEVICE_STATUS_DISABLED, Device, Reading
from bas.events.v2 import events_service_pb2 as e
from bas.events.v2.events_pb2 import CloudEvent
from bas.sessions.v2 import sessions_service_pb2 as s
from bas.sessions.v2.sessions_pb2 import Session
from bas.users.v2 import users_service_pb2 as u
from bas.users.v2.users_pb2 import User


@dataclass(slots=True)
class Owned:
    """What a tenant was given before a check. Its name is in all that it keeps and in none of its ids, which begin with
    `prefix`: so two tenants can have the same ids, and what is told of one is known when it is seen."""

    tenant: str
    prefix: str
    etag: str = ""
    session_id: str = ""
    token: str = ""
    cursor: str = ""
    entry_id: str = ""

    @property
    def device(self) -> str:
        return f"{self.prefix}-device-1"

    @property
    def user(self) -> str:
        return f"{self.prefix}-user-1"

    @property
    def email(self) -> str:
        return f"{self.prefix}-1@example.com"


@dataclass(frozen=True, slots=True)
class Case:
    """`request` makes a valid request about what the tenant owns, or for something new. A list or count `shows`, for
    each filter, how many of the tenant's own (`{other}` in a filter is another tenant's name). `later` passes before
    the request: for what acts on what is over."""

    request: Callable[[Owned], Message]
    shows: Mapping[str, int] = field(default_factory=dict)
    later: timedelta = timedelta()


IDS: Final[Mapping[str, Callable[[Owned], str]]] = {
    "device_id": lambda own: own.device,
    "user_id": lambda own: own.user,
    "user_ids": lambda own: own.user,
    "email": lambda own: own.email,
    "session_id": lambda own: own.session_id,
    "except_session_id": lambda own: own.session_id,
    "token": lambda own: own.token,
    "etag": lambda own: own.etag,
    "cursor": lambda own: own.cursor,
    "entry_id": lambda own: own.entry_id,
}
"""Fields that name something of a tenant's, in whatever request they are."""

NOT_IDS: Final = frozenset(
    {
        "request_id",
        "idempotency_key",
        "page_token",
        "boot_id",
        "type",
        "traceparent",
        "action",
        "ip",
        "resource_type",
    }
)
"""Fields that look like it, and are the caller's own words; the first three have checks of their own."""


def _device(own: Owned, device_id: str) -> Device:
    return Device(
        device_id=device_id,
        display_name=own.tenant,
        type="boiler",
        labels={"site": "north", "owner": own.tenant},
        metadata={"of": own.tenant},
    )


def _user(own: Owned, name: str) -> User:
    return User(
        user_id=f"{own.prefix}-user-{name}",
        email=f"{own.prefix}-{name}@example.com",
        display_name=own.tenant,
        metadata={"of": own.tenant},
    )


def _session(own: Owned, **more: Any) -> Session:
    return Session(**({"user_id": own.user, "device_id": own.device, "metadata": {"of": own.tenant}} | more))


def _report(own: Owned) -> Message:
    return d.ReportTelemetryRequest(device_id=own.device, readings={"t": Reading(string_value=own.tenant)})


def _event(own: Owned, event_id: str) -> CloudEvent:
    event = CloudEvent(id=event_id, source="/plant", type="boiler.heated", subject=f"devices/{own.device}")
    event.data.string_value = own.tenant
    event.extensions["owner"].string_value = own.tenant
    return event


def _entry(own: Owned, key: str) -> Entry:
    return Entry(
        idempotency_key=key,
        actor=Actor(subject=own.user),
        action="device.heated",
        resource=Resource(type="device", id=own.device),
        outcome=OUTCOME_SUCCESS,
        reason=own.tenant,
        metadata={"of": own.tenant},
    )


_LOGGED: Final = 2
"""Entries that a tenant begins with: so large is the tree of its first checkpoint."""

_BOILERS: Final = {
    "": 2,
    'type = "boiler"': 2,
    'labels.site = "north"': 2,
    "labels:owner": 2,
    'labels.owner = "{other}"': 0,
    "status = DEVICE_STATUS_ONLINE": 1,
    'create_time > "2020-01-01T00:00:00Z"': 2,
}

CASES: Final[Mapping[str, Case]] = {
    "DeviceService.CreateDevice": Case(lambda own: d.CreateDeviceRequest(device=_device(own, "new"))),
    "DeviceService.BatchCreateDevices": Case(
        lambda own: d.BatchCreateDevicesRequest(devices=[_device(own, "new-1"), _device(own, "new-2")])
    ),
    "DeviceService.GetDevice": Case(lambda own: d.GetDeviceRequest(device_id=own.device)),
    "DeviceService.ListDevices": Case(lambda _: d.ListDevicesRequest(), shows=_BOILERS),
    "DeviceService.CountDevices": Case(lambda _: d.CountDevicesRequest(), shows=_BOILERS),
    "DeviceService.UpdateDevice": Case(
        lambda own: d.UpdateDeviceRequest(
            device=Device(device_id=own.device, type="kettle"), update_mask=FieldMask(paths=["type"])
        )
    ),
    "DeviceService.DeleteDevice": Case(lambda own: d.DeleteDeviceRequest(device_id=own.device)),
    "DeviceService.Heartbeat": Case(lambda own: d.HeartbeatRequest(device_id=own.device, boot_id="b", sequence=1)),
    "DeviceService.SetDeviceStatus": Case(
        lambda own: d.SetDeviceStatusRequest(device_id=own.device, status=DEVICE_STATUS_DISABLED, reason="broken")
    ),
    "DeviceService.ReportTelemetry": Case(_report),
    "DeviceService.GetTelemetry": Case(lambda own: d.GetTelemetryRequest(device_id=own.device)),
    "UserService.GetUser": Case(lambda own: u.GetUserRequest(user_id=own.user)),
    "UserService.BatchGetUsers": Case(lambda own: u.BatchGetUsersRequest(user_ids=[own.user, "nobody"])),
    "UserService.LookupUser": Case(lambda own: u.LookupUserRequest(email=own.email)),
    "UserService.ListUsers": Case(
        lambda _: u.ListUsersRequest(),
        shows={
            "": 2,
            'display_name = "{other}"': 0,
            'display_name != "x"': 2,
            'create_time > "2020-01-01T00:00:00Z"': 2,
        },
    ),
    "UserService.CreateUser": Case(lambda own: u.CreateUserRequest(user=_user(own, "new"))),
    "UserService.UpdateUser": Case(
        lambda own: u.UpdateUserRequest(
            user=User(user_id=own.user, display_name="Ada"), update_mask=FieldMask(paths=["display_name"])
        )
    ),
    "UserService.DeleteUser": Case(lambda own: u.DeleteUserRequest(user_id=own.user)),
    "SessionService.CreateSession": Case(lambda own: s.CreateSessionRequest(session=_session(own))),
    "SessionService.AuthenticateSession": Case(lambda own: s.AuthenticateSessionRequest(token=own.token)),
    "SessionService.RefreshSession": Case(lambda own: s.RefreshSessionRequest(token=own.token)),
    "SessionService.GetSession": Case(lambda own: s.GetSessionRequest(session_id=own.session_id)),
    "SessionService.ListSessions": Case(
        lambda own: s.ListSessionsRequest(user_id=own.user),
        shows={"": 2, "status = SESSION_STATUS_ACTIVE": 2, "status = SESSION_STATUS_REVOKED": 0},
    ),
    "SessionService.UpdateSession": Case(
        lambda own: s.UpdateSessionRequest(
            session=Session(session_id=own.session_id, metadata={"app": "web"}),
            update_mask=FieldMask(paths=["metadata"]),
        )
    ),
    "SessionService.RevokeSession": Case(lambda own: s.RevokeSessionRequest(session_id=own.session_id, reason="lost")),
    "SessionService.RevokeUserSessions": Case(
        lambda own: s.RevokeUserSessionsRequest(user_id=own.user, except_session_id="none")
    ),
    "SessionService.CleanupExpiredSessions": Case(
        lambda _: s.CleanupExpiredSessionsRequest(), later=timedelta(days=60)
    ),
    "AuditService.AppendEntry": Case(lambda own: a.AppendEntryRequest(entry=_entry(own, "new"))),
    # One of them is in the log already: of whom, is what matters.
    "AuditService.BatchAppendEntries": Case(
        lambda own: a.BatchAppendEntriesRequest(entries=[_entry(own, "1"), _entry(own, "new")])
    ),
    "AuditService.GetEntry": Case(lambda own: a.GetEntryRequest(entry_id=own.entry_id)),
    "AuditService.ListEntries": Case(lambda _: a.ListEntriesRequest(resource_type="device"), shows={"": _LOGGED}),
    "AuditService.RecentEntries": Case(lambda _: a.RecentEntriesRequest()),
    "AuditService.ExportEntries": Case(lambda own: a.ExportEntriesRequest(cursor=own.cursor, tree_size=_LOGGED)),
    "AuditService.GetCheckpoint": Case(lambda _: a.GetCheckpointRequest(tree_size=_LOGGED)),
    "AuditService.GetInclusionProof": Case(
        lambda own: a.GetInclusionProofRequest(entry_id=own.entry_id, tree_size=_LOGGED)
    ),
    "AuditService.GetConsistencyProof": Case(
        lambda _: a.GetConsistencyProofRequest(first_tree_size=1, second_tree_size=_LOGGED)
    ),
    "AuditService.GetVerifierKey": Case(lambda _: a.GetVerifierKeyRequest()),
    "AuditService.ErasePersonalData": Case(lambda own: a.ErasePersonalDataRequest(entry_id=own.entry_id)),
    # One of them is in the log already: of whom, is what matters.
    "EventService.PublishEvents": Case(
        lambda own: e.PublishEventsRequest(events=[_event(own, "1"), _event(own, "new")])
    ),
    "EventService.ListEvents": Case(lambda _: e.ListEventsRequest(), shows={"": 3}),
    "EventService.SubscribeEvents": Case(lambda own: e.SubscribeEventsRequest(cursor=own.cursor), shows={"": 2}),
}

HOW: Final = """{missing} is not classified. Add it to tests/isolation/cases.py: to CASES a request that is valid for a
tenant with the usual stock (and, for a list or count, how many of the tenant's own each filter shows); to IDS, or to
NOT_IDS, the fields that hold ids; for a new service, what it keeps to STOCK and what a tenant sees of it to VIEW."""

STOCK: Final[Mapping[str, Callable[[Owned], tuple[Message, ...]]]] = {
    "devices": lambda own: (
        d.BatchCreateDevicesRequest(devices=[_device(own, own.device), _device(own, f"{own.prefix}-device-2")]),
        d.HeartbeatRequest(device_id=own.device),
        _report(own),
    ),
    "users": lambda own: (
        u.CreateUserRequest(user=_user(own, "1")),
        u.CreateUserRequest(user=_user(own, "2")),
        s.CreateSessionRequest(session=_session(own)),
    ),
    "sessions": lambda own: (
        s.CreateSessionRequest(session=_session(own)),
        s.CreateSessionRequest(session=_session(own)),
    ),
    "audit": lambda own: (
        a.BatchAppendEntriesRequest(
            entries=[_entry(own, str(number + 1)) for number in range(_LOGGED)],
            acknowledgement=a.ACKNOWLEDGEMENT_INTEGRATED,
        ),
        a.ExportEntriesRequest(),
    ),
    "events": lambda own: (e.PublishEventsRequest(events=[_event(own, str(number)) for number in range(3)]),),
}
"""Requests that give a tenant something to keep, by the service under check."""

VIEW: Final[Mapping[str, Callable[[Owned], tuple[Message, ...]]]] = {
    "devices": lambda own: (
        d.ListDevicesRequest(),
        d.CountDevicesRequest(),
        d.GetDeviceRequest(device_id=own.device),
        d.GetTelemetryRequest(device_id=own.device),
    ),
    "users": lambda own: (
        u.ListUsersRequest(),
        u.GetUserRequest(user_id=own.user),
        u.LookupUserRequest(email=own.email),
        s.ListSessionsRequest(user_id=own.user),
    ),
    "sessions": lambda own: (
        s.ListSessionsRequest(user_id=own.user),
        s.GetSessionRequest(session_id=own.session_id),
        s.AuthenticateSessionRequest(token=own.token),
    ),
    "audit": lambda own: (
        a.ListEntriesRequest(resource_type="device"),
        a.GetEntryRequest(entry_id=own.entry_id),
        a.ExportEntriesRequest(tree_size=_LOGGED),
    ),
    "events": lambda own: (e.ListEventsRequest(), e.SubscribeEventsRequest(cursor=own.cursor)),
}
"""What a tenant sees of what it keeps."""

HAPPENS: Final[Mapping[str, Callable[[Owned], Message]]] = {
    "EventService.SubscribeEvents": lambda own: e.PublishEventsRequest(events=[_event(own, "live")]),
}
"""For each stream that does not end: a request whose effect it shows."""
