"""`order_by`: every spelling of a declared order, and nothing else."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.api.ordering import OrderSpec
from chassis.errors import ApiError, Code
from chassis.store.port import Order

SPEC = OrderSpec.of(
    {"create_time": "create_time", "display_name": "name", "device_id": "device_id"},
    default="create_time desc",
    tie="device_id",
)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("", Order("create_time", descending=True)),
        ("  ", Order("create_time", descending=True)),
        ("create_time", Order("create_time")),
        ("create_time asc", Order("create_time")),
        (" display_name   DESC ", Order("name", descending=True)),
        ("create_time desc ,device_id desc", Order("create_time", descending=True)),
        ("device_id", Order("device_id")),
    ],
)
def test_accepted(text: str, order: Order) -> None:
    assert SPEC.parse(text) == (order,)


@pytest.mark.parametrize(
    "text",
    ["creat_time", "create_time down", "create_time desc desc", ",", "create_time,", "create_time desc, device_id"],
)
def test_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        SPEC.parse(text)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.violations[0].field == "order_by"
    assert "display_name desc" in caught.value.message


def test_the_nearest_order_is_suggested() -> None:
    with pytest.raises(ApiError, match=r"did you mean 'create_time desc'\?"):
        SPEC.parse("creat_time desc")


def test_a_range_decides_the_default_and_refuses_another_order() -> None:
    assert SPEC.parse("", ranged="name") == (Order("name", descending=True),)
    assert SPEC.parse("create_time", ranged="create_time") == (Order("create_time"),)
    with pytest.raises(ApiError, match="accepted: display_name; "):
        SPEC.parse("create_time", ranged="name")


def test_a_mixed_order_can_be_declared() -> None:
    orders = {"create_time desc, device_id": (Order("create_time", descending=True), Order("device_id"))}
    assert len(OrderSpec(orders, "create_time desc, device_id").parse("create_time  desc,device_id asc")) == 2


@given(st.text(alphabet="create_tim ds,\x00é", max_size=40) | st.text(max_size=300))
def test_any_text_is_an_order_or_refused(text: str) -> None:
    with contextlib.suppress(ApiError):
        assert SPEC.parse(text)
