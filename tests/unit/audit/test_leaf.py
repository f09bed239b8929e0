"""Leaves as anybody can compute them from an exported line, and signed notes."""

import json
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Any

from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from bas.audit.v2.audit_pb2 import OUTCOME_DENIED, OUTCOME_SUCCESS, Actor, Entry, Resource
from chassis.clock import FakeClock
from gateway.module import load_schema
from gateway.transcoding.codec import load_codec
from launcher.verifier import note as verifier
from services.audit.entry import entry_id_of, recorded, same
from services.audit.leaf import canonical, leaf_of, personal_hash
from services.audit.note import Signer, origin_of

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20)
CODEC = load_codec(load_schema().files)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    entry = Entry(
        entry_id="e1",
        idempotency_key=draw(TEXT),
        actor=Actor(subject=draw(TEXT), session_id=draw(TEXT), ip=draw(st.sampled_from(["", "::1"]))),
        action=draw(TEXT),
        resource=Resource(type=draw(TEXT), id=draw(TEXT)),
        outcome=draw(st.sampled_from([OUTCOME_SUCCESS, OUTCOME_DENIED])),
        reason=draw(TEXT),
        metadata=draw(st.dictionaries(TEXT, TEXT, max_size=4)),
        request_id=draw(TEXT),
    )
    for time in (entry.occur_time, entry.record_time):
        time.seconds = draw(st.integers(-62135596800, 253402300799))
        time.nanos = draw(st.one_of(st.sampled_from([0, 5_000_000, 123_456_000]), st.integers(0, 999_999_999)))
    return entry


def jcs(value: Any) -> str:
    """RFC 8785 of texts and objects, by its own words."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{jcs(name)}:{jcs(value[name])}" for name in names) + "}"
    return json.dumps(value, ensure_ascii=False)


def expected(shown: dict[str, Any], personal: bytes) -> bytes:
    """What docs/audit.md says of an entry as the API shows it."""
    public = {name: value for name, value in shown.items() if name not in {"actor", "sequence"}}
    return jcs(public | {"personalHash": b64encode(personal).decode()}).encode()


@settings(max_examples=50)
@given(entries(), st.binary(min_size=32, max_size=32))
def test_a_leaf_is_what_the_api_shows(entry: Entry, salt: bytes) -> None:
    personal = personal_hash(salt, entry.actor)
    entry.sequence = 7
    shown = json_format.MessageToDict(entry, always_print_fields_with_no_presence=True)
    assert canonical(entry, personal) == expected(shown, personal)
    assert leaf_of(entry, personal) == sha256(b"\0" + expected(shown, personal)).digest()
    assert personal == sha256(salt + jcs(shown["actor"]).encode()).digest()
    gateway = json.loads(CODEC["bas.audit.v2.Entry"].from_binary(entry.SerializeToString()).json())
    assert canonical(entry, personal) == expected(gateway, personal)


def test_a_leaf_of_known_bytes() -> None:
    """The form is for ever: entries of earlier releases have it."""
    entry = Entry(idempotency_key="k", action="a.b", outcome=OUTCOME_SUCCESS, metadata={"é": '"', "b": "", "a": "\\"})
    entry.occur_time.FromJsonString("2026-01-02T03:04:05.123Z")
    stored = recorded("acme", entry, FakeClock().now())
    assert canonical(stored, bytes(32)).decode() == (
        '{"action":"a.b","entryId":"ac7480cf8cdd310d53722389ff2918bf","idempotencyKey":"k",'
        '"metadata":{"a":"\\\\","b":"","é":"\\""},"occurTime":"2026-01-02T03:04:05.123Z","outcome":"OUTCOME_SUCCESS",'
        '"personalHash":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","reason":"",'
        '"recordTime":"2026-01-01T00:00:00Z","requestId":"","resource":{"id":"","type":""}}'
    )


def test_ids_are_of_tenant_and_key() -> None:
    assert entry_id_of("acme", "k") == entry_id_of("acme", "k")
    assert len({entry_id_of(*each) for each in (("acme", "k"), ("acme", "k2"), ("acmek", ""), ("b", "k"))}) == 4


def test_what_is_the_same_entry() -> None:
    given_ = Entry(idempotency_key="k", action="a", actor=Actor(subject="ann"), metadata={"x": "1", "y": "2"})
    first = recorded("acme", given_, FakeClock().now())
    assert same(first, given_)
    assert same(first, first), "an answer, sent back"
    for name, value in (("action", "b"), ("reason", "x"), ("request_id", "r")):
        other = Entry()
        other.CopyFrom(given_)
        setattr(other, name, value)
        assert not same(first, other)
    stranger = Entry()
    stranger.CopyFrom(given_)
    stranger.actor.subject = "bob"
    assert not same(first, stranger)
    first.ClearField("actor")
    assert same(first, given_)
    assert same(first, stranger), "what was erased cannot be told apart"


@settings(max_examples=20)
@given(st.integers(0, 2**40), st.binary(min_size=32, max_size=32))
def test_notes_are_read_by_the_verifier(size: int, root: bytes) -> None:
    signer = Signer(bytes(32))
    origin = origin_of("bas", "acme")
    note = verifier.parse(signer.note(origin, size, root))
    assert (note.origin, note.size, note.root) == ("bas/audit/acme", size, root)
    verifier.verify(note, verifier.parse_key(signer.verifier_key(origin)))
    name, key_id, public = signer.verifier_key(origin).split("+", 2)
    assert (name, len(key_id), b64decode(public)[0]) == (origin, 8, 1)


def test_origins_are_names_that_notes_can_have() -> None:
    assert origin_of("https://id.example/a b+c", "t1") == "https://id.example/a%20b%2Bc/audit/t1"
