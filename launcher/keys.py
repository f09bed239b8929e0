"""Where the key file is, and its making."""

import os
from pathlib import Path

from chassis.auth.keys import KeySet, load, load_or_create
from chassis.config import Config
from launcher.failure import misuse


def path(config: Config) -> Path:
    """`BAS_AUTH_KEYS`, or keys.json in the data folder."""
    return Path(config.auth.keys) if config.auth.keys else Path(config.data.dir) / "keys.json"


def make(config: Config) -> KeySet:
    """The keys, made if there are none yet. Raises KeyFileError."""
    return load_or_create(path(config), os.urandom)


def existing(config: Config) -> KeySet:
    """The keys of a platform that has run before. Raises Failure (2) when there are none, KeyFileError when damaged."""
    file = path(config)
    if not file.exists():
        raise misuse(
            f"there are no keys at {file}: start the platform first (`bas up` makes them), run this in its folder, "
            "or name its data folder in BAS_DATA_DIR."
        )
    return load(file)
