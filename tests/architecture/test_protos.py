"""The API keeps its own rules, its generated code is current, and each check catches a seeded fault."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2 as pb
from google.protobuf import json_format

from bas.annotations.v2 import annotations_pb2 as rules_pb
from bas.devices.v2 import devices_pb2
from bas_json.bas.devices.v2.devices_pb import Device
from tests.architecture import api_rules

ROOT = Path(__file__).resolve().parents[2]
GEN = ROOT / "gen"
SURFACE = Path(__file__).parent / "rest_surface.txt"


@pytest.fixture
def files() -> pb.FileDescriptorSet:
    """The compiled API, to look at or to spoil."""
    return pb.FileDescriptorSet.FromString((GEN / "bas" / "descriptors.binpb").read_bytes())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of all that the tools read and write, to spoil."""
    for folder in ("protos", "tools", "gen"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "buf.yaml", tmp_path / "buf.yaml")
    return tmp_path


def run(tree: Path, tool: str, *arguments: str) -> tuple[int, str]:
    """Run a script of tools/ in a tree: exit code and all that it said."""
    command = [sys.executable, "-W", "error", str(tree / "tools" / tool), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("rule", api_rules.ALL, ids=lambda rule: rule.__name__)
def test_the_api_keeps_the_rule(rule: Callable[[api_rules.Api], Iterator[str]], files: pb.FileDescriptorSet) -> None:
    assert list(rule(api_rules.load(files))) == []


def spoil_route(method: pb.MethodDescriptorProto, _: pb.DescriptorProto) -> None:
    method.options.Extensions[annotations_pb2.http].get = "/v2/devices/{device_id}"


def spoil_path_variable(method: pb.MethodDescriptorProto, _: pb.DescriptorProto) -> None:
    method.options.Extensions[annotations_pb2.http].get = "/api/v2/devices/{name}"


def drop_route(method: pb.MethodDescriptorProto, _: pb.DescriptorProto) -> None:
    method.options.ClearExtension(annotations_pb2.http)


def take_another_route(method: pb.MethodDescriptorProto, _: pb.DescriptorProto) -> None:
    method.options.Extensions[annotations_pb2.http].get = "/api/v2/devices"


def take_foreign_scope(method: pb.MethodDescriptorProto, _: pb.DescriptorProto) -> None:
    method.options.Extensions[rules_pb.policy].scope = "users:read"


def drop_deadline(method: pb.MethodDescriptorProto, _: pb.DescriptorProto) -> None:
    method.options.Extensions[rules_pb.policy].default_deadline_ms = 0


def name_no_such_id(method: pb.MethodDescriptorProto, _: pb.DescriptorProto) -> None:
    method.options.Extensions[rules_pb.policy].created_id = "device.id"


def retry_without_etag(method: pb.MethodDescriptorProto, _: pb.DescriptorProto) -> None:
    method.options.Extensions[rules_pb.policy].retry = rules_pb.RETRY_WITH_ETAG


def ask_for_tenant(_: pb.MethodDescriptorProto, request: pb.DescriptorProto) -> None:
    request.field[0].name = "tenant_id"


def drop_bounds(_: pb.MethodDescriptorProto, request: pb.DescriptorProto) -> None:
    request.field[0].options.ClearExtension(rules_pb.rules)


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (spoil_route, "GetDevice needs exactly one HTTP rule below /api/v2/"),
        (drop_route, "GetDevice needs exactly one HTTP rule below /api/v2/"),
        (spoil_path_variable, "GetDevice: name in its path is not an id field"),
        (take_another_route, "has the route of"),
        (take_foreign_scope, "GetDevice needs a scope devices:read, :write or :admin"),
        (drop_deadline, "GetDevice needs both deadlines, or is a stream and has none"),
        (name_no_such_id, "GetDevice: there is no device.id in its response"),
        (retry_without_etag, "GetDevice is retried with an etag, and takes none"),
        (ask_for_tenant, "GetDevice takes .bas.devices.v2.GetDeviceRequest.tenant_id"),
        (drop_bounds, ".bas.devices.v2.GetDeviceRequest.device_id has no max_length or max_bytes"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_spoiled_method_is_caught(
    fault: Callable[[pb.MethodDescriptorProto, pb.DescriptorProto], None],
    complaint: str,
    files: pb.FileDescriptorSet,
) -> None:
    file = next(file for file in files.file if file.service and file.package == "bas.devices.v2")
    method = next(method for method in file.service[0].method if method.name == "GetDevice")
    fault(method, next(message for message in file.message_type if message.name == "GetDeviceRequest"))
    complaints = [line for rule in api_rules.ALL for line in rule(api_rules.load(files))]
    assert any(complaint in line for line in complaints), complaints


@pytest.mark.parametrize(
    ("message", "field", "complaint"),
    [
        ("Device", "labels", "has no key_max_length"),
        ("Device", "labels", "has no value_max_bytes"),
        ("BatchCreateDevicesRequest", "devices", "has no max_items"),
        ("UpdateDeviceRequest", "update_mask", "has no max_items"),
        ("Session", "idle_ttl", "has no min_seconds and max_seconds"),
        ("CloudEvent", "data", "has no max_bytes"),
        ("CloudEvent", "data_base64", "has no max_length or max_bytes"),
        ("CloudEvent", "extensions", "has no value_max_bytes"),
    ],
)
def test_each_kind_of_field_needs_its_bounds(
    message: str, field: str, complaint: str, files: pb.FileDescriptorSet
) -> None:
    messages = [found for file in files.file for found in file.message_type if found.name == message]
    next(found for found in messages[0].field if found.name == field).options.ClearExtension(rules_pb.rules)
    assert any(
        f".{message}.{field} {complaint}" in line for line in api_rules.requests_are_bounded(api_rules.load(files))
    )


def test_the_rest_surface_is_the_agreed_one(files: pb.FileDescriptorSet) -> None:
    """`buf breaking` sees messages, not paths: a path that moves must be changed in the listing too."""
    assert api_rules.surface(api_rules.load(files)) == SURFACE.read_text()


def test_every_generated_module_imports_without_a_warning() -> None:
    paths = [path.relative_to(GEN).with_suffix("") for path in GEN.rglob("*.py")]
    names = sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)
    assert len(names) > 30
    command = [sys.executable, "-W", "error", "-c", f"import importlib\nfor n in {names!r}: importlib.import_module(n)"]
    done = subprocess.run(command, cwd=GEN, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "bas_json.google.api.http_pb" in names


def test_both_runtimes_read_the_same_device() -> None:
    device = Device.from_json(
        '{"deviceId": "d1", "displayName": "Kessel 7 \\u00fc", "labels": {"site": "north"},'
        ' "status": "DEVICE_STATUS_ONLINE", "createTime": "2025-01-01T00:00:00.5Z"}'
    )
    message = devices_pb2.Device.FromString(device.to_binary())
    assert message.display_name == "Kessel 7 ü"
    assert json_format.Parse(device.to_json(), devices_pb2.Device()) == message
    assert Device.from_binary(message.SerializeToString()) == device


def test_comments_travel_with_the_descriptors(files: pb.FileDescriptorSet) -> None:
    """The gateway's documentation is made of them; every method of ours has one."""
    for file in files.file:
        documented = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        for number in range(len(file.service[0].method) if file.service else 0):
            assert documented[6, 0, 2, number].strip(), (file.name, number)


def test_generated_code_is_current() -> None:
    assert run(ROOT, "gen.py", "--check") == (0, "")


def test_stale_generated_code_is_caught(tree: Path) -> None:
    change(tree / "protos/bas/devices/v2/devices.proto", "string type = 3", "string kind = 3")
    (tree / "gen/bas/devices/v2/left_behind_pb2.py").touch()
    code, said = run(tree, "gen.py", "--check")
    assert code == 1
    for name in ("bas/descriptors.binpb", "bas/devices/v2/devices_pb2.py", "bas/devices/v2/left_behind_pb2.py"):
        assert f"gen/{name} is not what protos/ gives" in said
    assert run(tree, "gen.py")[0] == 0
    assert not (tree / "gen/bas/devices/v2/left_behind_pb2.py").exists()
    assert run(tree, "gen.py", "--check") == (0, "")


def test_lint_and_breaking_pass_and_catch_a_fault(tree: Path) -> None:
    assert run(tree, "buf.py", "lint") == (0, "")
    assert run(tree, "buf.py", "breaking") == (0, "")
    proto = tree / "protos/bas/devices/v2/devices.proto"
    change(proto, "string display_name = 2", "string display_name = 20")
    assert run(tree, "buf.py", "lint") == (0, "")
    code, said = run(tree, "buf.py", "breaking")
    assert code != 0
    assert 'Field "20"' in said or 'field "2"' in said
    change(proto, "DEVICE_STATUS_ONLINE", "ONLINE")
    code, said = run(tree, "buf.py", "lint")
    assert code != 0
    assert "DEVICE_STATUS_" in said


def test_a_new_baseline_accepts_a_change(tree: Path) -> None:
    change(tree / "protos/bas/devices/v2/devices.proto", "string display_name = 2", "string display_name = 20")
    assert run(tree, "buf.py", "breaking")[0] != 0
    assert run(tree, "gen.py", "baseline") == (0, "")
    assert run(tree, "buf.py", "breaking") == (0, "")
