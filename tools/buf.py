"""Run buf on the API without a network: `python tools/buf.py lint`, `breaking` or `build …`.

buf knows google/protobuf by heart but not google/api and google/rpc, and would ask its registry for
them. They are laid out from the installed googleapis-common-protos in `build/googleapis`, which
`buf.yaml` names as a module and git ignores. After that a plain `buf lint` works as well.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import google.api.http_pb2

ROOT = Path(__file__).resolve().parent.parent
IMPORTED = (
    "google/api/annotations.proto",
    "google/api/field_behavior.proto",
    "google/api/http.proto",
    "google/rpc/code.proto",
)
BASELINE = Path("protos/baseline.binpb")


def installed_protos() -> Path:
    """Return the folder that holds the `google/api` sources of googleapis-common-protos."""
    return Path(google.api.http_pb2.__file__).resolve().parents[2]


def executable(name: str) -> Path:
    """Return a console script installed beside this Python."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        raise SystemExit(f"{name} is not installed beside {sys.executable}: run `make install`")
    return Path(found)


def lay_out_imports(root: Path) -> None:
    """Write the imported google protos to `build/googleapis` under `root`, if they are not there."""
    source, target = installed_protos(), root / "build" / "googleapis"
    for name in IMPORTED:
        text = (source / name).read_bytes()
        copy = target / name
        if not copy.exists() or copy.read_bytes() != text:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(text)


def run(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run buf in the tree at `root`; its complaints are in `stdout` and `stderr`."""
    lay_out_imports(root)
    return subprocess.run(
        [executable("buf"), *arguments], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )


def main(arguments: list[str]) -> int:
    """Run buf in the repository and pass on what it says."""
    if arguments == ["breaking"]:
        arguments = ["breaking", "protos", "--against", str(BASELINE)]
    done = run(ROOT, *arguments)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
