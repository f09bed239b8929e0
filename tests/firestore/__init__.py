"""The parts of the wire-level stand-in for Firestore; `tests/firestore_server.py` is its front and says what it holds."""
