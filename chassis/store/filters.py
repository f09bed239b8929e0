"""Whether a document matches a filter, for the filters that the chosen index does not answer by itself."""

from chassis.store.encoding import elements, encode, incomparable
from chassis.store.planner import choices
from chassis.store.port import Fields, Filter, Op


def matches(item: Filter, fields: Fields) -> bool:
    """Comparisons other than ranges, which always are the index's: equal values are those with equal encodings."""
    if item.field not in fields:
        return False
    value = fields[item.field]
    if item.op is Op.EQ:
        return encode(value) == encode(item.value)
    if item.op is Op.NE:
        return value is not None and encode(value) != encode(item.value)
    if item.op is Op.CONTAINS:
        return not incomparable(item.value) and encode(item.value) in elements(value)
    return encode(value) in {encode(choice) for choice in choices(item) if not incomparable(choice)}
