"""firestore.indexes.json of all services: `python tools/indexes.py` writes it, `--check` fails when it is not up to date."""

import argparse
import json
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "gen")]

from chassis.store.firestore_indexes import definition  # noqa: E402 - after the path
from launcher.store import schema_of  # noqa: E402 - as above
from launcher.targets import SERVICES  # noqa: E402 - as above

TARGET: Final = ROOT / "firestore.indexes.json"


def text() -> str:
    """What the file has to be."""
    return json.dumps(definition({name: schema_of(name) for name in SERVICES}), indent=2) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when the file is not up to date")
    if parser.parse_args().check:
        if TARGET.read_text(encoding="utf-8") == text():
            return 0
        print("firestore.indexes.json is not what the services declare: run python tools/indexes.py", file=sys.stderr)
        return 1
    TARGET.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
