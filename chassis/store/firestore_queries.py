"""Queries as Firestore takes them, and what is left to check on the documents that it answers.

Firestore's own limits are narrower than the port's in three places: one CONTAINS in a query, 30 combinations of all INs,
and NE only on the first ordered field. What does not fit is checked here (`residual`), on more documents read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from google.cloud.firestore_v1.types import query as types

from chassis.store.encoding import encode, incomparable
from chassis.store.filters import matches
from chassis.store.firestore_names import encode_field, encode_id, field_path
from chassis.store.firestore_values import write_value
from chassis.store.planner import MAX_IN, RANGES, Planner, choices
from chassis.store.port import Filter, Op, Order, Query, UndeclaredQuery

_Structured: Final[Any] = types.StructuredQuery.pb()
_NAME: Final = "__name__"
_UP, _DOWN = 1, 2
_FIELD: Final = types.StructuredQuery.FieldFilter.Operator
_UNARY: Final = types.StructuredQuery.UnaryFilter.Operator
_OPS: Final = {
    Op.EQ: int(_FIELD.EQUAL),
    Op.NE: int(_FIELD.NOT_EQUAL),
    Op.LT: int(_FIELD.LESS_THAN),
    Op.LE: int(_FIELD.LESS_THAN_OR_EQUAL),
    Op.GT: int(_FIELD.GREATER_THAN),
    Op.GE: int(_FIELD.GREATER_THAN_OR_EQUAL),
    Op.IN: int(_FIELD.IN),
    Op.CONTAINS: int(_FIELD.ARRAY_CONTAINS),
}
_ALL: Final = 1  # CompositeFilter.Operator.AND


@dataclass(frozen=True, slots=True)
class Asked:
    """`structured` is what to send (a StructuredQuery), without limit, ordered by `order` and the name; `residual` is to
    be checked on each document."""

    structured: Any
    residual: tuple[Filter, ...]
    order: tuple[Order, ...]


def page(query: Query, collection: str, parent: str) -> Asked | None:
    """The query to send to `parent`, the tenant's name; None when nothing can match. The query has been admitted."""
    split = _split(query.filters)
    if split is None:
        return None
    sent, residual = split
    structured = _structured(collection, sent, query.order)
    if query.after is not None:
        for value in query.after[:-1]:
            write_value(structured.start_at.values.add(), value)
        structured.start_at.values.add(reference_value=f"{parent}/{collection}/{encode_id(str(query.after[-1]))}")
    return Asked(structured, residual, query.order)


def count(query: Query, collection: str, planner: Planner) -> Asked | None:
    """As `page`, for a count. With a residual, the documents that are found have to be read: only the fields that the
    residual looks at are asked for."""
    ranged = next((item.field for item in query.filters if item.op in RANGES), None)
    if len(query.filters) == 1 and query.filters[0].op is Op.NE and not incomparable(query.filters[0].value):
        return Asked(_structured(collection, query.filters, None), (), ())
    split = _split(query.filters)
    if split is None:
        return None
    sent, residual = split
    if ranged is None:
        asked = Asked(_structured(collection, sent, () if residual else None), residual, ())
    else:
        order, undirected = _direction(query, ranged, sent, planner)
        kept = tuple(item for item in sent if item not in undirected)
        asked = Asked(_structured(collection, kept, order), residual + undirected, order)
    if asked.residual:
        looked_at = [item.field for item in asked.residual] + ([] if ranged is None else [ranged])
        for name in dict.fromkeys(looked_at):
            asked.structured.select.fields.add(field_path=field_path(name))
    return asked


def advance(structured: Any, order: Sequence[Order], last: Any) -> None:
    """Let the query go on behind the document that it answered last."""
    structured.start_at.Clear()
    for by in order:
        structured.start_at.values.add().CopyFrom(last.fields[encode_field(by.field)])
    structured.start_at.values.add(reference_value=last.name)


def _direction(
    query: Query, ranged: str, sent: Sequence[Filter], planner: Planner
) -> tuple[tuple[Order, ...], tuple[Filter, ...]]:
    """The order whose indexes cover the query, and, when none covers all of it, the filters that neither needs."""
    for descending in (False, True):
        order = (Order(ranged, descending),)
        try:
            planner.page(replace(query, order=order, after=None, limit=1))
        except UndeclaredQuery:
            continue
        return order, ()
    return (Order(ranged),), tuple(item for item in sent if item.op not in RANGES)


def _structured(collection: str, filters: Sequence[Filter], order: Sequence[Order] | None) -> Any:
    """`order` None leaves the order to the server, as a count may."""
    structured = _Structured(from_=[{"collection_id": collection}])
    if len(filters) == 1:
        _fill(structured.where, filters[0])
    elif filters:
        structured.where.composite_filter.op = _ALL
        for item in filters:
            _fill(structured.where.composite_filter.filters.add(), item)
    if order is None:
        return structured
    for by in order:
        structured.order_by.add(field={"field_path": field_path(by.field)}, direction=_DOWN if by.descending else _UP)
    down = bool(order) and order[-1].descending
    structured.order_by.add(field={"field_path": _NAME}, direction=_DOWN if down else _UP)
    return structured


def _fill(target: Any, item: Filter) -> None:
    path = field_path(item.field)
    if item.op is Op.EQ and incomparable(item.value):
        target.unary_filter.field.field_path = path
        target.unary_filter.op = int(_UNARY.IS_NULL if item.value is None else _UNARY.IS_NAN)
        return
    compared = target.field_filter
    compared.field.field_path = path
    compared.op = _OPS[item.op]
    if item.op is Op.IN:
        for choice in choices(item):
            write_value(compared.value.array_value.values.add(), choice)
    else:
        write_value(compared.value, item.value)


def _split(filters: Sequence[Filter]) -> tuple[list[Filter], tuple[Filter, ...]] | None:
    """(what to send, what to check), or None when the filters contradict each other."""
    if any(incomparable(item.value) for item in filters if item.op in RANGES or item.op is Op.CONTAINS):
        return None
    sent = [item for item in filters if item.op in RANGES]
    residual: list[Filter] = []
    grouped: dict[str, list[Filter]] = {}
    for item in filters:
        if item.op not in RANGES:
            grouped.setdefault(item.field, []).append(item)
    listed: list[Filter] = []
    searched: list[Filter] = []
    for name, group in grouped.items():
        narrowed = _narrowed(name, group)
        if narrowed is None:
            searched += [item for item in group if item.op is Op.CONTAINS]
            residual += [item for item in group if item.op is Op.NE]
        elif not narrowed:
            return None
        elif len(narrowed) == 1:
            sent.append(Filter(name, Op.EQ, narrowed[0]))
        else:
            listed.append(Filter(name, Op.IN, narrowed))
    sent += searched[:1]
    residual += searched[1:]
    combinations = 1
    for item in sorted(listed, key=lambda item: len(choices(item))):
        combinations *= len(choices(item))
        (sent if combinations <= MAX_IN else residual).append(item)
    return sent, tuple(residual)


def _narrowed(name: str, group: Sequence[Filter]) -> list[Any] | None:
    """The values that the filters on one field leave, or None when they do not name values."""
    fixed = min((item for item in group if item.op in {Op.EQ, Op.IN}), key=lambda item: item.op is Op.IN, default=None)
    if fixed is None:
        return None
    named = [fixed.value] if fixed.op is Op.EQ else [value for value in choices(fixed) if not incomparable(value)]
    distinct = {encode(value): value for value in named}
    return [value for value in distinct.values() if all(matches(item, {name: value}) for item in group)]
