"""The documentation page: the operations of an OpenAPI document as one HTML file that loads nothing."""

import json
from html import escape
from typing import Any, Final

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}"
    "code{font:14px ui-monospace,monospace}details{border:1px solid #d0d7de;border-radius:6px;margin:.4rem 0;padding:.4rem .8rem}"
    "summary{cursor:pointer}.m{display:inline-block;width:4.5rem;font-weight:600}.d{white-space:pre-wrap;color:#57606a}"
    "@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}details{border-color:#30363d}.d{color:#9198a1}}"
)


def docs_page(document: bytes) -> bytes:
    """The page of the OpenAPI document given as JSON."""
    api = json.loads(document)
    by_tag: dict[str, list[str]] = {tag["name"]: [] for tag in api["tags"]}
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            by_tag[operation["tags"][0]].append(_operation(method.upper(), path, operation))
    sections = "".join(
        f"<h2>{escape(tag['name'])}</h2><p>{escape(tag['description'])}</p>{''.join(by_tag[tag['name']])}"
        for tag in api["tags"]
    )
    schemes = "".join(
        f"<li><code>{escape(name)}</code>: {escape(scheme['description'])}</li>"
        for name, scheme in api["components"]["securitySchemes"].items()
    )
    title = escape(api["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{title} API</h1><p>{escape(api['info']['description'])} "
        f'The same for programs: <a href="/openapi.json">openapi.json</a>.</p><h2>Credentials</h2><p>One of:</p>'
        f"<ul>{schemes}</ul>{sections}</body></html>"
    ).encode()


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<li><code>{escape(each['name'])}</code> ({escape(each['in'])}): {escape(each['description'])}</li>"
        for each in operation["parameters"]
        if "name" in each
    )
    return (
        f'<details><summary><span class="m">{method}</span><code>{escape(path)}</code> '
        f"{escape(operation['summary'])}</summary>"
        f'<p class="d">{escape(operation["description"])}</p><ul>{rows}</ul></details>'
    )
