"""The devices of all tenants: documents, what is cached of them, and what a change invalidates.

Every change of a device goes through `_commit`, which knows it before and after: the commit, with the events of the
change in it (`effects.py`), then the invalidations, then the answer. Cached: `dev:{<tenant>/<device>}` (the serialized
Device, etag included), and the tenant's groups `dev:list:{<tenant>}` and `dev:count:{<tenant>}` (see `listing.py`).
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Final, TypeAlias

from bas.devices.v2.devices_pb2 import DEVICE_STATUS_OFFLINE, DEVICE_STATUS_ONLINE, Device, DeviceStatus
from chassis.api.ids import etag_matches, etag_of
from chassis.cache.port import Loaded, ReadThrough
from chassis.cache.readthrough import GroupReadThrough
from chassis.cache.together import together
from chassis.clock import Clock
from chassis.errors import ApiError, already_exists, etag_mismatch, not_found
from chassis.outbox.announcements import Announcements, Happening
from chassis.store.landing import Landings
from chassis.store.port import (
    Committed,
    Create,
    Delete,
    DocumentExists,
    DocumentMissing,
    DocumentStore,
    Filter,
    Op,
    Order,
    PreconditionFailed,
    Query,
    Update,
    VersionConflict,
    Write,
)
from services.devices import device as rules
from services.devices import effects
from services.devices.filters import COLLECTION
from services.devices.records import Stored, document_key, fields_of, stored
from services.devices.tenants import Tenants

ATTEMPTS: Final = 10
"""How often a change without etag is decided anew when others were faster."""

Decide: TypeAlias = Callable[[Stored], Stored | None]
"""From a device as it is to what it shall be; None: leave it. May raise ApiError. Called again after a conflict."""


class DeviceExists(ApiError):
    """DEVICE_ALREADY_EXISTS, of which device."""

    def __init__(self, device_id: str) -> None:
        told = already_exists("device", device_id)
        super().__init__(told.code, told.reason, told.message)
        self.device_id = device_id


class DeviceStore:
    def __init__(
        self,
        documents: DocumentStore,
        cached: ReadThrough,
        groups: Sequence[GroupReadThrough],
        landings: Landings,
        announcements: Announcements,
        clock: Clock,
    ) -> None:
        self._documents = documents
        self._landings = landings
        self._announcements = announcements
        self._cached = cached
        self._groups = groups
        self._clock = clock
        self._tenants = Tenants(documents)

    async def get(self, tenant: str, device_id: str) -> bytes:
        """The serialized device, up to the device TTL old where an invalidation could not be delivered. Raises
        DEVICE_NOT_FOUND."""

        async def load() -> Loaded | None:
            found = await self.read(tenant, device_id)
            return None if found is None else Loaded(found.device.SerializeToString(), found.version)

        data = await self._cached.get(f"{tenant}/{device_id}", load)
        if data is None:
            raise not_found("device", device_id)
        return data

    async def read(self, tenant: str, device_id: str) -> Stored | None:
        """The device as the store has it now."""
        document = await self._documents.get(document_key(tenant, device_id))
        return None if document is None else stored(document)

    async def create_all(self, tenant: str, devices: Sequence[Device], more: Sequence[Write] = ()) -> list[Device]:
        """All or none, in one commit with `more`; the devices as stored. Raises DEVICE_ALREADY_EXISTS for the first
        that does."""
        writes: list[Write] = [
            Create(document_key(tenant, device.device_id), fields_of(Stored(tenant, device, ""))) for device in devices
        ]
        device_ids = [device.device_id for device in devices]
        created = [effects.created(tenant, device) for device in devices]
        try:
            async with self._tenants.entering(tenant) as registration:
                committed = await self._written(tenant, device_ids, [*writes, *registration, *more], created)
        except DocumentExists as exists:
            if exists.key.collection != COLLECTION:
                raise
            raise DeviceExists(exists.key.id) from None
        return [_versioned(device, version) for device, version in zip(devices, committed.versions, strict=False)]

    async def existing(self, tenant: str, device_ids: Sequence[str]) -> set[str]:
        """Those of the ids that are taken."""
        found = await self._documents.get_many([document_key(tenant, device_id) for device_id in device_ids])
        return {document.key.id for document in found if document is not None}

    async def change(self, tenant: str, device_id: str, decide: Decide, *, etag: str = "") -> Stored:
        """Read, decide, commit at the version that was read; all over again when somebody was faster.

        Raises DEVICE_NOT_FOUND, ETAG_MISMATCH when `etag` is given and not the current one, VersionConflict when
        others were faster every time.
        """
        lost: PreconditionFailed | None = None
        for _ in range(ATTEMPTS):
            before = await self.read(tenant, device_id)
            if before is None:
                raise not_found("device", device_id)
            if not etag_matches(etag, before.version):
                raise etag_mismatch("device", device_id)
            after = decide(before)
            if after is None:
                return before
            try:
                return await self._commit(before, after)
            except (VersionConflict, DocumentMissing) as conflict:
                lost = conflict
        raise lost or VersionConflict(document_key(tenant, device_id))

    async def delete(self, tenant: str, device_id: str, *, etag: str = "") -> None:
        """Raises DEVICE_NOT_FOUND, ETAG_MISMATCH."""
        key = document_key(tenant, device_id)
        version = None
        if etag:
            found = await self.read(tenant, device_id)
            if found is None:
                raise not_found("device", device_id)
            if not etag_matches(etag, found.version):
                raise etag_mismatch("device", device_id)
            version = found.version
        try:
            deleted = effects.deleted(tenant, device_id)
            await self._written(tenant, [device_id], [Delete(key, version=version, must_exist=True)], [deleted])
        except DocumentMissing:
            raise not_found("device", device_id) from None
        except VersionConflict:
            if await self.read(tenant, device_id) is None:
                raise not_found("device", device_id) from None
            raise etag_mismatch("device", device_id) from None

    async def turn_offline(self, before: Stored) -> bool | None:
        """Turn a silent device offline unless it changed since it was read. True when it turned; False when it was not
        online to begin with; None when it has changed."""
        if before.device.status not in rules.BY_LAPSE:
            return False
        after = before.copy()
        rules.turn(after.device, DEVICE_STATUS_OFFLINE, "", self._clock.now())
        try:
            await self._commit(before, after)
        except (VersionConflict, DocumentMissing):
            return None
        return True

    def tenants(self) -> AsyncIterator[str]:
        """Every tenant that ever registered a device."""
        return self._tenants.all()

    async def online_unseen_since(self, tenant: str, before: datetime, limit: int) -> list[str]:
        """Ids of devices that are ONLINE in the store and were last written as seen before then, oldest first."""
        filters = (
            Filter("status", Op.EQ, DeviceStatus.Name(DEVICE_STATUS_ONLINE)),
            Filter("last_seen_time", Op.LT, before),
        )
        query = Query(tenant, COLLECTION, filters, (Order("last_seen_time"),), limit=limit)
        return [document.key.id for document in await self._documents.query(query)]

    async def _commit(self, before: Stored, after: Stored) -> Stored:
        """The one place where an existing device changes; versions decide between two who try."""
        device = after.device
        key = document_key(after.tenant, device.device_id)
        listed = not rules.same_but_for_last_seen(before.device, device)
        write = Update(key, fields_of(after), version=before.version)
        changed = effects.changed(after.tenant, before.device, device) if listed else ()
        committed = await self._written(after.tenant, [device.device_id], [write], changed, listed=listed)
        version = committed.versions[0]
        return Stored(after.tenant, _versioned(device, version), version, after.run)

    async def _written(
        self,
        tenant: str,
        device_ids: Sequence[str],
        writes: Sequence[Write],
        happenings: Iterable[Happening],
        *,
        listed: bool = True,
    ) -> Committed:
        """Commit with what is told of it, then deliver and invalidate: also when the caller has left, or it is not known
        whether the commit was applied."""
        told = self._announcements.writes(happenings)
        landed = partial(self._landed, tenant, device_ids, told=bool(told), listed=listed)
        return await self._landings.commit(self._documents, [*writes, *told], landed)

    async def _landed(self, tenant: str, device_ids: Sequence[str], *, told: bool, listed: bool) -> None:
        if told:
            self._announcements.wake()
        keys = (f"{tenant}/{device_id}" for device_id in device_ids)
        groups = self._groups if listed else ()
        # Together: they share a round trip, and the caller waits for it.
        await together([self._cached.invalidate(*keys), *(group.invalidate(tenant) for group in groups)])


def _versioned(device: Device, version: str) -> Device:
    device.etag = etag_of(version)
    return device
