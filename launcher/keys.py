"""The key file: made by the platform that uses it, read by those who talk to it."""

import os

from chassis.auth.keys import KeySet, load, load_or_create
from chassis.config import Config
from launcher.failure import misuse
from launcher.targets import key_path


def make(config: Config) -> KeySet:
    """The keys, made if there are none yet. Raises KeyFileError."""
    return load_or_create(key_path(config), os.urandom)


def existing(config: Config) -> KeySet:
    """The keys of a platform that has run before. Raises Failure (2) when there are none, KeyFileError when damaged."""
    file = key_path(config)
    if not file.exists():
        raise misuse(
            f"there are no keys at {file}: start the platform first (`bas up` makes them), run this in its folder, "
            "or name its data folder in BAS_DATA_DIR."
        )
    return load(file)
