"""`/api/v1/docs`: the operations for people, as one page without scripts or anything from elsewhere. Pure."""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import Final

from pydantic import BaseModel

from control_plane.api.operation import PREFIX, Operation

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code{background:#8882;padding:.1em .3em}table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;vertical-align:top;padding:.2rem .6rem .2rem 0;border-bottom:1px solid #8883}"
    "summary{cursor:pointer;margin:.6rem 0}:root{color-scheme:light dark}"
)


def page(operations: Sequence[Operation]) -> str:
    """The page."""
    return "".join(_parts(operations))


def _parts(operations: Sequence[Operation]) -> Iterator[str]:
    yield (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Tollgate API</title><style>{_STYLE}</style><h1>Tollgate API</h1>"
        "<p>Send <code>Authorization: Bearer ...</code> with an access token or a machine token. Refusals are "
        "<code>application/problem+json</code>. Lists take <code>limit</code> and <code>cursor</code>. What can change "
        "has an <code>ETag</code>; send it back as <code>If-Match</code>. A POST with an <code>Idempotency-Key</code> is "
        "done once in 24 hours. With <code>?dry_run=true</code> nothing is kept. The same for programs: "
        "<a href=openapi.json>openapi.json</a>.</p>"
    )
    for tag, members in groupby(sorted(operations, key=lambda operation: operation.tag), lambda each: each.tag):
        yield f"<h2>{escape(tag)}</h2>"
        for operation in members:
            yield (
                f"<details id={escape(operation.name)}><summary><code>{operation.method} {PREFIX}"
                f"{escape(operation.path)}</code> {escape(operation.summary)}</summary>"
                f"<p>Needs: <code>{escape(operation.access)}</code>. Answers {operation.status}.</p>"
            )
            yield from _table("Query", operation.query)
            yield from _table("Body", operation.body)
            yield from _table("Answer", operation.answer)
            yield "</details>"


def _table(title: str, model: type[BaseModel] | None) -> Iterator[str]:
    if model is None:
        return
    yield f"<table><tr><th>{title}<th>required<th>meaning"
    for name, field in model.model_fields.items():
        required = "yes" if field.is_required() else ""
        yield f"<tr><td><code>{escape(name)}</code><td>{required}<td>{escape(field.description or '')}"
    yield "</table>"
