"""Pages and counts of a tenant's devices, cached as groups: one change of any device makes all of a tenant's pages and
counts unreadable at once (`dev:list:{<tenant>}`, `dev:count:{<tenant>}`)."""

from collections.abc import Sequence
from typing import Final

from bas.devices.v2.devices_pb2 import Device, DeviceStatus
from bas.devices.v2.devices_service_pb2 import CountDevicesResponse, ListDevicesRequest, ListDevicesResponse
from chassis.api import paging
from chassis.api.paging import PageTokens
from chassis.cache.port import Loaded
from chassis.cache.readthrough import GroupReadThrough
from chassis.cache.together import together
from chassis.clock import Clock
from chassis.store import pages
from chassis.store.port import Document, DocumentStore, Filter, Op, Query
from services.devices import device as rules
from services.devices.filters import COLLECTION, EVER, compile_filter, order_of
from services.devices.records import stored

_METHOD: Final = "bas.devices.v2.DeviceService/ListDevices"

CACHED_BYTES: Final = 256 * 1024
"""A larger page is not kept: it would hold up the cache for everybody else."""


class DeviceLists:
    def __init__(
        self,
        documents: DocumentStore,
        lists: GroupReadThrough,
        counts: GroupReadThrough,
        tokens: PageTokens,
        clock: Clock,
    ) -> None:
        self._documents = documents
        self._lists = lists
        self._counts = counts
        self._tokens = tokens
        self._clock = clock

    async def page(self, tenant: str, request: ListDevicesRequest) -> bytes:
        """A serialized ListDevicesResponse; the first page may be as old as the list TTL where an invalidation could
        not be delivered. Raises INVALID_ARGUMENT on page_size, filter, order_by, page_token."""
        size = paging.page_size(request.page_size)
        compiled = compile_filter(request.filter)
        order = order_of(request.order_by, compiled)
        shape = (compiled.canonical, *(f"{by.field} {by.descending}" for by in order))
        listing = paging.Listing(tenant, _METHOD, shape)
        after = self._tokens.read(listing, request.page_token)
        if compiled.nothing:
            return b""

        async def load() -> Loaded:
            query = Query(tenant, COLLECTION, compiled.filters, order, after)
            page = await pages.fetch(self._documents, query, size, _read)
            response = ListDevicesResponse(devices=page.items)
            if page.last is not None:
                response.next_page_token = self._tokens.issue(listing, page.last)
            data = response.SerializeToString()
            return Loaded(data, "", max_ttl=0 if len(data) > CACHED_BYTES else None)

        if after is not None:
            return (await load()).data
        return await self._lists.get(tenant, "\n".join((str(size), *shape)), load) or b""

    async def count(self, tenant: str, written: str) -> bytes:
        """A serialized CountDevicesResponse, exact when it was counted. Raises INVALID_ARGUMENT on filter."""
        compiled = compile_filter(written)

        async def load() -> Loaded:
            response = CountDevicesResponse(counts={DeviceStatus.Name(status): 0 for status in rules.STATUSES})
            response.as_of.FromDatetime(self._clock.now())
            asked = [] if compiled.nothing else _statuses(compiled.filters)
            others = (*(each for each in compiled.filters if each.field != "status"), EVER)
            queries = (
                Query(tenant, COLLECTION, (Filter("status", Op.EQ, DeviceStatus.Name(status)), *others))
                for status in asked
            )
            figures = await together(self._documents.count(query) for query in queries)
            for status, figure in zip(asked, figures, strict=True):
                response.counts[DeviceStatus.Name(status)] = figure
            response.total = sum(figures)
            return Loaded(response.SerializeToString(), "")

        return await self._counts.get(tenant, compiled.canonical, load) or b""


def _read(document: Document) -> tuple[Device, int]:
    device = stored(document).device
    return device, device.ByteSize()


def _statuses(filters: Sequence[Filter]) -> list[DeviceStatus.ValueType]:
    """The statuses that the filter leaves open."""
    left = list(rules.STATUSES)
    for each in filters:
        if each.field == "status":
            wanted = each.value if each.op is Op.IN and isinstance(each.value, Sequence) else (each.value,)
            left = [status for status in left if DeviceStatus.Name(status) in wanted]
    return left
