"""What was found out about an export, and how it is told."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

MOST_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not hold. `line` is that of the file, from 1; `sequence` and `entry_id` are of the entry, as far
    as it is known which."""

    kind: str
    """`checkpoint`, `altered`, `missing`, `out_of_order`, `duplicate`, `inserted`, `garbage`, `cut` or `root`."""
    message: str
    line: int | None = None
    sequence: int | None = None
    entry_id: str = ""

    def __str__(self) -> str:
        return self.message if self.line is None else f"line {self.line}: {self.message}"


@dataclass(slots=True)
class Report:
    """`good` only when everything holds that was looked at."""

    origin: str = ""
    key: str = ""
    tree_size: int = 0
    root: str = ""
    """Base64, as in the checkpoint."""
    entries: int = 0
    """Lines with an entry."""
    erased: int = 0
    dropped: int = 0
    compared: list[str] = field(default_factory=list)
    """What else it agrees with: older checkpoints, an earlier export."""
    findings: list[Finding] = field(default_factory=list)
    more: int = 0
    """Findings beyond those."""
    hints: list[str] = field(default_factory=list)
    """What the findings mean, and what to do next."""

    @property
    def good(self) -> bool:
        return not self.findings

    def add(self, finding: Finding) -> None:
        if len(self.findings) < MOST_SHOWN:
            self.findings.append(finding)
        else:
            self.more += 1

    def lines(self, name: str) -> Iterator[str]:
        """For a person: the verdict on `name` first."""
        yield f"{name}: {'verified' if self.good else 'NOT VERIFIED'}"
        for finding in self.findings:
            yield f"  {finding}"
        if self.more:
            yield f"  … and {self.more} more"
        for hint in self.hints:
            yield f"  {hint}"
        if self.origin:
            yield f"  log      {self.origin}"
        if self.key:
            yield f"  key      {self.key}"
        gone = [
            f"{count} {what}" for count, what in ((self.erased, "erased"), (self.dropped, "dropped by age")) if count
        ]
        held = f" ({', '.join(gone)}: known by their hashes)" if gone else ""
        yield f"  entries  {self.entries} of {self.tree_size}{held}"
        if self.root:
            yield f"  root     {self.root}"
        for other in self.compared:
            yield f"  agrees   with {other}"

    def json(self) -> dict[str, Any]:
        """For a program."""
        return {
            "verified": self.good,
            "origin": self.origin,
            "key": self.key,
            "treeSize": self.tree_size,
            "rootHash": self.root,
            "entries": self.entries,
            "erased": self.erased,
            "dropped": self.dropped,
            "agreesWith": self.compared,
            "findings": [
                {
                    "kind": each.kind,
                    "message": each.message,
                    "line": each.line,
                    "sequence": each.sequence,
                    "entryId": each.entry_id,
                }
                for each in self.findings
            ],
            "moreFindings": self.more,
            "hints": self.hints,
        }
