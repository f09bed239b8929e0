"""`bas audit`: a tenant's audit log as a file, the key that its checkpoints are signed with, and whether a file holds."""

import asyncio
import json
import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click

from chassis.clock import SystemClock
from chassis.config import Config, load
from launcher.audit.keys import local_key
from launcher.audit.progress import Progress
from launcher.failure import FAILED, Failure, misuse
from launcher.targets import key_path
from launcher.verifier.check import Older, check, first_difference, origin_in
from launcher.verifier.lines import lines
from launcher.verifier.note import MOST_BYTES, BadNote, Key, parse, parse_key, verify
from launcher.verifier.report import Report

_TENANT: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_FILE: Final = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


@click.group("audit")
def command() -> None:
    """Export a tenant's audit log from the running platform; verify an export offline.

    \b
    Example:
      bas audit export --tenant acme --output acme.ndjson
      bas audit verify acme.ndjson
    """


@command.command("export")
@click.option("--tenant", required=True, help="Whose log.")
@click.option(
    "--output",
    "output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; replaced when the export is complete. Until then it is OUTPUT.part.",
)
def export_command(*, tenant: str, output: Path) -> None:
    """Write a tenant's audit log, up to its newest checkpoint, to a file: one JSON object a line, the checkpoint first.

    Asks the audit service, with a credential made with the key of the platform whose data folder this is. An export that
    was broken off goes on where it was when the same command is given again.

    \b
    Example:
      bas audit export --tenant acme --output acme.ndjson
    """
    from launcher.audit.download import download  # noqa: PLC0415 - grpc is a tenth of a second that --help need not wait for

    config = load(os.environ)
    clock = SystemClock()
    try:
        size = asyncio.run(download(config, tenant, output, clock, Progress("exported", clock)))
    except OSError as problem:
        raise Failure(
            f"{output} cannot be written ({problem.strerror}): make room, or name another --output."
        ) from None
    click.echo(f"{output}: {size} entries. Check it: bas audit verify {output}")


@command.command("key")
@click.option("--tenant", required=True, help="Whose log.")
def key_command(*, tenant: str) -> None:
    """Print the public key that a tenant's checkpoints are verified with, made from the key file of the platform.

    Keep it where the platform's administrators cannot change it.

    \b
    Example:
      bas audit key --tenant acme > acme.vkey
    """
    click.echo(local_key(load(os.environ), tenant)[0])


@command.command("verify")
@click.argument("file", type=_FILE)
@click.option(
    "--key",
    "given",
    help="The key as `bas audit key` prints it, or a file with it. Default: that of the platform whose data folder this is.",
)
@click.option("--tenant", help="Whose log it has to be, where no --key says so.")
@click.option(
    "--checkpoint",
    "notes",
    multiple=True,
    type=_FILE,
    help="A checkpoint's note that was kept, which the log has to agree with; may be repeated.",
)
@click.option("--earlier", type=_FILE, help="An earlier export of the same log, which this one has to begin with.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify_command(
    *, file: Path, given: str | None, tenant: str | None, notes: tuple[Path, ...], earlier: Path | None, as_json: bool
) -> int:
    """Check an exported audit log, offline: every entry's hash, the order, the Merkle tree, the signed checkpoint.

    Exit code 0 when all of that holds, and 1, with the first entry that does not, otherwise. What the export itself
    cannot show is whether the log was rewritten and signed anew by those who have the platform's key: for that, keep
    checkpoints or earlier exports and name them.

    \b
    Example:
      bas audit verify acme.ndjson --key acme.vkey --checkpoint acme-2026-01.note
    """
    key = _key(file, given, tenant)
    clock = SystemClock()
    older = [_older(path, key) for path in notes]
    progress = Progress("verified", clock)
    with ExitStack() as opened:
        report = check(lines(opened.enter_context(file.open("rb"))), key, older, progress.tell)
    if earlier is not None:
        _compare(report, file, earlier, key, progress)
    if as_json:
        click.echo(json.dumps(report.json(), indent=2))
    else:
        click.echo("\n".join(report.lines(str(file))))
    return 0 if report.good else FAILED


def _compare(report: Report, file: Path, earlier: Path, key: Key, progress: Progress) -> None:
    """Add what an earlier export tells."""
    with earlier.open("rb") as before:
        held = check(lines(before), key, progress=progress.tell)
    if not held.good:
        raise Failure(
            f"the earlier export does not hold itself, so nothing can be compared with it: bas audit verify {earlier}"
        )
    with file.open("rb") as now, earlier.open("rb") as before:
        found = first_difference(lines(now), lines(before), str(earlier))
    if found is None:
        report.compared.append(f"{earlier} ({held.tree_size} entries)")
    else:
        report.add(found)
        report.findings.sort(key=lambda finding: finding.line or 1 << 62)


def _key(file: Path, given: str | None, tenant: str | None) -> Key:
    if given is not None:
        key = _given(given)
        if tenant is not None and not key.name.endswith(f"/audit/{tenant}"):
            raise misuse(
                f"the key is that of {key.name}, not of the tenant {tenant}: leave out --tenant, or name its key."
            )
        return key
    config = load(os.environ)
    if not key_path(config).exists():
        raise misuse(
            "a key is needed to verify with: name it with --key (`bas audit key` prints it where the platform is). The"
            " file's own word is not taken for it."
        )
    return _local(config, file, tenant)


def _local(config: Config, file: Path, tenant: str | None) -> Key:
    """The key of the platform here. Which of its logs it is, the file may say: the signature has to agree."""
    if tenant is not None:
        return local_key(config, tenant)[1]
    with file.open("rb") as opened:
        origin = origin_in(next(lines(opened), b""))
    _, _, named = origin.rpartition("/audit/")
    return local_key(config, named if _TENANT.fullmatch(named) else "unknown")[1]


def _given(text: str) -> Key:
    if "+" not in text or Path(text).is_file():
        try:
            with Path(text).open("rb") as opened:
                text = opened.read(MOST_BYTES).decode("utf-8", "replace")
        except OSError as problem:
            raise misuse(f"the --key file {text} cannot be read ({problem.strerror}).") from None
    try:
        return parse_key(text)
    except BadNote as problem:
        raise misuse(f"--key {problem}.") from None


def _older(path: Path, key: Key) -> Older:
    try:
        with path.open("rb") as opened:
            note = parse(opened.read(MOST_BYTES).decode("utf-8", "replace"))
        verify(note, key)
    except BadNote as problem:
        raise misuse(f"--checkpoint {path} {problem}.") from None
    return Older(note, path.name)
