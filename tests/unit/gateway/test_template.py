"""Path templates: grammar, variables and percent-encoding."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.transcoding.template import MalformedPercent, TemplateError, compile_template, decode


@pytest.mark.parametrize(
    ("text", "segments", "verb", "paths"),
    [
        ("/devices", ("devices",), "", []),
        ("/devices:count", ("devices",), "count", []),
        ("/devices/{device_id}", ("devices", "*"), "", ["device_id"]),
        ("/devices/{device.device_id}:heartbeat", ("devices", "*"), "heartbeat", ["device.device_id"]),
        ("/{a=*}/{b=x/*/y}/**", ("*", "x", "*", "y", "**"), "", ["a", "b"]),
        ("/files/{path=**}:get", ("files", "**"), "get", ["path"]),
        ("/*/x", ("*", "x"), "", []),
    ],
)
def test_grammar(text: str, segments: tuple[str, ...], verb: str, paths: list[str]) -> None:
    template = compile_template(text)
    assert (template.segments, template.verb) == (segments, verb)
    assert [".".join(variable.path) for variable in template.variables] == paths


@pytest.mark.parametrize(
    "text",
    ["", "devices", "/", "/a/", "/{}", "/{a", "/{a=}", "/{a.}", "/{a={b}}", "/**/x", "/{a=**}/x", "/a:", "/a b", "/{a}/{a}", "/a:b:c", "/{1a}"],
)  # fmt: skip
def test_what_is_no_template(text: str) -> None:
    with pytest.raises(TemplateError):
        compile_template(text)


def test_values() -> None:
    (one,) = compile_template("/devices/{id}").variables
    assert one.value(["devices", "a%2Fb%20c"]) == "a/b c"
    (several,) = compile_template("/x/{name=a/*/b}").variables
    assert several.value(["x", "a", "1%2F%20", "b"]) == "a/1%2F /b"
    (rest,) = compile_template("/x/{name=**}").variables
    assert rest.value(["x", "a", "b%2fc"]) == "a/b%2fc"


@pytest.mark.parametrize("text", ["%", "%4", "%zz", "a%", "%ff", "%c3", "%c0%af", "%+1", "% 1"])
def test_malformed(text: str) -> None:
    with pytest.raises(MalformedPercent):
        decode(text)


@given(st.text())
def test_decoding_undoes_encoding(text: str) -> None:
    assert decode(quote(text, safe="", errors="strict")) == text
