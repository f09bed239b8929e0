"""`protos/shapes.proto`, compiled: the schema, the JSON codec and the google messages of a test API."""

import importlib
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import google.api.annotations_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from gateway.transcoding.codec import Codec, load_codec
from gateway.transcoding.schema import Schema, read_schema

_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Shapes:
    schema: Schema
    codec: Codec
    descriptors: bytes

    def google(self, name: str) -> Any:
        """The google runtime's class of a message."""
        pool = descriptor_pool.DescriptorPool()
        for file in FileDescriptorSet.FromString(self.descriptors).file:
            pool.Add(file)
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def compile_shapes(folder: Path) -> Shapes:
    """Generate into `folder`, as the build does for the API's own protos."""
    out = folder / "shapes_json"
    out.mkdir()
    sources = Path(__file__).parent / "protos"
    googleapis = Path(google.api.annotations_pb2.__file__).parents[2]
    well_known = resources.files("grpc_tools") / "_proto"
    plugin = Path(sysconfig.get_path("scripts")) / "protoc-gen-py"
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc", f"-I{sources}", f"-I{_ROOT / 'protos'}"),
        *(f"-I{googleapis}", f"-I{well_known}", f"--plugin=protoc-gen-py={plugin}", f"--py_out={out}"),
        *(f"--descriptor_set_out={folder / 'set.binpb'}", "--include_imports", "--include_source_info"),
        *("shapes.proto", "bas/annotations/v2/annotations.proto"),
        *("google/api/annotations.proto", "google/api/http.proto", "google/api/field_behavior.proto"),
    ]
    subprocess.run(command, check=True, timeout=60)
    descriptors = (folder / "set.binpb").read_bytes()
    schema = read_schema(descriptors)
    sys.path.insert(0, str(folder))
    try:
        importlib.invalidate_caches()
        return Shapes(schema, load_codec(schema.files, "shapes_json."), descriptors)
    finally:
        sys.path.remove(str(folder))
