"""By what users are filtered and ordered, and the indexes that this needs.

Each index costs every write of a user. So a filter by name goes with the orders by creation and by change, and the
other orders with no filter, or with one by the time that they order by.
"""

import re
from dataclasses import replace
from typing import Final

from chassis.api import filter_spec
from chassis.api.filter_spec import Compiled, FilterSpec
from chassis.api.ordering import OrderSpec
from chassis.errors import ApiError, invalid_field
from chassis.store import requests
from chassis.store.port import Index, Op, Order, Schema

COLLECTION: Final = "users"

NAME: Final = "display_name"
CREATED: Final = "create_time"
CHANGED: Final = "update_time"
TIMES: Final = (CREATED, CHANGED)

FILTERS: Final = FilterSpec(
    {NAME: filter_spec.text(NAME), **{time: filter_spec.timestamp(time) for time in TIMES}},
)

ORDERS: Final = OrderSpec.of(
    {name: name for name in (CREATED, CHANGED, NAME, "user_id")}, f"{CREATED} desc", tie="user_id"
)

_ALL: Final = frozenset(ORDERS.orders.values())
_BY_TIME: Final = frozenset((Order(time, descending),) for time in TIMES for descending in (False, True))

SCHEMA: Final = Schema(
    indexes=(
        *(Index(COLLECTION, (), order) for order in sorted(_ALL, key=repr)),
        *(Index(COLLECTION, (NAME,), order) for order in sorted(_BY_TIME, key=repr)),
    ),
    ttl_fields=requests.TTL_FIELDS,
)

_POSITION: Final = re.compile(r"at position \d+")


def compile_filter(written: str) -> Compiled:
    """The filter of a list. Raises INVALID_ARGUMENT, which does not repeat what was written: that may be a name.

    A time that must be equal is asked for as a range: no index leads with a time.
    """
    try:
        compiled = FILTERS.compile(written)
    except ApiError as refused:
        raise _refused(refused.message) from None
    filters = []
    ranged = compiled.ranged
    for each in compiled.filters:
        if each.field in TIMES and each.op is Op.EQ:
            if ranged not in ("", each.field):
                raise _refused("")
            filters += [replace(each, op=Op.GE), replace(each, op=Op.LE)]
            ranged = each.field
        else:
            filters.append(each)
    return replace(compiled, filters=tuple(filters), ranged=ranged)


def order_of(written: str, compiled: Compiled) -> tuple[Order, ...]:
    """The order of a list under that filter. Raises INVALID_ARGUMENT, which tells the orders that go with it."""
    order = ORDERS.parse(written, ranged=compiled.ranged)
    if any(each.field == NAME for each in compiled.filters) and order not in _BY_TIME:
        accepted = "; ".join(ORDERS.texts(_BY_TIME))
        raise invalid_field("order_by", f"does not go with a filter by {NAME}; accepted then: {accepted}")
    return order


def _refused(message: str) -> ApiError:
    found = _POSITION.search(message)
    where = f"{found[0]}: " if found else ""
    return invalid_field(
        "filter",
        f"{where}accepted are {NAME} with = and !=, and one of {' and '.join(TIMES)} with = < <= > >=, joined with AND;"
        ' text with spaces in it goes in quotes, as in display_name = "…", and a time reads 2026-01-31T12:00:00Z',
    )
