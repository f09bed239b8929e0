"""The filter grammar, and what a spec makes of it."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bas.devices.v2.devices_pb2 import DeviceStatus
from chassis.api import filter_spec
from chassis.api.filter_spec import FilterSpec, label_terms
from chassis.api.filtering import MAX_CONDITIONS, MAX_LENGTH, Condition, parse, text_of
from chassis.errors import ApiError, Code
from chassis.store.port import Filter, Op, Value

SPEC = FilterSpec(
    {
        "status": filter_spec.enum("status", DeviceStatus.DESCRIPTOR),
        "type": filter_spec.text("type"),
        "labels": filter_spec.labels("label_terms"),
        "create_time": filter_spec.timestamp("create_time"),
        "update_time": filter_spec.timestamp("update_time"),
        "count": filter_spec.integer("count"),
        "weight": filter_spec.number("weight"),
        "active": filter_spec.boolean("active"),
    }
)
T1 = datetime(2026, 1, 1, tzinfo=UTC)


def compiled(text: str) -> tuple[Filter, ...]:
    result = SPEC.compile(text)
    assert not result.nothing
    return result.filters


def message(text: str) -> str:
    with pytest.raises(ApiError) as caught:
        SPEC.compile(text)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert [violation.field for violation in caught.value.violations] == ["filter"]
    return caught.value.violations[0].description


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("  \t ", ()),
        ("type = boiler", (Filter("type", Op.EQ, "boiler"),)),
        ("type=boiler", (Filter("type", Op.EQ, "boiler"),)),
        ('type != "a \\"b\\" \\\\ c"', (Filter("type", Op.NE, 'a "b" \\ c'),)),
        ("type = 'it\\'s (AND) OR'", (Filter("type", Op.EQ, "it's (AND) OR"),)),
        ("status = ONLINE", (Filter("status", Op.EQ, 2),)),
        ('status = "DEVICE_STATUS_ONLINE"', (Filter("status", Op.EQ, 2),)),
        ("status != ONLINE", (Filter("status", Op.IN, (1, 3, 4)),)),
        ("status != ONLINE AND status != OFFLINE AND status != DISABLED", (Filter("status", Op.EQ, 1),)),
        ("labels.site = north", (Filter("label_terms", Op.CONTAINS, "site=north"),)),
        ('labels."a.b" = ""', (Filter("label_terms", Op.CONTAINS, "a.b="),)),
        ("labels:site", (Filter("label_terms", Op.CONTAINS, "site"),)),
        ('labels : "my site"', (Filter("label_terms", Op.CONTAINS, "my site"),)),
        ("labels:site AND labels.site = north", (Filter("label_terms", Op.CONTAINS, "site=north"),)),
        ("create_time > 2026-01-01T00:00:00Z", (Filter("create_time", Op.GT, T1),)),
        ('create_time <= "2026-01-01T01:00:00.000000+01:00"', (Filter("create_time", Op.LE, T1),)),
        ("count >= -5", (Filter("count", Op.GE, -5),)),
        ("weight < 1.5e3", (Filter("weight", Op.LT, 1500.0),)),
        ("active = true", (Filter("active", Op.EQ, True),)),
        ("active != true", (Filter("active", Op.EQ, False),)),
        ("type = a AND type = a", (Filter("type", Op.EQ, "a"),)),
        ("type = a AND type != b", (Filter("type", Op.EQ, "a"),)),
        (
            "count > 1 AND count > 3 AND count >= 3 AND count < 9",
            (Filter("count", Op.GT, 3), Filter("count", Op.LT, 9)),
        ),
        ("count >= 3 AND count <= 3", (Filter("count", Op.EQ, 3),)),
        ("count > 3 AND count = 4", (Filter("count", Op.EQ, 4),)),
        ("count > 3 AND count != 2", (Filter("count", Op.GT, 3),)),
    ],
)
def test_compiles_to(text: str, expected: tuple[Filter, ...]) -> None:
    assert sorted(compiled(text), key=repr) == sorted(expected, key=repr)


@pytest.mark.parametrize(
    "text",
    [
        "type = a AND type = b",
        "type = a AND type != a",
        "status = ONLINE AND status = OFFLINE",
        "status = ONLINE AND status != ONLINE",
        "active = true AND active = false",
        "labels.site = a AND labels.site = b",
        "count > 3 AND count < 3",
        "count > 3 AND count <= 3",
        "count > 3 AND count = 3",
        "count >= 5 AND count <= 4",
    ],
)
def test_a_contradiction_lists_nothing(text: str) -> None:
    assert SPEC.compile(text).nothing


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stauts = ONLINE", ("position 1", "'stauts'", "did you mean status?", "create_time")),
        ("type = a AND status = ONLIN", ("position 14", "'ONLIN'", "did you mean ONLINE?", "DEVICE_STATUS_OFFLINE")),
        ("status = online", ("did you mean ONLINE?",)),
        ("status = DEVICE_STATUS_UNSPECIFIED", ("one of DEVICE_STATUS_NEVER_SEEN",)),
        ("status < ONLINE", ("cannot be asked with <", "accepted: = !=")),
        ("type : a", ("cannot be asked with :", "accepted: = !=")),
        ("create_time != 2026-01-01T00:00:00Z", ("accepted: = < <= > >=",)),
        ("create_time > yesterday", ("'yesterday'", "2026-01-31T12:00:00Z")),
        ("create_time > 2026-01-01T00:00:00", ("2026-01-31T12:00:00Z",)),
        ("create_time > 2026-02-30T00:00:00Z", ("2026-01-31T12:00:00Z",)),
        ("create_time > 0001-01-01T00:00:00+23:59", ("is not accepted",)),
        ("count = 1.5", ("a whole number",)),
        ("weight = NaN", ("a number",)),
        ("active = yes", ("true or false",)),
        ("labels = a", ("labels:key", "labels.key")),
        ("labels.site : a", ("labels:key",)),
        ("labels.site != a", ("accepted: = :",)),
        ("labels.a.b = c", ("position 8", "quoted")),
        ("labels. = c", ("a key after the dot",)),
        ("type.a = b", ("not a map",)),
        ("type = a OR type = b", ("position 10", "OR is not supported")),
        ("NOT type = a", ("position 1", "NOT is not supported")),
        ("-type = a", ("negation",)),
        ("(type = a)", ("position 1", "parentheses")),
        ("type = a)", ("position 9", "parentheses")),
        ("type = (a)", ("position 8", "parentheses")),
        ("type = a and type = b", ("position 10", "expected AND, found 'and'")),
        ("type = a,", ("expected AND, found ','",)),
        ("type", ("expected an operator", "after 'type'", "found the end")),
        ("type =", ("expected a value, found the end",)),
        ("type == a", ("expected a value, found '='",)),
        ("type = AND", ("expected a value, found 'AND'",)),
        ("type = a AND", ("expected a field name, found the end",)),
        ("= a", ("expected a field name, found '='",)),
        ('type = "a', ("position 8", "does not end")),
        ('type = "a\\n"', ("position 10", "followed by a quote")),
        ('type = "a\\', ("followed by a quote",)),
        ("count > 1 AND create_time > 2026-01-01T00:00:00Z", ("position 15", "only one field")),
        (" AND ".join(["type = a"] * (MAX_CONDITIONS + 1)), (f"more than {MAX_CONDITIONS}",)),
        ("x" * (MAX_LENGTH + 1), (f"at most {MAX_LENGTH}",)),
    ],
)
def test_what_is_wrong_is_said(text: str, words: tuple[str, ...]) -> None:
    said = message(text)
    for word in words:
        assert word in said


def test_the_limits_themselves_are_accepted() -> None:
    assert len(parse(" AND ".join(["type = a"] * MAX_CONDITIONS))) == MAX_CONDITIONS
    assert len(compiled("type = " + "a" * (MAX_LENGTH - 7))) == 1


def test_spellings_of_one_filter_have_one_canonical_text() -> None:
    one = SPEC.compile("status=ONLINE AND  type = 'a'")
    other = SPEC.compile('type = "a" AND type = a AND status = DEVICE_STATUS_ONLINE')
    assert one == other
    assert one.canonical
    assert one.canonical != SPEC.compile("type = a").canonical


def test_the_ranged_field_is_told() -> None:
    assert SPEC.compile("create_time > 2026-01-01T00:00:00Z AND type = a").ranged == "create_time"
    assert SPEC.compile("count >= 3 AND count <= 3 AND update_time > 2026-01-01T00:00:00Z").ranged == "update_time"
    assert SPEC.compile("type = a").ranged == ""


def test_an_enum_can_be_stored_by_name() -> None:
    spec = FilterSpec({"status": filter_spec.enum("status", DeviceStatus.DESCRIPTOR, by_name=True)})
    assert spec.compile("status = ONLINE").filters == (Filter("status", Op.EQ, "DEVICE_STATUS_ONLINE"),)


keys = st.text('a=\\"é', min_size=1, max_size=4)


@given(st.dictionaries(keys, st.text("a=\\", max_size=3), max_size=3), keys)
@example({"a=a": ""}, "a")
@example({"a\\": "a"}, "a\\=a")
def test_label_terms_answer_exactly_what_the_map_would(entries: Mapping[str, str], key: str) -> None:
    """Also for keys and values full of `=` and quotes: no key is ever taken for another's `key=value`."""
    terms = set(label_terms(entries))
    assert holds(terms, Condition("labels", None, ":", key, quoted=True)) == (key in entries)
    for value in {*entries.values(), "", "=", "a"}:
        assert holds(terms, Condition("labels", key, "=", value, quoted=True)) == (entries.get(key) == value)


def holds(terms: set[str], condition: Condition) -> bool:
    (only,) = compiled(str(condition))
    return only.value in terms


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in {"AND", "OR", "NOT"}
)
bare = st.from_regex(r"[A-Za-z0-9_.:+-]{1,12}", fullmatch=True).filter(lambda word: word not in {"AND", "OR", "NOT"})
written = st.tuples(bare, st.just(value=False)) | st.tuples(st.text(max_size=20), st.just(value=True))
parsed = st.builds(
    lambda name, key, op, value: Condition(name, key, op, value[0], value[1]),
    names,
    st.none() | st.text(max_size=8),
    st.sampled_from(["=", "!=", "<", "<=", ">", ">=", ":"]),
    written,
)


@given(st.lists(parsed, max_size=MAX_CONDITIONS).map(tuple))
def test_printing_and_parsing_are_inverse(conditions: tuple[Condition, ...]) -> None:
    assert parse(text_of(conditions)) == conditions


pieces = st.sampled_from(
    [
        "status",
        "type",
        "labels",
        ".",
        ":",
        "=",
        "!=",
        "<",
        ">=",
        "AND",
        "OR",
        "NOT",
        "(",
        ")",
        "-",
        "ONLINE",
        "2026-01-01T00:00:00Z",
        "true",
        "create_time",
        "count",
        " ",
        '"',
        "'",
        "\\",
        "9" * 30,
        "\x00",
        "é",
        "🌀",
    ],
)


@given(st.lists(pieces, max_size=20).map(" ".join) | st.lists(pieces, max_size=20).map("".join) | st.text(max_size=60))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    assert outcome(text) in {"compiled", "refused"}


def outcome(text: str) -> str:
    """Anything but an answer and an ApiError goes through and fails the test."""
    try:
        SPEC.compile(text)
    except ApiError as refused:
        return "refused" if refused.code is Code.INVALID_ARGUMENT and refused.violations[0].field == "filter" else "?"
    return "compiled"


values = st.integers(-3, 3)
asked = st.lists(st.tuples(st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), values), min_size=1, max_size=6)


@given(asked, values)
def test_merging_keeps_the_meaning(conditions: list[tuple[str, int]], stored: int) -> None:
    result = SPEC.compile(" AND ".join(f"count {op} {value}" for op, value in conditions))
    before = all(meets(stored, op, value) for op, value in conditions)
    after = not result.nothing and all(meets(stored, each.op.value, each.value) for each in result.filters)
    assert before == after


def meets(stored: int, op: str, value: Value) -> bool:
    assert isinstance(value, int)
    answers = {
        "=": stored == value,
        "==": stored == value,
        "!=": stored != value,
        "<": stored < value,
        "<=": stored <= value,
        ">": stored > value,
        ">=": stored >= value,
    }
    return answers[op]
