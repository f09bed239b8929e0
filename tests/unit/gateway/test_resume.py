"""Where a stream goes on, of three that may say so."""

from urllib.parse import parse_qsl, quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import ApiError
from gateway.resume import resumed
from gateway.transcoding.query import pairs


@pytest.mark.parametrize(
    ("query", "header", "cursor"),
    [
        ("cursor=c", "", "c"),
        ("last_event_id=q", "", "q"),
        ("lastEventId=q", "", "q"),
        ("cursor=c&last_event_id=q", "", "q"),
        ("last_event_id=q&cursor=c", "h", "h"),
        ("", "h", "h"),
        ("cursor=c&last_event_id=", "", "c"),
        ("last_event_id=", "", None),
    ],
)
def test_the_newest_wins(query: str, header: str, cursor: str | None) -> None:
    assert dict(pairs(resumed(query.encode(), header))).get("cursor") == cursor


def test_a_query_that_says_nothing_of_it_stays_as_it_is() -> None:
    assert resumed(b"types=a%2", "") == b"types=a%2"


@pytest.mark.parametrize(
    "query", ["last_event_id=a&last_event_id=a", "last_event_id=a&lastEventId=b", "cursor=a&cursor=b"]
)
def test_twice_is_an_error(query: str) -> None:
    with pytest.raises(ApiError) as refused:
        resumed(query.encode(), "h")
    assert refused.value.violations[0].description == "The parameter is given twice."


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)


@given(
    st.lists(st.tuples(TEXT.filter(lambda name: name not in ("cursor", "last_event_id", "lastEventId")), TEXT)), TEXT
)
def test_all_else_is_kept(others: list[tuple[str, str]], position: str) -> None:
    query = "&".join(f"{quote(name)}={quote(value)}" for name, value in [*others, ("last_event_id", position)])
    kept = list(pairs(resumed(query.encode(), "")))
    assert kept == [*others, *([("cursor", position)] if position else [])]
    assert parse_qsl(resumed(query.encode(), "").decode(), keep_blank_values=True) == kept
