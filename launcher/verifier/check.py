"""Whether an export is what was signed, and where it is not: one pass over its lines, in memory that does not grow.

Every leaf is computed from what its line says, and the root from the leaves. A line also states its leaf's hash. Which of
an altered line's two halves is the altered one shows at the end: a second tree, of the stated hashes, is kept from the
first line on where they differ, and one of the two may have the root that was signed.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final

from launcher.verifier.entry import MOST_BYTES, BadLine, Read, State, read
from launcher.verifier.note import BadNote, Key, Note, parse, verify
from launcher.verifier.report import Finding, Report
from launcher.verifier.tree import Tree

_EVERY: Final = 8192
_MOST_GAPS: Final = 1000

Progress = Callable[[int], None]
"""Told the number of lines that are done, every few thousand."""


@dataclass(frozen=True, slots=True)
class Older:
    """A checkpoint that was kept: its note, and what to call it."""

    note: Note
    name: str


@dataclass(slots=True)
class _Gap:
    """Sequences that did not come where they should have: from `first` to `last`, at `line`."""

    first: int
    last: int
    line: int
    instead: str


def check(
    lines: Iterable[bytes],
    key: Key,
    older: Sequence[Older] = (),
    progress: Progress = lambda _: None,
) -> Report:
    """Verify an export: first its checkpoint, then the entries. Never raises for what is in it."""
    return _Check(key, older, progress).run(lines)


class _Check:
    def __init__(self, key: Key, older: Sequence[Older], progress: Progress) -> None:
        self._key = key
        self._older = sorted(older, key=lambda each: each.note.size)
        self._progress = progress
        self._report = Report(key=str(key))
        self._note: Note | None = None
        self._line = 0
        self._next = 0
        """The sequence that is to come."""
        self._last = ""
        """The entry before."""
        self._garbage = 0
        """Lines since then that are no entries."""
        self._no_entries = 0
        """All of these, and the checkpoint."""
        self._gaps: list[_Gap] = []
        self._whole = True
        """Whether every leaf from the first on is there, so that there is a root to compare."""
        self._tree = Tree()
        self._stated: Tree | None = None
        self._agreed = 0
        """The size of the largest older checkpoint that agrees."""

    def run(self, lines: Iterable[bytes]) -> Report:
        unread = iter(lines)
        first = next(unread, b"")
        if self._checkpoint(first):
            self._line = self._no_entries = 1
        elif first:
            unread = chain((first,), unread)
        self._entries(unread)
        self._end()
        self._report.entries = self._line - self._no_entries
        self._report.findings.sort(key=lambda finding: finding.line or 1 << 62)
        return self._report

    def _checkpoint(self, line: bytes) -> bool:
        """Whether the line was meant to be the checkpoint."""
        report = self._report
        said = _checkpoint_of(line)
        if said is None:
            report.add(Finding("checkpoint", "the file does not begin with a checkpoint", 1))
            return False
        try:
            self._note = note = parse(said.get("note", ""))
        except (BadNote, TypeError, AttributeError) as problem:
            reason = problem if isinstance(problem, BadNote) else "is not a signed note"
            report.add(Finding("checkpoint", f"the checkpoint's note {reason}", 1))
            return True
        report.origin, report.tree_size, report.root = note.origin, note.size, _base64(note.root)
        try:
            verify(note, self._key)
        except BadNote as problem:
            report.add(Finding("checkpoint", f"the checkpoint {problem}", 1))
        stated = (said.get("origin"), str(said.get("treeSize")), said.get("rootHash"))
        for name, found, signed in zip(
            ("origin", "treeSize", "rootHash"), stated, (note.origin, str(note.size), report.root), strict=True
        ):
            if found != signed:
                report.add(Finding("checkpoint", f"the checkpoint's {name} is not what its note says", 1))
        return True

    def _entries(self, lines: Iterator[bytes]) -> None:
        tree, older = self._tree, iter([*self._older, None])
        mark = next(older)
        at = -1 if mark is None else mark.note.size
        for line in lines:
            self._line += 1
            if not self._line % _EVERY:
                self._progress(self._line)
            while self._next == at and mark is not None:
                self._compare(mark)
                mark = next(older)
                at = -1 if mark is None else mark.note.size
            try:
                entry = read(line.removesuffix(b"\n"))
            except BadLine as problem:
                self._bad(line, problem)
                continue
            if entry.fault is None and entry.sequence == self._next and self._stated is None and not self._garbage:
                tree.append(entry.leaf)
                self._next += 1
                self._last = entry.entry_id
                if entry.state is not State.WHOLE:
                    self._count(entry)
            else:
                self._odd(entry)
        while mark is not None:
            self._compare(mark)
            mark = next(older)

    def _count(self, entry: Read) -> None:
        if entry.state is State.ERASED:
            self._report.erased += 1
        elif entry.state is State.DROPPED:
            self._report.dropped += 1

    def _bad(self, line: bytes, problem: BadLine) -> None:
        self._garbage += 1
        self._no_entries += 1
        if len(line) >= MOST_BYTES:
            reason = "it is longer than any entry"
        elif line.endswith(b"\n"):
            reason = str(problem)
        else:
            reason = "the file ends in the middle of it"
        told = f"this is not entry {self._next}, which is expected here: {reason}"
        self._report.add(Finding("garbage", told, self._line, self._next))

    def _odd(self, entry: Read) -> None:
        """An entry that is not as it should be, or comes after one that was not."""
        if entry.sequence > self._next:
            self._jump(entry)
        elif entry.sequence < self._next:
            self._late(entry)
            return
        self._garbage = 0
        if entry.fault is not None:
            self._report.add(
                Finding("altered", f"{_name(entry)} {entry.fault.value}", self._line, entry.sequence, entry.entry_id)
            )
            if entry.leaf != entry.stated and self._stated is None:
                self._stated = self._tree.copy()
        self._tree.append(entry.leaf)
        if self._stated is not None:
            self._stated.append(entry.stated)
        self._next, self._last = entry.sequence + 1, entry.entry_id
        self._count(entry)

    def _jump(self, entry: Read) -> None:
        """Past sequences that are not there, unless they still come, or lines that are no entries are what is left of
        them."""
        self._whole = False
        first = self._next
        if entry.sequence - first > self._garbage and len(self._gaps) < _MOST_GAPS:
            self._gaps.append(_Gap(first + self._garbage, entry.sequence - 1, self._line, _name(entry)))
        elif entry.sequence - first > self._garbage:
            self._report.more += 1

    def _late(self, entry: Read) -> None:
        """An entry whose sequence is past."""
        self._count(entry)
        name = _name(entry)
        for gap in self._gaps:
            if gap.first <= entry.sequence <= gap.last:
                self._fill(gap, entry.sequence)
                told = f"{name} is out of order: it stands after entry {self._next - 1}{_id(self._last)}"
                self._report.add(Finding("out_of_order", told, self._line, entry.sequence, entry.entry_id))
                return
        if entry.entry_id and entry.entry_id == self._last and entry.sequence == self._next - 1:
            self._report.add(
                Finding("duplicate", f"{name} stands here twice", self._line, entry.sequence, entry.entry_id)
            )
            return
        told = f"{name} was inserted, renumbered or repeated: another entry {entry.sequence} stands before it"
        self._report.add(Finding("inserted", told, self._line, entry.sequence, entry.entry_id))

    def _fill(self, gap: _Gap, sequence: int) -> None:
        self._gaps.remove(gap)
        for first, last in ((gap.first, sequence - 1), (sequence + 1, gap.last)):
            if first <= last:
                self._gaps.append(_Gap(first, last, gap.line, gap.instead))

    def _compare(self, older: Older) -> None:
        """The tree as it is now with an older checkpoint; at the end, with what is larger than all there is."""
        size = older.note.size
        if not self._whole:
            message = f"{older.name} cannot be compared: entries before its size, {size}, are not in their places"
        elif size > self._next:
            message = (
                f"{older.name} is of {size} entries, and there are {self._next} here: the log was cut back, or this export"
                " is older"
            )
        elif self._tree.root() != older.note.root:
            after = f"after entry {self._agreed - 1}, " if self._agreed else ""
            message = (
                f"the log has another beginning than in {older.name}: {after}before entry {size}, something was altered,"
                " dropped, inserted or moved"
            )
        else:
            self._agreed = size
            self._report.compared.append(f"{older.name} ({size} entries)")
            return
        self._report.add(Finding("root", message))

    def _end(self) -> None:
        for gap in self._gaps:
            some = f"entry {gap.first} is" if gap.first == gap.last else f"entries {gap.first} to {gap.last} are"
            told = f"{some} missing: {gap.instead} comes instead"
            self._report.add(Finding("missing", told, gap.line, gap.first))
        if self._note is None:
            return
        size = self._note.size
        if self._next < size:
            cut = f"entries {self._next} to {size - 1} are" if self._next < size - 1 else f"entry {self._next} is"
            told = f"the end of the log was cut off: {cut} missing"
            self._report.add(Finding("cut", told, self._line + 1, self._next))
        elif self._next > size:
            told = (
                f"there are {self._next - size} entries after the {size} of the checkpoint, which it does not vouch for"
            )
            self._report.add(Finding("inserted", told, None, size))
        elif self._whole:
            self._roots(self._note)

    def _roots(self, note: Note) -> None:
        """All entries are there, each once: do they give the root that was signed?"""
        report, computed = self._report, self._tree.root()
        if computed == note.root:
            if self._stated is not None:
                report.hints.append(
                    "The entries give the root that was signed: it is only their leafHash that was altered."
                )
            return
        if self._stated is not None and self._stated.root() == note.root:
            report.hints.append(
                "The leaf hashes give the root that was signed: the entries named are what was altered."
            )
            return
        found = f"the log does not match the signed checkpoint: its entries give the root {_base64(computed)}"
        report.add(Finding("root", found))
        between = f" after entry {self._agreed - 1}" if self._agreed else ""
        report.hints.append(
            f"Entries were altered, moved or exchanged{between} together with their hashes, or the checkpoint is of another"
            " log, and this file cannot tell where: compare it with an export from before (--earlier) or with checkpoints"
            " that were kept (--checkpoint)."
        )


def first_difference(lines: Iterable[bytes], earlier: Iterable[bytes], name: str) -> Finding | None:
    """Where the export first differs from `name`, an earlier one that was verified itself; None where it begins with all
    of that."""
    ours, number = _leaves(lines), 1
    for theirs in _leaves(earlier):
        number += 1
        entry = next(ours, None)
        at = theirs.sequence
        if entry is None:
            told = f"entries from {at}{_id(theirs.entry_id)} on, which {name} has, are missing"
            return Finding("missing", told, number, at, theirs.entry_id)
        if isinstance(entry, BadLine):
            told = f"{_name(theirs)} is in {name}, and not here: {entry}"
            return Finding("garbage", told, number, at, theirs.entry_id)
        if entry.leaf != theirs.leaf or entry.sequence != at:
            other = f"{_name(theirs)} of {name} is not the one that is here{_id(entry.entry_id)}"
            told = f"{other}: it was altered, or another was put in its place"
            return Finding("altered", told, number, at, theirs.entry_id)
    return None


def _leaves(lines: Iterable[bytes]) -> Iterator[Any]:
    """Each line but the first as its entry, or as what is wrong with it."""
    for line in islice(lines, 1, None):
        try:
            yield read(line.removesuffix(b"\n"))
        except BadLine as problem:
            yield problem


def origin_in(line: bytes) -> str:
    """The log that the first line of an export claims to be of; empty where it claims nothing. Nothing is verified."""
    said = _checkpoint_of(line)
    try:
        return parse((said or {}).get("note", "")).origin
    except (BadNote, TypeError, AttributeError):
        return ""


def _checkpoint_of(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    said = found.get("checkpoint") if isinstance(found, dict) and len(found) == 1 else None
    return said if isinstance(said, dict) else None


def _name(entry: Read) -> str:
    return f"entry {entry.sequence}{_id(entry.entry_id)}"


def _id(entry_id: str) -> str:
    return f" ({entry_id})" if entry_id else ""


def _base64(raw: bytes) -> str:
    return b64encode(raw).decode()
