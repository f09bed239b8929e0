"""Versions: which is meant, and what a deprecated one says."""

from datetime import UTC, datetime

import pytest

from chassis.errors import ApiError
from gateway.transcoding.routes import route_tables
from gateway.versions import Retirement, Version, Versions
from tests.unit.gateway.shapes import Shapes

RETIREMENT = Retirement(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 6, 30, tzinfo=UTC), "v2")


@pytest.fixture
def versions(shapes: Shapes) -> Versions:
    tables = route_tables(shapes.schema.methods)
    return Versions([Version("v1", tables["v1"], RETIREMENT), Version("v2", tables["v2"])])


@pytest.mark.parametrize(
    ("path", "header", "name", "rest"),
    [
        ("/api/v2/shapes/x", "", "v2", "/shapes/x"),
        ("/api/v2/shapes/x", "v1", "v2", "/shapes/x"),
        ("/api/v1/shapes/x", "v9", "v1", "/shapes/x"),
        ("/api/shapes/x", "", "v2", "/shapes/x"),
        ("/api/shapes/x", "v1", "v1", "/shapes/x"),
        ("/api/v2", "", "v2", "/"),
        ("/api/v2x/y", "", "v2", "/v2x/y"),
        ("/api/", "", "v2", "/"),
    ],
)
def test_resolve(versions: Versions, path: str, header: str, name: str, rest: str) -> None:
    version, relative = versions.resolve(path, header)
    assert (version.name, relative) == (name, rest)


@pytest.mark.parametrize(
    ("path", "header", "status"), [("/api/v3/x", "", 404), ("/api/v3", "v2", 404), ("/api/x", "3", 400)]
)
def test_unknown_versions(versions: Versions, path: str, header: str, status: int) -> None:
    with pytest.raises(ApiError, match="v1, v2") as caught:
        versions.resolve(path, header)
    assert getattr(caught.value, "status", caught.value.code.http_status) == status


def test_headers(versions: Versions) -> None:
    old, new = versions.resolve("/api/v1/x", "")[0], versions.resolve("/api/v2/x", "")[0]
    assert new.headers_at("/x") == [(b"api-version", b"v2")]
    assert old.headers_at("/shapes/x") == [
        (b"api-version", b"v1"),
        (b"deprecation", b"@1767225600"),
        (b"sunset", b"Wed, 30 Jun 2027 00:00:00 GMT"),
        (b"link", b'</api/v2/shapes/x>; rel="successor-version"'),
    ]
