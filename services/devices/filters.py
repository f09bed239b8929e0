"""By what devices are filtered and ordered, and the indexes that this needs.

Each index costs every write of a device, and one on labels as many entries as the device has label terms. So every
filter goes with the order by creation, and the other orders with a filter by status or with none.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from bas.devices.v2.devices_pb2 import DeviceStatus
from chassis.api import filter_spec
from chassis.api.filter_spec import Compiled, FilterSpec
from chassis.api.ordering import OrderSpec
from chassis.errors import invalid_field
from chassis.store import requests
from chassis.store.encoding import EPOCH
from chassis.store.port import Filter, Index, Op, Order, Schema

COLLECTION: Final = "devices"

LABEL_TERMS: Final = "label_terms"
"""The stored array that searches by label look into."""

CREATED: Final = "create_time"

FILTERS: Final = FilterSpec(
    {
        "status": filter_spec.enum("status", DeviceStatus.DESCRIPTOR, by_name=True),
        "type": filter_spec.text("type"),
        "labels": filter_spec.labels(LABEL_TERMS),
        CREATED: filter_spec.timestamp(CREATED),
    }
)

_TIMES_AND_NAMES: Final = OrderSpec.of(
    {name: name for name in (CREATED, "last_seen_time", "display_name")}, f"{CREATED} desc", tie="device_id"
)
ORDERS: Final = replace(_TIMES_AND_NAMES, orders={**_TIMES_AND_NAMES.orders, "device_id": ()})
"""By id is the order that the store has without being asked for one, and upwards only."""

_ALL: Final = frozenset(ORDERS.orders.values())
_BY_CREATION: Final = frozenset({(Order(CREATED),), (Order(CREATED, descending=True),)})
_GO_WITH: Final[Mapping[str, frozenset[tuple[Order, ...]]]] = MappingProxyType(
    {"status": _ALL, "type": _BY_CREATION, LABEL_TERMS: _BY_CREATION, CREATED: _BY_CREATION}
)
"""Filtered field → the orders that it can have."""


def _indexes(field: str) -> tuple[Index, ...]:
    array = frozenset({field}) & {LABEL_TERMS}
    return tuple(Index(COLLECTION, (field,), order, array) for order in sorted(_GO_WITH[field], key=repr))


SCHEMA: Final = Schema(
    indexes=(
        *(Index(COLLECTION, (), order) for order in sorted(_ALL, key=repr) if order),
        *_indexes("status"),
        *_indexes("type"),
        *_indexes(LABEL_TERMS),
    ),
    ttl_fields=requests.TTL_FIELDS,
)

EVER: Final = Filter(CREATED, Op.GE, EPOCH)
"""True of every device. It sends a count to the indexes by creation, so that none are kept for counts alone."""


def compile_filter(written: str) -> Compiled:
    """The filter of a list or count. Raises INVALID_ARGUMENT.

    A time that must be equal is asked for as a range: no index leads with a time.
    """
    compiled = FILTERS.compile(written)
    filters: list[Filter] = []
    ranged = compiled.ranged
    for each in compiled.filters:
        if each.field == CREATED and each.op is Op.EQ:
            filters += [replace(each, op=Op.GE), replace(each, op=Op.LE)]
            ranged = each.field
        else:
            filters.append(each)
    return replace(compiled, filters=tuple(filters), ranged=ranged)


def order_of(written: str, compiled: Compiled) -> tuple[Order, ...]:
    """The order of a list under that filter. Raises INVALID_ARGUMENT, which tells the orders that go with it."""
    order = ORDERS.parse(written, ranged=compiled.ranged)
    for each in compiled.filters:
        if order not in _GO_WITH[each.field]:
            named = "labels" if each.field == LABEL_TERMS else each.field
            accepted = "; ".join(ORDERS.texts(_GO_WITH[each.field]))
            raise invalid_field("order_by", f"does not go with a filter by {named}; accepted then: {accepted}")
    return order
