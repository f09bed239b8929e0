"""`python -m tests.conformance.store.indexes`: firestore.indexes.json for a database that `make test-firestore` runs on."""

import json

from chassis.store.firestore_indexes import definition
from launcher.store import schema_of
from launcher.targets import SERVICES
from tests.conformance.store.backend import SCHEMA

if __name__ == "__main__":
    print(json.dumps(definition({"": SCHEMA} | {name: schema_of(name) for name in SERVICES}), indent=2))  # noqa: T201
