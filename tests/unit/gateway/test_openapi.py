"""The OpenAPI document: complete, closed, and true of what is answered."""

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bas.audit.v2.audit_service_pb2 import ExportedEntry, ExportEntriesResponse
from bas.devices.v2 import devices_pb2
from chassis.errors import internal
from gateway.module import load_schema
from gateway.problems import problem
from gateway.transcoding.binding import Binder
from gateway.transcoding.body import BodyChecker
from gateway.transcoding.codec import Codec, load_codec
from gateway.transcoding.docs import docs_page
from gateway.transcoding.openapi import openapi_document
from gateway.transcoding.routes import route_tables
from gateway.transcoding.schema import Schema
from tests.unit.gateway.shapes import Shapes


def document(schema: Schema, codec: Codec, retired: tuple[str, ...] = ()) -> Any:
    checker = BodyChecker(schema, codec)
    routes = [route for table in route_tables(schema.methods).values() for route in table.routes]
    return json.loads(openapi_document(schema, [(one, Binder(one, schema, codec, checker)) for one in routes], retired))


@pytest.fixture(scope="module")
def api() -> Any:
    schema = load_schema()
    return document(schema, load_codec(schema.files))


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [each for value in node.values() for each in references(value)]
    return [each for value in node for each in references(value)] if isinstance(node, list) else []


def operations(api: Any) -> list[tuple[str, str, Any]]:
    return [(path, verb, each) for path, verbs in api["paths"].items() for verb, each in verbs.items()]


def check_document(api: Any) -> None:
    for reference in set(references(api)):
        node = api
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    for name, made in api["components"]["schemas"].items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
        Draft202012Validator.check_schema(made)
    shapes = [re.sub(r"\{.*?\}", "{}", path) for path in api["paths"]]
    assert len(set(shapes)) == len(shapes)
    for path, verb, operation in operations(api):
        named = {each["name"] for each in operation["parameters"] if each.get("in") == "path"}
        assert named == set(re.findall(r"\{(.*?)\}", path)), (verb, path)
        assert operation["summary"]
        assert operation["responses"]
        keys = [(each.get("in"), each.get("name"), each.get("$ref")) for each in operation["parameters"]]
        assert len(set(keys)) == len(keys)


def test_every_operation_is_described(api: Any) -> None:
    check_document(api)
    ids = [operation["operationId"] for _, _, operation in operations(api)]
    assert len(ids) == len(set(ids)) > 35
    create = api["paths"]["/api/v2/devices"]["post"]
    assert list(create["responses"]) == ["201", "default"]
    assert create["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/devices.v2.Device"
    }
    assert set(api["paths"]["/api/v2/devices/{device_id}"]) == {"get", "patch", "delete"}
    assert {each["name"] for each in api["tags"]} == {"audit", "devices", "events", "sessions", "users"}


def test_every_shape_is_described(shapes: Shapes) -> None:
    made = document(shapes.schema, shapes.codec, ("v1",))
    verbs = {verb for _, verb, _ in operations(made)}
    assert made["paths"]["/api/v1/shapes/{name}"]["put"]["deprecated"] is True
    assert "deprecated" not in made["paths"]["/api/v2/shapes/{name}"]["put"]
    assert "purge" in verbs


def test_an_answer_is_as_described(api: Any) -> None:
    device = devices_pb2.Device(device_id="d", labels={"a": "b"}, status=devices_pb2.DEVICE_STATUS_ONLINE)
    device.create_time.seconds = 5
    codec = load_codec(load_schema().files)
    answer = json.loads(codec["bas.devices.v2.Device"].from_binary(device.SerializeToString()).json())
    schema = {"$ref": "#/components/schemas/devices.v2.Device", "components": api["components"]}
    validator = Draft202012Validator(schema)
    validator.validate(answer)
    assert list(validator.iter_errors(answer | {"status": 2, "nope": 1}))


def test_a_stream_is_described_as_it_is(api: Any) -> None:
    export = api["paths"]["/api/v2/audit/entries:export"]["get"]
    assert list(export["responses"]) == ["200", "default"]
    content = export["responses"]["200"]["content"]
    assert set(content) == {"application/x-ndjson", "text/event-stream"}
    names = {each.get("name") or each["$ref"].rpartition("/")[2] for each in export["parameters"]}
    assert {"cursor", "last_event_id", "LastEventId", "treeSize"} <= names
    assert "IfNoneMatch" not in names
    codec = load_codec(load_schema().files)
    record = ExportEntriesResponse(entry=ExportedEntry(cursor="c", leaf_hash=b"x"))
    line = codec["bas.audit.v2.ExportEntriesResponse"].from_binary(record.SerializeToString()).json()
    validator = Draft202012Validator(content["application/x-ndjson"]["schema"] | {"components": api["components"]})
    validator.validate(json.loads(line))
    told = json.loads(problem(internal(), "r-1")[2])
    validator.validate({"error": told})
    assert list(validator.iter_errors({"nope": 1}))


def test_events_are_taken_as_cloud_events(api: Any) -> None:
    content = api["paths"]["/api/v2/events"]["post"]["requestBody"]["content"]
    assert list(content) == ["application/json", "application/cloudevents+json", "application/cloudevents-batch+json"]
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "anything": 1}
    Draft202012Validator(content["application/cloudevents-batch+json"]["schema"]).validate([event])


def test_the_page_lists_every_operation_and_loads_nothing(api: Any) -> None:
    page = docs_page(json.dumps(api).encode()).decode()
    assert page.count("<details>") == len(operations(api))
    assert "/api/v2/devices/{device_id}:heartbeat" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//|<script|@import|url\(""", page)


def test_the_credentials_and_the_cookie_are_described(api: Any) -> None:
    schemes = api["components"]["securitySchemes"]
    assert {name: each["type"] for name, each in schemes.items()} == {
        "callerToken": "http",
        "sessionToken": "http",
        "sessionCookie": "apiKey",
    }
    assert (schemes["sessionCookie"]["in"], schemes["sessionCookie"]["name"]) == ("cookie", "bas_session")
    assert api["security"] == [{name: []} for name in schemes]
    assert set(api["paths"]["/api/v2/sessions:cookie"]) == {"post", "delete"}
    page = docs_page(json.dumps(api).encode()).decode()
    assert "/api/v2/sessions:cookie" in page
    assert all(f"<code>{name}</code>" in page for name in schemes)


def test_without_sessions_there_is_no_cookie(shapes: Shapes) -> None:
    assert not any("cookie" in path for path in document(shapes.schema, shapes.codec)["paths"])
