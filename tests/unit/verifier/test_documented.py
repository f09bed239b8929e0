"""The lines of docs/audit.md, "With standard tools", do what it says of them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import audit_export as export

DOCS = Path(__file__).resolve().parents[3] / "docs" / "audit.md"
TOOLS = ("bash", "jq", "sha256sum", "base64", "xxd", "openssl")

pytestmark = pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason="needs the tools that it is about")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    key = export.LogKey()
    export.save(tmp_path / "acme.ndjson", export.written([export.record(number) for number in range(21)], key))
    (tmp_path / "acme.vkey").write_text(key.vkey + "\n", encoding="utf-8")
    return tmp_path


def block(number: int, folder: Path) -> "subprocess.CompletedProcess[str]":
    found = re.findall(r"```bash\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 3
    return subprocess.run(
        ["bash", "-e", "-c", found[number]], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_leaf_and_the_personal_part(folder: Path) -> None:
    done = block(0, folder)
    assert done.returncode == 0, done.stderr
    hashes = [line[:64] for line in done.stdout.splitlines()]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]
    assert hashes[0] == export.leaf(export.record(17)).hex()


def test_the_root(folder: Path) -> None:
    done = block(1, folder)
    assert done.returncode == 0, done.stderr
    computed, signed = done.stdout.split()
    assert computed == signed


def test_the_signature(folder: Path) -> None:
    done = block(2, folder)
    if "rawin" in done.stderr:
        pytest.skip("this OpenSSL has no Ed25519 on its command line")
    assert done.returncode == 0, done.stderr
    export.save(folder / "acme.ndjson", export.written([export.record(0)], export.LogKey(2)))
    assert block(2, folder).returncode != 0
