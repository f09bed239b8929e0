"""The verifier, which has no code of the audit service, understands what the service's own code writes."""

from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st

from bas.audit.v2.audit_pb2 import Checkpoint, Entry
from bas.audit.v2.audit_service_pb2 import ExportedEntry, ExportEntriesResponse
from gateway.transcoding.codec import load_codec
from launcher.verifier.check import check
from launcher.verifier.entry import State, _read_in_full, read
from launcher.verifier.note import parse_key
from launcher.verifier.tree import Tree
from services.audit.leaf import leaf_of, personal_hash
from services.audit.note import Signer

RESPONSE = load_codec(["bas/audit/v2/audit.proto", "bas/audit/v2/audit_service.proto"])[
    "bas.audit.v2.ExportEntriesResponse"
]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
odd = st.sampled_from(["", "ann", 'q"\\/', "\u2028\x7f", "é", "\U0001f600", "\ufffd", "\n", "<&>"])
words = odd | texts


@st.composite
def exported(draw: st.DrawFn) -> ExportedEntry:
    entry = Entry(
        entry_id=draw(words),
        sequence=draw(st.integers(0, 2**62)),
        idempotency_key=draw(words),
        action=draw(words),
        outcome=draw(st.sampled_from([1, 2, 3])),  # type: ignore[arg-type]
        reason=draw(words),
        metadata=draw(st.dictionaries(words, words, max_size=4)),
        request_id=draw(words),
    )
    entry.actor.subject, entry.actor.session_id, entry.actor.ip = draw(words), draw(words), draw(words)
    entry.resource.type, entry.resource.id = draw(words), draw(words)
    entry.occur_time.FromMicroseconds(draw(st.integers(0, 2**50)))
    entry.occur_time.nanos = draw(st.sampled_from([0, 1, 1000, 10**6, 999_999_999]))
    entry.record_time.FromMicroseconds(draw(st.integers(0, 2**50)))
    salt = draw(st.binary(min_size=16, max_size=33))
    personal = personal_hash(salt, entry.actor)
    return ExportedEntry(
        entry=entry,
        personal_salt=salt,
        personal_hash=personal,
        leaf_hash=leaf_of(entry, personal),
        cursor="c",
    )


def line(record: ExportedEntry) -> bytes:
    return RESPONSE.from_binary(ExportEntriesResponse(entry=record).SerializeToString()).json()


@settings(max_examples=80, deadline=None)
@given(exported())
def test_every_entry_is_read_as_it_was_hashed(record: ExportedEntry) -> None:
    found = read(line(record))
    assert (found.leaf, found.stated, found.fault) == (record.leaf_hash, record.leaf_hash, None)
    assert (found.sequence, found.entry_id, found.state) == (record.entry.sequence, record.entry.entry_id, State.WHOLE)
    assert found == _read_in_full(line(record))
    record.entry.ClearField("actor")
    record.personal_salt = b""
    assert read(line(record)) == found._replace(state=State.ERASED)
    record.entry.CopyFrom(Entry(sequence=record.entry.sequence))
    record.personal_hash = b""
    assert read(line(record)) == found._replace(state=State.DROPPED, entry_id="")


@settings(max_examples=60, deadline=None)
@given(exported(), st.data())
def test_the_quick_way_says_what_the_full_one_says(record: ExportedEntry, data: st.DataObject) -> None:
    text = bytearray(line(record))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] ^= 1 << data.draw(st.integers(0, 7))
    assert _outcome(read, bytes(text)) == _outcome(_read_in_full, bytes(text))


def _outcome(reader: object, text: bytes) -> object:
    try:
        return reader(text)  # type: ignore[operator]
    except ValueError as problem:
        return str(problem)


def test_a_whole_log() -> None:
    signer, tree, lines = Signer(sha256(b"seed").digest()), Tree(), []
    for number in range(300):
        entry = Entry(entry_id=f"e{number}", sequence=number, idempotency_key=f"k{number}", action="a", outcome=1)  # type: ignore[arg-type]
        entry.actor.subject, entry.resource.type = "ann", "device"
        entry.occur_time.FromJsonString("2026-01-02T03:04:05.678Z")
        entry.record_time.FromJsonString("2026-01-02T03:04:06Z")
        personal = personal_hash(b"s" * 32, entry.actor)
        leaf = leaf_of(entry, personal)
        tree.append(leaf)
        lines.append(
            line(
                ExportedEntry(entry=entry, personal_salt=b"s" * 32, personal_hash=personal, leaf_hash=leaf, cursor="c")
            )
        )
    checkpoint = Checkpoint(
        origin="bas/audit/acme",
        tree_size=300,
        root_hash=tree.root(),
        note=signer.note("bas/audit/acme", 300, tree.root()),
    )
    head = RESPONSE.from_binary(ExportEntriesResponse(checkpoint=checkpoint).SerializeToString()).json()
    report = check([head, *lines], parse_key(signer.verifier_key("bas/audit/acme")))
    assert report.good, list(report.lines("the log"))
    assert report.entries == 300
