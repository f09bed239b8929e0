"""`order_by` of lists (AIP-132): `create_time desc`, against the orders that a service has indexes for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from chassis.errors import ApiError, invalid_field
from chassis.store.port import Order


@dataclass(frozen=True, slots=True)
class OrderSpec:
    """The orders that a list can have: canonical text (`create_time desc, device_id`) → the store's order. `default` is
    one of the texts. The store settles ties by document id, in the direction of the last order; no order at all is
    by id, upwards."""

    orders: Mapping[str, tuple[Order, ...]]
    default: str

    @classmethod
    def of(cls, fields: Mapping[str, str], default: str, *, tie: str = "") -> "OrderSpec":
        """Each field (API name → stored name), both ways; and, spelled out, with the id field `tie` behind it."""
        orders: dict[str, tuple[Order, ...]] = {}
        for name, stored in fields.items():
            for suffix in ("", " desc"):
                orders[name + suffix] = (Order(stored, bool(suffix)),)
                if tie and name != tie:
                    orders[f"{name}{suffix}, {tie}{suffix}"] = orders[name + suffix]
        return cls(orders, default)

    def parse(self, written: str, *, ranged: str = "") -> tuple[Order, ...]:
        """The store's order of `written`, the default for blank text.

        `ranged` is the stored field that the filter compares with < <= > >= (`Compiled.ranged`): the order must begin
        with it, and the default gives way to it. Raises INVALID_ARGUMENT on `order_by`.
        """
        if not written.strip():
            chosen = self.orders[self.default]
            return chosen if not ranged or chosen[0].field == ranged else self._by(ranged, like=chosen[0])
        order = self.orders.get(_canonical(written))
        if order is None:
            raise self._unknown(_canonical(written))
        if ranged and (not order or order[0].field != ranged):
            accepted = "; ".join(self.texts(self._beginning_with(ranged))) or "none"
            raise invalid_field(
                "order_by",
                f"a filter that compares with < <= > >= orders by the field that it compares; accepted: {accepted}",
            )
        return order

    def _by(self, stored: str, *, like: Order) -> tuple[Order, ...]:
        return (Order(stored, like.descending),)

    def _beginning_with(self, stored: str) -> Iterable[tuple[Order, ...]]:
        return (order for order in self.orders.values() if len(order) == 1 and order[0].field == stored)

    def texts(self, wanted: Iterable[tuple[Order, ...]]) -> list[str]:
        """How those orders are written: each in its first, shortest spelling."""
        accepted = set(wanted)
        shortest: dict[tuple[Order, ...], str] = {}
        for text, order in self.orders.items():
            shortest.setdefault(order, text)
        return [text for order, text in shortest.items() if order in accepted]

    def _unknown(self, text: str) -> ApiError:
        near = get_close_matches(text[:128], self.orders, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        accepted = "; ".join(self.texts(self.orders.values()))
        return invalid_field("order_by", f"{text[:128]!r} is not an order of this list{hint}; accepted: {accepted}")


def _canonical(written: str) -> str:
    """One space between words, none before a comma, and `asc` left out, as it is what nothing means."""
    terms = []
    for term in written.split(","):
        words = term.split()
        if len(words) == 2 and words[1].lower() in ("asc", "desc"):  # noqa: PLR2004 - a field and its direction
            words = [words[0], "desc"] if words[1].lower() == "desc" else words[:1]
        terms.append(" ".join(words))
    return ", ".join(terms)
