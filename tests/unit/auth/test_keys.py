import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chassis.auth import keys
from chassis.auth.keys import KeyFileError
from chassis.config import ConfigError


def test_a_missing_file_is_made_private_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "data" / "keys.json"
    made = keys.load_or_create(path, os.urandom)
    again = keys.load_or_create(path, os.urandom)
    assert made.signing is not None
    assert again.signing is not None
    assert made.signing.kid == again.signing.kid
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["keys.json"]


def test_processes_that_start_at_once_end_with_the_same_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with ThreadPoolExecutor(8) as pool:
        sets = list(pool.map(lambda _: keys.load_or_create(path, os.urandom), range(16)))
    assert len({made.signing.kid for made in sets if made.signing}) == 1
    assert len({made.secret("x") for made in sets}) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"keys": [{"kty": "OKP", "crv": "Ed255',
        b"null",
        b"[]",
        b'{"keys": 7}',
        b'{"keys": [7]}',
        b'{"keys": []}',
        b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "AAAA"}]}',
        b'{"keys": [{"kty": "oct", "k": "AAAA"}]}',
        b"[" * 100_000,
        b"\xff\xfe garbage",
        b" " * 300_000,
    ],
)
def test_a_damaged_file_is_refused_by_name_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match="BAS_AUTH_KEYS") as refused:
        keys.load_or_create(path, os.urandom)
    assert str(path) in str(refused.value)
    assert isinstance(refused.value, ConfigError)
    assert path.read_bytes() == content


def test_every_truncation_of_a_good_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys.load_or_create(path, os.urandom)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        with pytest.raises(KeyFileError):
            keys.parse(whole[:length], "here")


def test_a_private_half_of_another_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys.load_or_create(path, os.urandom)
    keys.rotate(path, os.urandom)
    content = json.loads(path.read_text())
    content["keys"][1]["d"], content["keys"][2]["d"] = content["keys"][2]["d"], content["keys"][1]["d"]
    with pytest.raises(KeyFileError):
        keys.parse(json.dumps(content).encode(), "here")


def test_a_folder_that_cannot_be_written_names_the_settings(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(KeyFileError, match="BAS_DATA_DIR"):
        keys.load_or_create(tmp_path / "file" / "keys.json", os.urandom)


def test_a_path_that_is_a_folder_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="BAS_AUTH_KEYS"):
        keys.load(tmp_path)


def test_after_a_rotation_the_new_key_signs_and_all_verify(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    before = keys.load_or_create(path, os.urandom)
    after = keys.rotate(path, os.urandom)
    assert before.signing is not None
    assert after.signing is not None
    assert after.signing.kid != before.signing.kid
    assert set(after.verifying) == {before.signing.kid, after.signing.kid}
    assert after.secret("cursors") == before.secret("cursors")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_rotations_at_once_lose_no_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys.load_or_create(path, os.urandom)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: keys.rotate(path, os.urandom), range(8)))
    assert len(keys.load(path).verifying) == 9


def test_public_keys_verify_but_neither_sign_nor_give_secrets(tmp_path: Path) -> None:
    private = keys.load_or_create(tmp_path / "keys.json", os.urandom)
    text = json.dumps(keys.public_jwks(private))
    assert '"d"' not in text
    assert "oct" not in text
    public = keys.parse(text.encode(), "public.json")
    assert public.signing is None
    assert set(public.verifying) == set(private.verifying)
    with pytest.raises(KeyFileError, match="BAS_AUTH_KEYS"):
        public.secret("cursors")


def test_secrets_differ_by_purpose_and_deployment(tmp_path: Path) -> None:
    one = keys.load_or_create(tmp_path / "one.json", os.urandom)
    two = keys.load_or_create(tmp_path / "two.json", os.urandom)
    assert len({one.secret("a"), one.secret("b"), two.secret("a")}) == 3
    assert len(one.secret("a")) == 32
    assert one.secret("a") == one.secret("a")


def test_keys_do_not_show_themselves(tmp_path: Path) -> None:
    made = keys.load_or_create(tmp_path / "keys.json", os.urandom)
    assert made.deployment_secret is not None
    assert repr(made.deployment_secret) not in repr(made)
