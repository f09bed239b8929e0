# ruff: noqa: N802 - methods are named as their RPCs are
"""EventService: one method an RPC. Scopes, deadlines and field rules are checked before a method runs."""

from collections.abc import AsyncGenerator

from bas.events.v2.events_service_pb2 import (
    SLOW_CONSUMER_POLICY_CONFLATE,
    ListEventsRequest,
    PublishEventsRequest,
    PublishEventsResponse,
    SubscribeEventsRequest,
)
from chassis.api.cursors import Cursors
from chassis.context import caller, tenant
from services.events.authorisation import check_sources
from services.events.fanout import Fanout
from services.events.filters import compile_filter
from services.events.listing import EventLists
from services.events.publishing import Publisher
from services.events.subscription import Wish


class EventServicer:
    def __init__(self, publisher: Publisher, lists: EventLists, fanout: Fanout, cursors: Cursors) -> None:
        self._publisher = publisher
        self._lists = lists
        self._fanout = fanout
        self._cursors = cursors

    async def PublishEvents(self, request: PublishEventsRequest) -> PublishEventsResponse:
        who = caller()
        check_sources(who, (event.source for event in request.events))
        return await self._publisher.publish(who.tenant, request)

    async def ListEvents(self, request: ListEventsRequest) -> bytes:
        return await self._lists.page(tenant(), request)

    def SubscribeEvents(self, request: SubscribeEventsRequest) -> AsyncGenerator[bytes, None]:
        who = caller()
        wish = Wish(
            filter=compile_filter(request.types, request.subject, request.source),
            position=self._cursors.read(who.tenant, request.cursor) if request.cursor else None,
            conflate=request.slow_consumer_policy == SLOW_CONSUMER_POLICY_CONFLATE,
        )
        return self._fanout.subscribe(who, wish)
