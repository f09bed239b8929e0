"""The route table: precedence, conflicts, and the whole API in it."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bas.annotations.v2.annotations_pb2 import MethodPolicy
from gateway.module import load_schema
from gateway.transcoding.routes import RouteError, route_tables
from gateway.transcoding.schema import Method, Rule
from gateway.transcoding.template import MalformedPercent
from tests.unit.gateway.shapes import Shapes


def method(name: str, *rules: tuple[str, str]) -> Method:
    made = tuple(Rule(verb, path, "") for verb, path in rules)
    return Method("things", "bas.things.v2.ThingService", name, "", "", made, MethodPolicy())


def found(path: str, *methods: Method) -> dict[str, str] | None:
    match = route_tables(methods)["v2"].match(path)
    return None if match is None else {verb: route.method.name for verb, route in match[0].items()}


A = method("Literal", ("GET", "/api/v2/a/b"))
B = method("Variable", ("GET", "/api/v2/a/{x}"))
C = method("Verb", ("POST", "/api/v2/a/{x}:go"))
D = method("LiteralVerb", ("GET", "/api/v2/a/b:go"))
E = method("Rest", ("GET", "/api/v2/{x=**}"))


def test_precedence() -> None:
    everything = (E, D, C, B, A)
    assert found("/a/b", *everything) == {"GET": "Literal"}
    assert found("/a/c", *everything) == {"GET": "Variable"}
    assert found("/a/c:go", *everything) == {"POST": "Verb"}
    assert found("/a/b:go", *everything) == {"GET": "LiteralVerb"}
    assert found("/a/c:stop", *everything) == {"GET": "Variable"}
    assert found("/a/b/c", *everything) == {"GET": "Rest"}
    assert found("/q", *everything) == {"GET": "Rest"}


def test_a_dead_end_is_left_again() -> None:
    deep, other = method("Deep", ("GET", "/api/v2/a/b/c")), method("Other", ("GET", "/api/v2/a/{x}/d"))
    assert found("/a/b/d", deep, other) == {"GET": "Other"}


def test_encoding_does_not_matter_for_literals_and_does_for_separators() -> None:
    assert found("/%61/b", A) == {"GET": "Literal"}
    assert found("/a%2Fb", A) is None
    assert found("/a/c%3Ago", B, C) == {"GET": "Variable"}


@pytest.mark.parametrize("path", ["", "/", "/a", "/a/", "//a/b", "/a//b", "/a/b/", "/A/b"])
def test_no_match(path: str) -> None:
    assert found(path or "/", A, B) is None


def test_two_rules_for_the_same_requests_are_named() -> None:
    twin = method("Twin", ("GET", "/api/v2/a/{y=*}"))
    with pytest.raises(RouteError, match=r"Variable \(GET .*Twin \(GET "):
        route_tables((B, twin))


@pytest.mark.parametrize("path", ["/v2/a", "/api/v2", "/a", "/api/"])
def test_a_rule_outside_of_the_versions(path: str) -> None:
    with pytest.raises(RouteError, match="does not begin with"):
        route_tables((method("Odd", ("GET", path)),))


def test_additional_bindings_and_custom_methods(shapes: Shapes) -> None:
    tables = route_tables(shapes.schema.methods)
    match = tables["v2"].match("/shapes/s1")
    assert match is not None
    assert set(match[0]) == {"GET", "PURGE", "PUT", "PATCH"}
    assert tables["v1"].match("/shapes/s1") is not None
    assert tables["v1"].match("/names") is None


def test_every_unary_method_of_the_api_has_a_route() -> None:
    schema = load_schema()
    routed = {route.method.full_name for route in route_tables(schema.methods)["v2"].routes}
    assert routed == {each.full_name for each in schema.methods}
    assert len(routed) > 35


@given(st.text(alphabet="/:%ab%2Ffdevics{}*.", max_size=40))
def test_any_path_has_an_answer(path: str) -> None:
    table = route_tables(load_schema_once())["v2"]
    try:
        table.match("/" + path)
    except MalformedPercent:
        assert "%" in path


@given(st.text(min_size=1, max_size=20))
def test_any_text_can_be_an_id(text: str) -> None:
    table = route_tables(load_schema_once())["v2"]
    match = table.match("/devices/" + quote(text, safe=""))
    assert match is not None
    routes, raw = match
    (variable,) = routes["GET"].template.variables
    assert variable.value(raw) == text


_ONCE: list[tuple[Method, ...]] = []


def load_schema_once() -> tuple[Method, ...]:
    if not _ONCE:
        _ONCE.append(load_schema().methods)
    return _ONCE[0]
