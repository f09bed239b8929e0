"""Binding: every shape of field by path, query, body and header. The google runtime reads what was made."""

from typing import Any

import pytest

from chassis.errors import ApiError
from gateway.transcoding.binding import NO_EXTRAS, Binder, Extras
from gateway.transcoding.body import BodyChecker
from gateway.transcoding.routes import route_tables
from tests.unit.gateway.shapes import Shapes


class Bound:
    """Binds requests of the test API."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        checker = BodyChecker(shapes.schema, shapes.codec)
        self._tables = route_tables(shapes.schema.methods)
        self._binders = {
            id(route): Binder(route, shapes.schema, shapes.codec, checker)
            for table in self._tables.values()
            for route in table.routes
        }

    def __call__(self, method: str, target: str, body: str = "", extras: Extras = NO_EXTRAS) -> Any:
        path, _, query = target.partition("?")
        match = self._tables["v2"].match(path)
        assert match is not None, path
        route = match[0][method]
        data = self._binders[id(route)].bind(match[1], query.encode(), body.encode(), extras)
        return self._shapes.google(route.method.request).FromString(data)


@pytest.fixture(scope="module")
def bound(shapes: Shapes) -> Bound:
    return Bound(shapes)


@pytest.mark.parametrize(
    ("query", "field", "value"),
    [
        ("i32=-5", "i32", -5),
        ("i32=2147483647", "i32", 2147483647),
        ("u32=4294967295", "u32", 4294967295),
        ("i64=-9223372036854775808", "i64", -(2**63)),
        ("u64=18446744073709551615", "u64", 2**64 - 1),
        ("s32=-1", "s32", -1),
        ("f64=7", "f64", 7),
        ("single=1.5", "single", 1.5),
        ("real=-1e-3", "real", -0.001),
        ("real=Infinity", "real", float("inf")),
        ("flag=true", "flag", True),
        ("flag=false", "flag", False),
        ("data=aGk", "data", b"hi"),
        ("data=_-8%3D", "data", b"\xff\xef"),
        ("colour=COLOUR_RED", "colour", 1),
        ("colour=2", "colour", 2),
        ("tags=a&tags=&tags=b%2Cc", "tags", ["a", "", "b,c"]),
        ("colours=1&colours=COLOUR_BLUE", "colours", [1, 2]),
        ("numbers=1&numbers=1", "numbers", [1, 1]),
        ("labels[a]=1&labels%5Bb.c%5D=%26", "labels", {"a": "1", "b.c": "&"}),
        ("switches[7]=true", "switches", {7: True}),
        ("maybe=", "maybe", ""),
        ("left=x", "left", "x"),
        ("inner.owner=o", "inner.owner", "o"),
        ("inner.deeper.deeper.depth=3", "inner.deeper.deeper.depth", 3),
        ("time=2026-01-02T03:04:05.5Z", "time.seconds", 1767323045),
        ("time=2026-01-02T03:04:05%2B01:00", "time.seconds", 1767319445),
        ("wait=3.5s", "wait.nanos", 500_000_000),
        ("mask=textValue,inner.made_by", "mask.paths", ["text_value", "inner.made_by"]),
        ("text_value=x", "text_value.value", "x"),
        ("textValue=x", "text_value.value", "x"),
        ("long_value=12", "long_value.value", 12),
    ],
)
def test_parameters(bound: Bound, query: str, field: str, value: object) -> None:
    made = bound("GET", f"/shapes/s?{query}")
    assert made.name == "s"
    for name in field.split("."):
        made = getattr(made, name)
    got = dict(made) if isinstance(value, dict) else list(made) if isinstance(value, list) else made
    assert got == value


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("i32=2147483648", "i32"),
        ("i32=1.0", "i32"),
        ("i32=+1", "i32"),
        ("i32=", "i32"),
        ("i32=%D9%A1", "i32"),
        ("u32=-1", "u32"),
        ("u64=18446744073709551616", "u64"),
        ("single=1e39", "single"),
        ("real=1e309", "real"),
        ("real=nan", "real"),
        ("real=1_0", "real"),
        ("flag=True", "flag"),
        ("flag=1", "flag"),
        ("flag", "flag"),
        ("data=a", "data"),
        ("data=%2A", "data"),
        ("colour=RED", "colour"),
        ("colour=colour_red", "colour"),
        ("colour=1.0", "colour"),
        ("colour=99999999999", "colour"),
        ("numbers=1&numbers=x", "numbers"),
        ("labels=x", "labels"),
        ("labels[a]=1&labels[a]=2", "labels[a]"),
        ("switches[x]=true", 'switches["x"]'),
        ("switches[1]=yes", "switches[1]"),
        ("inners[a]=1", "inners[a]"),
        ("inners[a].depth=1", "inners[a].depth"),
        ("list.depth=1", "list.depth"),
        ("inner=1", "inner"),
        ("any_object=1", "any_object"),
        ("any_value=1", "any_value"),
        ("i32=1&i32=1", "i32"),
        ("left=a&right=1", "right"),
        ("text_value=a&textValue=a", "textValue"),
        ("time=2026-01-02", "time"),
        ("time=2026-01-02T03:04:05", "time"),
        ("wait=3", "wait"),
        ("wait=3.5m", "wait"),
        ("inner.nope=1", "inner.nope"),
        ("inner..owner=1", "inner..owner"),
        ("name[a]=1", "name[a]"),
        ("name=t", "name"),
        ("nope=1", "nope"),
    ],
)
def test_parameters_that_are_refused(bound: Bound, query: str, field: str) -> None:
    with pytest.raises(ApiError) as caught:
        bound("GET", f"/shapes/s?{query}")
    assert caught.value.code.http_status == 400
    names = [violation.field for violation in caught.value.violations]
    assert names == [field] or names == [f'{field.partition("[")[0]}["x"]'] or names[0].startswith(field + "[")


def test_path_variables(bound: Bound) -> None:
    owned = bound("GET", "/owners/o%2F1/shapes/s")
    assert (owned.inner.owner, owned.name) == ("o/1", "s")
    assert bound("GET", "/files/dir/a/b%20c").path == "dir/a/b c"
    assert bound("GET", "/parents/a/1/b/2").path == "a/1/b/2"
    assert bound("GET", "/colours/COLOUR_RED").colour == 1
    assert bound("GET", "/numbers/-7").i32 == -7
    assert bound("PURGE", "/shapes/s").name == "s"


@pytest.mark.parametrize("path", ["/colours/red", "/numbers/x", "/numbers/2147483648"])
def test_path_variables_that_do_not_fit(bound: Bound, path: str) -> None:
    with pytest.raises(ApiError) as caught:
        bound("GET", path)
    assert caught.value.violations[0].field in ("colour", "i32")


def test_body_of_a_field(bound: Bound) -> None:
    made = bound("PUT", "/shapes/s?allow_missing=true", '{"i32":3,"inner":{"made_by":"x"},"list":[{"depth":1}]}')
    assert (made.shape.name, made.shape.i32, made.allow_missing) == ("s", 3, True)
    assert made.shape.list[0].depth == 1
    assert not made.HasField("update_mask")
    repeated = bound("POST", "/names", '["a","b"]')
    assert list(repeated.names) == ["a", "b"]


def test_body_of_everything(bound: Bound) -> None:
    body = (
        '{"shape":{"inners":{"a_b":{"owner":"o"}},"anyValue":null,"any_object":{"aB":[1,{"x":null}]}},"requestId":"r"}'
    )
    made = bound("POST", "/shapes", body)
    assert made.shape.inners["a_b"].owner == "o"
    assert made.shape.any_value.WhichOneof("kind") == "null_value"
    assert made.shape.any_object["aB"][0] == 1
    assert made.request_id == "r"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"shape":{"list":[{"depth":1},{"depth":"x"}]}}', "shape.list[1].depth"),
        ('{"shape":{"list":[{"depth":1},null]}}', "shape.list[1]"),
        ('{"shape":{"list":[{"depht":1}]}}', "shape.list[0].depht"),
        ('{"shape":{"inners":{"a":{"deeper":{"depth":1e10}}}}}', 'shape.inners["a"].deeper.depth'),
        ('{"shape":{"tags":"a"}}', "shape.tags"),
        ('{"shape":{"tags":["a",1]}}', "shape.tags[1]"),
        ('{"shape":{"left":"a","right":1}}', "shape.right"),
        ('{"shape":{"data":"*"}}', "shape.data"),
        ('{"shape":{"mask":["a"]}}', "shape.mask"),
        ('{"shape":{"switches":{"x":true}}}', 'shape.switches["x"]'),
        ('{"shape":{"textValue":1}}', "shape.textValue"),
        ('{"shape":3}', "shape"),
        ('{"shape":{"time":"0000-01-01T00:00:00Z"}}', "shape.time"),
        ('{"shape":{"wait":"315576000001s"}}', "shape.wait"),
    ],
)
def test_bodies_that_are_refused(bound: Bound, body: str, field: str) -> None:
    with pytest.raises(ApiError) as caught:
        bound("POST", "/shapes", body)
    assert caught.value.violations[0].field == field


def test_one_member_of_a_oneof_and_null_for_another(bound: Bound) -> None:
    assert bound("POST", "/shapes", '{"shape":{"left":null,"right":1}}').shape.right == 1


def test_deep_nesting_is_refused(bound: Bound) -> None:
    body = '{"shape":{"inner":' + '{"deeper":' * 300 + "{}" + "}" * 302
    with pytest.raises(ApiError) as caught:
        bound("POST", "/shapes", body)
    assert caught.value.code.http_status == 400


def test_the_mask_of_a_patch(bound: Bound) -> None:
    made = bound("PATCH", "/shapes/s", '{"i32":3,"text_value":null,"etag":"e","name":"s"}')
    assert list(made.update_mask.paths) == ["i32", "text_value"]
    given = bound("PATCH", "/shapes/s?updateMask=flag", '{"i32":3}')
    assert list(given.update_mask.paths) == ["flag"]
    assert not bound("PATCH", "/shapes/s", "{}").HasField("update_mask")


def test_headers(bound: Bound) -> None:
    made = bound("PATCH", "/shapes/s", '{"i32":3}', Extras("key", "e7"))
    assert (made.request_id, made.shape.etag) == ("key", "e7")
    same = bound("PATCH", "/shapes/s?request_id=key", '{"etag":"e7"}', Extras("key", "e7"))
    assert same.request_id == "key"
    with pytest.raises(ApiError, match="If-Match"):
        bound("PATCH", "/shapes/s", '{"etag":"e6"}', Extras("", "e7"))
    with pytest.raises(ApiError, match="Idempotency-Key"):
        bound("PATCH", "/shapes/s?request_id=other", "{}", Extras("key", ""))
