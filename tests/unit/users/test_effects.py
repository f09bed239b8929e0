"""What is told of a user's changes: nothing that says who the user is."""

from datetime import UTC, datetime, timedelta

from bas.users.v2.users_pb2 import User
from services.users import effects
from services.users import user as rules

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GIVEN = User(email="ada@example.com", display_name="Ada", metadata={"phone": "555 1234"})


def user() -> User:
    made = rules.registered("u1", GIVEN, NOW)
    made.etag = "e1"
    return made


def test_a_user_is_told_by_id_and_times_alone() -> None:
    told = effects.created("acme", user())
    assert (told.tenant, told.type, told.subject) == ("acme", "user.created", "users/u1")
    assert set(told.resource) == {"userId", "createTime", "updateTime"}


def test_a_change_is_told_by_its_paths_and_not_its_values() -> None:
    after = user()
    after.email, after.display_name = "lovelace@example.com", ""
    after.metadata["phone"] = "555 4321"
    after.update_time.FromDatetime(NOW + timedelta(seconds=1))
    (told,) = effects.updated("acme", user(), after)
    assert told.type == "user.updated"
    assert told.more == {"changedPaths": ["email", "displayName", "metadata"]}
    assert set(told.resource) == {"userId", "createTime", "updateTime"}
    assert not any(word in str(told) for word in ("Ada", "ada@", "lovelace", "555"))


def test_no_change_is_told_to_nobody() -> None:
    after = user()
    after.etag = "e2"
    assert effects.updated("acme", user(), after) == []


def test_of_a_removed_user_only_the_id_is_told() -> None:
    told = effects.deleted("acme", "u1")
    assert (told.type, told.resource) == ("user.deleted", {"userId": "u1"})
