"""What a caller may set on a user, and what is derived from it."""

from datetime import UTC, datetime

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from bas.users.v2.users_pb2 import User
from chassis.errors import ApiError, Code
from services.users import user as rules

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def test_a_registered_user_takes_only_the_callers_fields() -> None:
    given_user = User(user_id="other", email="A@b.c", display_name="Ada", metadata={"k": "v"}, etag="mine")
    given_user.create_time.FromJsonString("1999-01-01T00:00:00Z")
    made = rules.registered("u1", given_user, NOW)
    assert (made.user_id, made.email, made.display_name) == ("u1", "A@b.c", "Ada")
    assert dict(made.metadata) == {"k": "v"}
    assert not made.etag
    assert made.create_time.ToDatetime(UTC) == made.update_time.ToDatetime(UTC) == NOW


def test_an_update_that_changes_nothing_is_none() -> None:
    user = rules.registered("u1", User(email="a@b.c"), NOW)
    assert rules.updated(user, User(email="a@b.c"), FieldMask(paths=["email"]), NOW) is None


def test_times_that_were_shown_do_not_go_back() -> None:
    user = rules.registered("u1", User(email="a@b.c"), NOW)
    changed = rules.updated(user, User(display_name="x"), FieldMask(), NOW.replace(year=2020))
    assert changed is not None
    assert changed.update_time.ToDatetime(UTC) == NOW
    changed = rules.updated(user, User(display_name="x"), FieldMask(), NOW.replace(year=2027))
    assert changed is not None
    assert changed.update_time.ToDatetime(UTC).year == 2027
    assert changed.create_time.ToDatetime(UTC) == NOW


def test_an_address_that_is_none_is_refused_without_being_repeated() -> None:
    with pytest.raises(ApiError) as refused:
        rules.claim("secret\uff20x@b.c", "user.email")
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert refused.value.violations[0].field == "user.email"
    assert "secret" not in str(refused.value)
