"""Generate the code and descriptors under `gen/` from `protos/`.

    python tools/gen.py             rebuild gen/
    python tools/gen.py --check     exit 1, naming the files, if gen/ is not what protos/ gives
    python tools/gen.py baseline    make the API as it is now the one that `buf breaking` compares with

`gen/bas` holds the google runtime's messages, the grpc stubs and their type stubs, and
`descriptors.binpb`: a FileDescriptorSet with imports and comments, from which the gateway reads its
routes and the documentation. `gen/bas_json` holds the same messages for protobuf-py, with the google
protos that they import, since its imports are relative.
"""

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import buf
from google.protobuf import descriptor_pb2

PROTOS = buf.ROOT / "protos"
GEN = buf.ROOT / "gen"


def sources() -> list[str]:
    """Return the paths of our protos relative to `protos/`, in a fixed order."""
    return sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))


def protoc(*arguments: str | Path) -> None:
    """Run protoc with all import folders; end the program with its complaint if it fails."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"-I{buf.installed_protos()}"]
    well_known = resources.files("grpc_tools") / "_proto"
    done = subprocess.run([*command, f"-I{well_known}", *arguments], cwd=buf.ROOT, check=False, timeout=300)
    if done.returncode:
        raise SystemExit(done.returncode)


def plugin(name: str) -> str:
    """Return the option that points protoc at a plugin installed beside this Python."""
    return f"--plugin={name}={buf.executable(name)}"


def generate(target: Path) -> None:
    """Write all generated code into the empty folder `target`."""
    protos = sources()
    bas_json = target / "bas_json"
    bas_json.mkdir(parents=True)
    protoc(
        plugin("protoc-gen-mypy"),
        f"--python_out={target}",
        f"--mypy_out=quiet:{target}",
        *protos,
    )
    protoc(
        plugin("protoc-gen-mypy_grpc"),
        f"--grpc_python_out={target}",
        f"--mypy_grpc_out=quiet:{target}",
        *(name for name in protos if name.endswith("_service.proto")),
    )
    protoc(plugin("protoc-gen-py"), f"--py_out={bas_json}", *protos, *buf.IMPORTED)
    write_descriptors(target / "bas" / "descriptors.binpb", protos)
    for folder in (path for top in ("bas", "bas_json") for path in [target / top, *(target / top).rglob("*")]):
        if folder.is_dir():
            (folder / "__init__.py").touch()


def write_descriptors(path: Path, protos: list[str]) -> None:
    """Write the FileDescriptorSet of `protos` and imports, with the comments of ours only."""
    protoc(f"--descriptor_set_out={path}", "--include_imports", "--include_source_info", *protos)
    files = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
    for file in files.file:
        if file.name in protos:
            keep_comments_only(file.source_code_info)
        else:
            file.ClearField("source_code_info")
    path.write_bytes(files.SerializeToString(deterministic=True))


def keep_comments_only(info: descriptor_pb2.SourceCodeInfo) -> None:
    """Drop the locations that say nothing but line and column: they are nine tenths of the bytes."""
    commented = [place for place in info.location if place.leading_comments or place.trailing_comments]
    del info.location[:]
    info.location.extend(commented)


def generated_files(folder: Path) -> Iterator[str]:
    """Yield the relative paths of the files in a `gen` folder, without what Python leaves there."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(folder).as_posix()


def differing(fresh: Path, committed: Path) -> list[str]:
    """Return the files that only one of two `gen` folders has, or that differ."""
    ours, theirs = set(generated_files(fresh)), set(generated_files(committed))
    _, unequal, unreadable = filecmp.cmpfiles(fresh, committed, sorted(ours & theirs), shallow=False)
    return sorted((ours ^ theirs) | set(unequal) | set(unreadable))


def rebuild() -> None:
    """Replace what is in `gen/`, file by file, only after all of it was generated."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(fresh)
        for name in differing(fresh, GEN):
            if (fresh / name).exists():
                (GEN / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(fresh / name, GEN / name)
            else:
                (GEN / name).unlink()


def check() -> int:
    """Return 1, naming the files, if `gen/` is not what `protos/` gives."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        stale = differing(Path(scratch), GEN)
    for name in stale:
        print(f"gen/{name} is not what protos/ gives", file=sys.stderr)
    if stale:
        print("run `make gen` and commit the result", file=sys.stderr)
    return 1 if stale else 0


def write_baseline() -> None:
    """Make the API as it is now the one that `buf breaking` compares with."""
    done = buf.run(buf.ROOT, "build", "protos", "--exclude-source-info", "--output", str(buf.BASELINE))
    if done.returncode:
        raise SystemExit(done.stderr)


def main() -> int:
    """Run what the command line asks."""
    parser = argparse.ArgumentParser(description="Generate gen/ from protos/.")
    parser.add_argument("command", nargs="?", choices=("gen", "baseline"), default="gen")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 if gen/ is stale")
    chosen = parser.parse_args()
    if chosen.command == "baseline":
        write_baseline()
    elif chosen.check:
        return check()
    else:
        rebuild()
    return 0


if __name__ == "__main__":
    sys.exit(main())
