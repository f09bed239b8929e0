"""Documents as Firestore's messages: what comes back, and the same sizes and refusals as SQLite's."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.store.encoding import encode
from chassis.store.firestore_values import PbDocument, fill, read_fields
from chassis.store.port import DocumentTooLarge, Fields, Key, Value
from chassis.store.values import pack
from tests.conformance.store.model import SCALARS

KEY = Key("acme", "things", "é")
NAMES = st.text(min_size=1, max_size=5)
NESTED = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner.filter(lambda value: not isinstance(value, list)), max_size=3)
        | st.dictionaries(NAMES, inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(NAMES, NESTED, max_size=5))
def test_fields_come_back_and_weigh_what_they_weigh_elsewhere(fields: Fields) -> None:
    document = PbDocument()
    assert fill(document, KEY, fields) == pack(KEY, fields)[1]
    assert encode(read_fields(PbDocument.FromString(document.SerializeToString()))) == encode(fields)


def nested(levels: int) -> Value:
    value: Value = "x"
    for _ in range(levels):
        value = {"m": value}
    return value


@pytest.mark.parametrize(
    "fields",
    [
        {"": 1},
        {"a": 1 << 63},
        {"a": [[1]]},
        {"a": object()},
        {"a": "\ud800"},
        {"a": nested(21)},
        {"a": [nested(20)]},
        {"a": "x" * (1 << 20)},
    ],
    ids=[f"case{number}" for number in range(8)],
)
def test_what_one_engine_refuses_the_other_refuses(fields: Fields) -> None:
    raised = []
    for write in (lambda: pack(KEY, fields), lambda: fill(PbDocument(), KEY, fields)):
        with pytest.raises((ValueError, DocumentTooLarge)) as refused:
            write()
        raised.append((isinstance(refused.value, DocumentTooLarge), str(refused.value)))
    if not raised[0][1].startswith("'utf-8'"):
        assert raised[0] == raised[1]


def test_reserved_fields_are_not_shown() -> None:
    document = PbDocument()
    fill(document, KEY, {"_commit": 1, "x": math.inf})
    document.fields["_commit"].bytes_value = b"marker"
    document.fields["_id"].string_value = "id"
    assert read_fields(document) == {"_commit": 1, "x": math.inf}
