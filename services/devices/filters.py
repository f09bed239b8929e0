"""By what devices are filtered and ordered, and the indexes that this needs."""

from dataclasses import replace
from typing import Final

from bas.devices.v2.devices_pb2 import DeviceStatus
from chassis.api import filter_spec
from chassis.api.filter_spec import Compiled, FilterSpec
from chassis.api.ordering import OrderSpec
from chassis.errors import invalid_field
from chassis.store import requests
from chassis.store.port import Filter, Index, Op, Order, Schema

COLLECTION: Final = "devices"

LABEL_TERMS: Final = "label_terms"
"""The stored array that searches by label look into."""

_TIMES: Final = ("create_time", "update_time")

FILTERS: Final = FilterSpec(
    {
        "status": filter_spec.enum("status", DeviceStatus.DESCRIPTOR, by_name=True),
        "type": filter_spec.text("type"),
        "labels": filter_spec.labels(LABEL_TERMS),
        **{time: filter_spec.timestamp(time) for time in _TIMES},
    }
)

ORDERS: Final = OrderSpec.of(
    {name: name for name in ("create_time", "update_time", "display_name", "device_id")},
    "create_time desc",
    tie="device_id",
)

_LISTED: Final = tuple(dict.fromkeys(ORDERS.orders.values()))


def _by(*fields: str, contains: frozenset[str] = frozenset()) -> tuple[Index, ...]:
    orders = _LISTED if not fields else ((), *_LISTED)  # without an order: for counts
    return tuple(Index(COLLECTION, fields, order, contains) for order in orders)


SCHEMA: Final = Schema(
    indexes=(
        *_by(),
        *_by("status"),
        *_by("type"),
        *_by(LABEL_TERMS, contains=frozenset({LABEL_TERMS})),
        Index(COLLECTION, ("status",), (Order("last_seen_time"),)),
    ),
    ttl_fields=requests.TTL_FIELDS,
)


def compile_filter(written: str) -> Compiled:
    """The filter of a list or count. Raises INVALID_ARGUMENT.

    A time that must be equal is asked for as a range: no index leads with a time.
    """
    compiled = FILTERS.compile(written)
    filters: list[Filter] = []
    ranged = compiled.ranged
    for each in compiled.filters:
        if each.field in _TIMES and each.op is Op.EQ:
            filters += [replace(each, op=Op.GE), replace(each, op=Op.LE)]
            if ranged not in ("", each.field):
                raise invalid_field("filter", "only one of create_time and update_time can be compared")
            ranged = each.field
        else:
            filters.append(each)
    return replace(compiled, filters=tuple(filters), ranged=ranged)
