"""Notes and keys, held to C2SP's own examples and to what the audit service writes."""

import pytest

from launcher.verifier.note import BadNote, parse, parse_key, verify
from services.audit.note import Signer, origin_of
from tests.support import audit_export as export

PUBLISHED_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
"""Of the Go project's documentation of signed notes, where it is an example."""


def test_a_published_key() -> None:
    key = parse_key(PUBLISHED_KEY)
    assert (key.name, key.key_id.hex()) == ("PeterNeumann", "c74f20a3")


def test_what_the_audit_service_signs() -> None:
    signer, origin = Signer(bytes(32)), origin_of("bas", "acme")
    key = parse_key(signer.verifier_key(origin))
    note = parse(signer.note(origin, 7, b"r" * 32))
    verify(note, key)
    assert (note.origin, note.size, note.root) == (origin, 7, b"r" * 32)


def test_further_lines_and_further_signatures() -> None:
    key = export.LogKey()
    text = f"{key.origin}\n1\n{export.base64(b'r' * 32)}\nan extension\n"
    ours = export.base64(key.id + key.private.sign(text.encode()))
    note = parse(f"{text}\n— witness AAAAAAAA\n— {key.origin} {ours}\n")
    verify(note, parse_key(key.vkey))
    with pytest.raises(BadNote, match="does not fit"):
        verify(parse(f"{text}\n— {key.origin} {export.base64(key.id + bytes(64))}\n"), parse_key(key.vkey))
    with pytest.raises(BadNote, match="another key"):
        verify(parse(f"{text}\n— witness AAAAAAAA\n"), parse_key(key.vkey))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acme",
        "a+b",
        "a+00000000+AAAA",
        PUBLISHED_KEY.replace("c74", "c75"),
        "a b+c74f20a3+ARpc",
        PUBLISHED_KEY[:-4],
    ],
)
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(BadNote):
        parse_key(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n1\n",
        "a\n01\n" + "A" * 43 + "=\n\n— a AAAA\n",
        "a\n1\nAAAA\n\n— a AAAA\n",
        "a\n1\n" + "A" * 43 + "=\n\n- a AAAA\n",
        "a\n1\n" + "A" * 43 + "=\n\n— a A\n",
        "a\n1\n" + "A" * 43 + "=\n\n— a AAAA",
        "\n1\n" + "A" * 43 + "=\n\n— a AAAA\n",
        "a\n1\n" + "A" * 43 + "=\n" + "x" * 70_000 + "\n\n— a AAAA\n",
    ],
)
def test_what_is_no_checkpoint(text: str) -> None:
    with pytest.raises(BadNote):
        parse(text)
