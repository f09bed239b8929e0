"""What is committed: no machine's paths, no registry hosts, locks with a hash for everything, import rules that bite."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = {".binpb"}
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
FORBIDDEN = {
    "a path of somebody's machine": re.compile(r"(?<![\w.])/(?:work/|home/|root/|Users/|tmp/bas/)"),
    "a package index": re.compile(
        "|".join((r"--(?:extra-)?index" + "-url", "--find" + "-links", r"pypi\." + "org", "python" + r"hosted\.org"))
    ),
}
PACKAGES = ("chassis", "services", "gateway", "launcher")


def tracked() -> Iterator[Path]:
    """The files under version control; in a tree without git, all that git would not ignore by our rules."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached"], cwd=ROOT, capture_output=True, check=False, timeout=30
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and path.suffix not in BINARY:
            yield path


def offences(text: str) -> list[str]:
    return [f"{what}: {match[0]}" for what, pattern in FORBIDDEN.items() if (match := pattern.search(text))]


def requirements(lock: Path) -> list[str]:
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def lint_imports(tree: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'gen'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_no_committed_file_names_a_machine_or_a_package_index() -> None:
    found = {
        str(path.relative_to(ROOT)): wrong
        for path in tracked()
        if path != Path(__file__).resolve() and (wrong := offences(path.read_text(encoding="utf-8")))
    }
    assert not found


@pytest.mark.parametrize(
    "text",
    ["see /home/" + "ann/bas", "pip install --index" + "-url x", "https://pypi." + "org/simple"],
)
def test_what_may_not_be_committed_is_recognised(text: str) -> None:
    assert offences(text)


@pytest.mark.parametrize("name", ["runtime.lock", "dev.lock"])
def test_everything_in_a_lock_is_pinned_and_hashed(name: str) -> None:
    lines = requirements(ROOT / "requirements" / name)
    assert lines
    for line in lines:
        assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+", line), line
        assert HASH.search(line), line


def test_both_locks_agree() -> None:
    runtime, dev = (
        {line.split(" ")[0] for line in requirements(ROOT / "requirements" / name)}
        for name in ("runtime.lock", "dev.lock")
    )
    assert runtime <= dev


def test_every_declared_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, lock in (
        (project["dependencies"], "runtime.lock"),
        (project["optional-dependencies"]["dev"], "dev.lock"),
    ):
        locked = {re.split(r"[=\[]", line, maxsplit=1)[0] for line in requirements(ROOT / "requirements" / lock)}
        assert {re.split(r"[>=<;\[ ]", item, maxsplit=1)[0] for item in name} <= locked


def test_the_commands_that_the_readme_names_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
    assert {"up", "test"} <= named
    assert named <= make_targets()


def test_the_makefile_has_what_was_promised() -> None:
    assert {"help", "up", "test", "lint", "gen", "bench", "lock", "clean"} <= make_targets()


def imports_google_cloud(source: str) -> bool:
    return re.search(r"^\s*(?:from|import) google\.cloud\b", source, re.MULTILINE) is not None


def test_google_cloud_is_imported_only_under_the_store() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    outside = [path for path in files if (ROOT / "chassis" / "store") not in path.parents]
    assert not [path for path in outside if imports_google_cloud(path.read_text(encoding="utf-8"))]
    assert imports_google_cloud("def f():\n    from google.cloud import firestore\n")


def test_the_import_rules_hold_and_catch_a_violation(tmp_path: Path) -> None:
    for name in (*PACKAGES, "gen"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    clean = lint_imports(tmp_path)
    assert clean.returncode == 0, clean.stdout

    with (tmp_path / "chassis" / "clock.py").open("a", encoding="utf-8") as seeded:
        seeded.write("\nimport launcher.targets\n")
    with (tmp_path / "services" / "devices" / "__init__.py").open("a", encoding="utf-8") as seeded:
        seeded.write("\nimport sqlite3\n")
    broken = lint_imports(tmp_path)
    assert broken.returncode == 1
    assert "chassis.clock -> launcher.targets" in broken.stdout
    assert "sqlite3" in broken.stdout
