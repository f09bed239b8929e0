"""What callers do all the while: devices with one owner each, who alone knows what was written; sessions that are made,
used and revoked; followers of events; and many who read."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from random import Random
from typing import Any, Final, TypeAlias

import httpx
from google.protobuf.field_mask_pb2 import FieldMask

from bas.devices.v2.devices_pb2 import Device
from bas.devices.v2.devices_service_pb2 import (
    CreateDeviceRequest,
    GetDeviceRequest,
    ListDevicesRequest,
    UpdateDeviceRequest,
)
from bas.sessions.v2.sessions_pb2 import Session
from bas.sessions.v2.sessions_service_pb2 import AuthenticateSessionRequest, CreateSessionRequest, RevokeSessionRequest
from tests.chaos.checks import mark
from tests.chaos.clients import Clients, Failed
from tests.chaos.history import Follower, History, Read, Told, Write
from tests.chaos.world import GATEWAY, World
from tests.integration.sessions.history import Revoke, Use
from tests.support.sse import Dispatched, Parser

_REPORT: Final = 20.0
"""Seconds without a byte after which a follower comes again: the platform's heartbeats are closer."""


Step: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class Load:
    """Each caller waits for up to `pause` seconds between two calls."""

    def __init__(
        self, world: World, clients: Clients, history: History, random: Random, *, pause: float = 0.05
    ) -> None:
        self._world = world
        self._clients = clients
        self._history = history
        self._random = random
        self._pause = pause
        self._stop = asyncio.Event()
        self._ticks = itertools.count(1)
        self._made: dict[tuple[str, str], int] = {}
        self._known: list[tuple[str, str, str]] = []
        self._replicas = {name: world.replicas(name) for name in ("devices", "sessions")}

    async def run(self, tenants: int, devices: int, readers: int, first: Step, then: Step) -> None:
        """All of them, until `first()` has returned; then only those who follow events, until `then()` has."""
        names = [f"t{number}" for number in range(tenants)]
        for name in names:
            self._clients.token(name)
        callers: list[Coroutine[Any, Any, None]] = []
        for name in names:
            callers += [self._own(name, f"d{number}") for number in range(devices)]
            callers += [self._own_sessions(name), self._use_sessions(name)]
        callers += [self._read(names, devices) for _ in range(readers)]
        followers = [asyncio.create_task(self._follow(name)) for name in names[:2]]
        running = [asyncio.create_task(each) for each in callers]
        try:
            await first()
            self._stop.set()
            await asyncio.gather(*running)
            await then()
        finally:
            for task in (*running, *followers):
                task.cancel()
            await asyncio.gather(*running, *followers, return_exceptions=True)

    async def settle(self, names: list[str], within: float) -> None:
        """Read the log until all that was acknowledged is in it, and followers have come to its end; or give up."""
        end = time.monotonic() + within
        while True:
            logs = {name: await self._whole_log(name) for name in names}
            for name, log in logs.items():
                if log is not None:
                    self._history.log[name] = log
            if all(log is not None for log in logs.values()) and not self._missing() and self._followed():
                return
            if time.monotonic() > end:
                return
            await asyncio.sleep(0.5)

    def _missing(self) -> bool:
        there = {(name, told.device, told.n) for name, log in self._history.log.items() for told in log}
        return any(
            (write.tenant, write.device, write.n) not in there
            for write in self._history.writes
            if write.acknowledged is not None or write.confirmed is not None
        )

    def _followed(self) -> bool:
        return all(
            follower.gaps or not log or (follower.heard and follower.heard[-1].id == log[-1].id)
            for follower in self._history.followers
            if (log := self._history.log.get(follower.tenant)) is not None
        )

    # Devices.

    async def _own(self, tenant: str, device: str) -> None:
        etag = await self._created(tenant, device)
        while not self._stop.is_set():
            await self._rest_a_while()
            if not etag:
                etag = await self._current(tenant, device)
            else:
                etag = await self._write(tenant, device, etag)
        if not etag:
            # What is not known of the last write is found out, so that its event is waited for.
            for _ in range(20):
                if await self._current(tenant, device):
                    break
                await asyncio.sleep(0.2)

    async def _created(self, tenant: str, device: str) -> str:
        write = self._begun(tenant, device, "")
        request = CreateDeviceRequest(device=_device(tenant, device, write.n), request_id=f"make-{tenant}-{device}")
        while not self._stop.is_set():
            write.where = self._random.choice(self._replicas["devices"])
            try:
                made = await self._clients.grpc(write.where, tenant, "CreateDevice", request)
            except Failed:
                await self._rest_a_while()
            else:
                write.acknowledged = time.monotonic()
                return str(made.etag)
        return ""

    async def _write(self, tenant: str, device: str, etag: str) -> str:
        """The etag that follows, or nothing where it is not known what became of it."""
        by_rest = self._random.random() < 0.5
        where = GATEWAY if by_rest else self._random.choice(self._replicas["devices"])
        write = self._begun(tenant, device, self._replicas["devices"][0] if by_rest else where)
        shown = _device(tenant, device, write.n, etag)
        try:
            if by_rest:
                body = {"metadata": dict(shown.metadata), "etag": etag}
                path = f"/api/v2/devices/{device}?updateMask=metadata"
                following = (await self._clients.rest(tenant, "PATCH", path, body))["etag"]
            else:
                request = UpdateDeviceRequest(device=shown, update_mask=FieldMask(paths=["metadata"]))
                following = (await self._clients.grpc(where, tenant, "UpdateDevice", request)).etag
        except Failed:
            return ""
        write.acknowledged = time.monotonic()
        return str(following)

    def _begun(self, tenant: str, device: str, where: str) -> Write:
        n = self._made[tenant, device] = self._made.get((tenant, device), 0) + 1
        write = Write(tenant, device, n, where, time.monotonic())
        self._history.writes.append(write)
        return write

    async def _current(self, tenant: str, device: str) -> str:
        """Look what there is: what was written last may be it."""
        try:
            n, etag = await self._get(tenant, device)
        except Failed:
            return ""
        for write in reversed(self._history.writes):
            if (write.tenant, write.device, write.n) == (tenant, device, n):
                if write.acknowledged is None and write.confirmed is None:
                    write.confirmed = time.monotonic()
                break
        return etag

    async def _get(self, tenant: str, device: str) -> tuple[int, str]:
        began = time.monotonic()
        by_rest = self._random.random() < 0.4
        where = GATEWAY if by_rest else self._random.choice(self._replicas["devices"])
        if by_rest:
            shown = await self._clients.rest(tenant, "GET", f"/api/v2/devices/{device}")
            metadata, etag = shown.get("metadata", {}), shown.get("etag", "")
        else:
            found = await self._clients.grpc(where, tenant, "GetDevice", GetDeviceRequest(device_id=device))
            metadata, etag = dict(found.metadata), found.etag
        n = self._shown(tenant, device, metadata, where, began)
        return n, etag

    def _shown(self, tenant: str, device: str, metadata: dict[str, str], where: str, began: float) -> int:
        n = int(metadata.get("n", -1))
        marked = metadata.get("mark", "")
        self._history.reads.append(Read(tenant, device, n, marked, where, began, time.monotonic()))
        return n

    async def _read(self, tenants: list[str], devices: int) -> None:
        while not self._stop.is_set():
            await asyncio.sleep(self._random.uniform(0, self._pause))
            tenant = self._random.choice(tenants)
            with suppress(Failed):
                if self._random.random() < 0.15:
                    await self._list(tenant)
                else:
                    await self._get(tenant, f"d{self._random.randrange(devices)}")

    async def _list(self, tenant: str) -> None:
        began = time.monotonic()
        if self._random.random() < 0.5:
            shown = (await self._clients.rest(tenant, "GET", "/api/v2/devices?pageSize=50")).get("devices", [])
            found = [(each["deviceId"], each.get("metadata", {})) for each in shown]
            where = GATEWAY
        else:
            where = self._random.choice(self._replicas["devices"])
            page = await self._clients.grpc(where, tenant, "ListDevices", ListDevicesRequest(page_size=50))
            found = [(each.device_id, dict(each.metadata)) for each in page.devices]
        for device, metadata in found:
            self._shown(tenant, device, metadata, where, began)

    async def flood(self, tenant: str, callers: int, seconds: float) -> None:
        """As fast as it is answered; refusals too."""
        end = time.monotonic() + seconds

        async def one() -> None:
            while time.monotonic() < end and not self._stop.is_set():
                with suppress(Failed):
                    await self._clients.rest(tenant, "GET", "/api/v2/devices/none")
                await asyncio.sleep(0)

        await asyncio.gather(*(one() for _ in range(callers)))

    # Sessions: moments are numbers of one counter, as its history wants them.

    async def _own_sessions(self, tenant: str) -> None:
        for number in itertools.count():
            if self._stop.is_set():
                return
            await self._rest_a_while()
            session = Session(user_id=f"u-{mark(tenant)}")
            request = CreateSessionRequest(session=session, request_id=f"s-{tenant}-{number}")
            with suppress(Failed):
                made = await self._clients.grpc(self._a("sessions"), tenant, "CreateSession", request)
                known = (tenant, made.session.session_id, made.token)
                self._known.append(known)
                await asyncio.sleep(self._random.uniform(0.1, 1.0))
                await self._revoke(tenant, known[1])
                # It goes on being used for a while: what is over must stay over.
                self._known[:] = [each for each in self._known if each[0] != tenant or each in self._known[-8:]]

    async def _revoke(self, tenant: str, session_id: str) -> None:
        while True:
            record = Revoke(session_id, next(self._ticks), None)
            self._history.sessions.revokes.append(record)
            try:
                if self._random.random() < 0.5:
                    await self._clients.rest(tenant, "DELETE", f"/api/v2/sessions/{session_id}")
                else:
                    request = RevokeSessionRequest(session_id=session_id)
                    await self._clients.grpc(self._a("sessions"), tenant, "RevokeSession", request)
            except Failed:
                if self._stop.is_set():
                    return
                await self._rest_a_while()
            else:
                record.acknowledged = next(self._ticks)
                return

    async def _use_sessions(self, tenant: str) -> None:
        while not self._stop.is_set():
            await self._rest_a_while()
            known = [each for each in self._known if each[0] == tenant]
            if not known:
                continue
            _, session_id, token = self._random.choice(known)
            began = next(self._ticks)
            request = AuthenticateSessionRequest(token=token)
            try:
                answer = await self._clients.grpc(self._a("sessions"), tenant, "AuthenticateSession", request)
                live = True
                if answer.tenant != tenant or answer.session.user_id != f"u-{mark(tenant)}":
                    self._history.foreign.append(f"{tenant} was shown the session {answer.session.session_id}")
            except Failed as failure:
                if failure.code != "UNAUTHENTICATED":
                    continue
                live = False
            self._history.sessions.uses.append(Use(session_id, token, began, next(self._ticks), live))

    # Events.

    async def _follow(self, tenant: str) -> None:
        follower = Follower(tenant)
        self._history.followers.append(follower)
        position = ""
        async with httpx.AsyncClient(base_url=self._world.gateway, timeout=httpx.Timeout(10, read=_REPORT)) as client:
            while True:
                headers = {"authorization": f"Bearer {self._clients.token(tenant)}", "accept": "text/event-stream"}
                if position:
                    headers["last-event-id"] = position
                parser = Parser(last_event_id=position)
                with suppress(httpx.HTTPError):
                    path = "/api/v2/events/stream?source=/bas/devices"
                    async with client.stream("GET", path, headers=headers) as answer:
                        if answer.status_code == 200:
                            follower.connections += 1
                            async for chunk in answer.aiter_raw():
                                for event in parser.feed(chunk):
                                    self._heard(follower, event)
                                position = parser.last_event_id or position
                position = parser.last_event_id or position
                await asyncio.sleep(self._random.uniform(0.1, 0.5))

    def _heard(self, follower: Follower, event: Dispatched) -> None:
        content = json.loads(event.data)
        if "specversion" not in content:
            if event.name == "gap":
                follower.gaps.append(content.get("reason", ""))
            return
        follower.heard.append(_told(follower.tenant, content, event.last_event_id))

    async def _whole_log(self, tenant: str) -> list[Told] | None:
        """All of it, or None where it cannot be read now."""
        found: list[Told] = []
        cursor = ""
        while True:
            path = "/api/v2/events?source=/bas/devices&pageSize=1000" + (f"&cursor={cursor}" if cursor else "")
            try:
                page = await self._clients.rest(tenant, "GET", path, timeout=30.0)
            except Failed:
                return None
            found += [_told(tenant, each["event"], each["cursor"]) for each in page.get("events", [])]
            cursor = page["nextCursor"]
            if page.get("caughtUp"):
                return found

    def _a(self, service: str) -> str:
        return self._random.choice(self._replicas[service])

    async def _rest_a_while(self) -> None:
        await asyncio.sleep(self._random.uniform(0.2, 1.0) * self._pause)


def _device(tenant: str, device: str, n: int, etag: str = "") -> Device:
    return Device(device_id=device, metadata={"n": str(n), "mark": mark(tenant)}, etag=etag)


def _told(tenant: str, event: dict[str, Any], cursor: str) -> Told:
    shown = event.get("data", {}).get("device", {})
    metadata = shown.get("metadata", {})
    device = event["subject"].removeprefix("devices/")
    return Told(tenant, event["id"], device, int(metadata.get("n", -1)), metadata.get("mark", ""), cursor)
