"""`/api/v1/docs`: the OpenAPI document for people, as one page without scripts or anything from elsewhere."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any, Final
from urllib.parse import urlencode

from control_plane.accounts.permissions import PERMISSIONS_BY_ROLE, PLATFORM, Permission, Role
from control_plane.api.json_example import example
from control_plane.api.openapi import Document

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code{background:#8882;padding:.1em .3em}table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;vertical-align:top;padding:.2rem .6rem .2rem 0;border-bottom:1px solid #8883}"
    "pre{background:#8882;padding:.6em;overflow-x:auto}pre code{background:none;padding:0}"
    "summary{cursor:pointer;margin:.6rem 0}:root{color-scheme:light dark}"
)

_JSON: Final = "application/json"

_GATEWAY: Final = (
    "<h2 id=gateway>The gateway</h2><p>Where a key is used: <code>$TOLLGATE_GATEWAY</code>, another port than this. It speaks OpenAI's "
    "<code>POST /v1/chat/completions</code> and <code>GET /v1/models</code> and Anthropic's <code>POST /v1/messages</code>, streamed or not, and others; "
    "the key goes into <code>Authorization: Bearer</code> or <code>x-api-key</code>, as the SDKs send it.</p>"
    "<pre><code>curl $TOLLGATE_GATEWAY/v1/chat/completions -H &quot;Authorization: Bearer $KEY&quot; -H &#x27;Content-Type: application/json&#x27; "
    "-d &#x27;{&quot;model&quot;: &quot;gpt-4o-mini&quot;, &quot;messages&quot;: [{&quot;role&quot;: &quot;user&quot;, &quot;content&quot;: "
    "&quot;Hello&quot;}]}&#x27;</code></pre><table><tr><th>header<th>what it says"
    "<tr><td><code>x-request-id</code><td>of the answer: the id of its receipt, <code>/receipts/{request_id}</code>"
    "<tr><td><code>x-tollgate-cost: true</code><td>of a request: answer with what it costs, in a header of that name; not for streams"
    "<tr><td><code>x-tollgate-max-tokens</code><td>of an answer: it was made no longer than that, because balance or budget cover no more"
    "<tr><td><code>x-ratelimit-limit-requests</code>, <code>-remaining-</code>, <code>-reset-</code>; <code>-tokens</code><td>of an answer to a key "
    "with such limits: the most in a minute, what is left of it, and when some of what is used no longer counts"
    "<tr><td><code>retry-after</code><td>of a 429: in how many seconds to ask again"
    "<tr><td><code>x-should-retry: false</code><td>of a refusal: asking again is no use</table>"
    "<p>Refusals have OpenAI's form on every path. 401 <code>invalid_api_key</code>; 402 <code>insufficient_quota</code> and "
    "<code>budget_exceeded</code>; 403 <code>model_not_allowed</code> and <code>address_not_allowed</code>; 404 <code>model_not_found</code>; 429 "
    "<code>budget_held</code> while running requests hold what is left of a budget, and <code>rate_limit_exceeded</code> "
    "beyond a limit of the key; 503 "
    "while something of ours is away.</p><p>Besides, on this server: <code>/.well-known/jwks.json</code> with the keys that access tokens are "
    "signed with, and <code>POST /webhooks/stripe</code> for Stripe's events.</p>"
)

Schema = Mapping[str, Any]


def page(document: Document) -> str:
    """The page of an OpenAPI document that `openapi.py` made."""
    return "".join(_Page(document).parts())


class _Page:
    def __init__(self, document: Schema) -> None:
        self._schemas: Schema = document["components"]["schemas"]
        self._operations = [
            (method, path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ]

    def parts(self) -> Iterator[str]:
        yield (
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
            f"<title>Tollgate API</title><style>{_STYLE}</style><h1>Tollgate API</h1>"
            "<p>Send <code>Authorization: Bearer ...</code> with an access token or a machine token. Refusals are "
            "<code>application/problem+json</code>. Lists take <code>limit</code> and <code>cursor</code>. What can change "
            "has an <code>ETag</code>; send it back as <code>If-Match</code>. A POST with an <code>Idempotency-Key</code> is "
            "done once in 24 hours. With <code>?dry_run=true</code> nothing is kept, and the answer has the header "
            "<code>X-Tollgate-Dry-Run</code>. The same for programs: <a href=openapi.json>openapi.json</a>. In the examples, "
            "<code>$TOLLGATE_SERVER</code> is this server, as <code>tollgate env</code> sets it, <code>$ORG</code> the id of your "
            "organisation, and <code>$TOKEN</code> what you log in with; where <code>platform:</code> is needed, an operator's. A change of "
            "the catalogue answers 202 with an operation: ask <code>/operations/{id}</code> with <code>wait_ms</code> until it is "
            "<code>applied</code>.</p>"
        )
        by_tag = sorted(self._operations, key=lambda each: str(each[2]["tags"][0]))
        tags = [(tag, [*members]) for tag, members in groupby(by_tag, lambda each: str(each[2]["tags"][0]))]
        contents = [
            ("the gateway", "gateway"),
            *((tag, f"tag-{tag}") for tag, _ in tags),
            ("roles", "roles"),
            ("shapes", "shapes"),
        ]
        yield f"<nav>{' '.join(f'<a href=#{escape(anchor)}>{escape(name)}</a>' for name, anchor in contents)}</nav>"
        yield _GATEWAY
        for tag, members in tags:
            yield f"<h2 id=tag-{escape(tag)}>{escape(tag)}</h2>"
            for method, path, operation in members:
                yield from self._operation(method.upper(), path, operation)
        yield from _roles()
        yield "<h2 id=shapes>Shapes</h2>"
        for name, schema in sorted(self._schemas.items()):
            yield f"<details id={_anchor(name)}><summary><code>{escape(name)}</code></summary>"
            yield from self._shape(schema)
            yield "</details>"

    def _operation(self, method: str, path: str, operation: Schema) -> Iterator[str]:
        success = next(status for status in operation["responses"] if status[0] in "23")
        yield (
            f"<details id={escape(operation['operationId'])}><summary><code>{method} {escape(path)}</code> "
            f"{escape(operation['summary'])}</summary><p>{escape(operation['description'])} Answers {success}.</p>"
        )
        body = self._content(operation.get("requestBody", {}))
        yield f"<pre><code>{escape(self._curl(method, path, operation, body))}</code></pre>"
        parameters = [each for each in operation["parameters"] if each["in"] != "path"]
        yield from self._table("Query, headers", [(each["name"], each, each["required"]) for each in parameters])
        yield from self._fields("Body", body)
        for media_type, content in operation["responses"][success].get("content", {}).items():
            what = self._type(content["schema"]) if media_type == _JSON else f"<code>{escape(media_type)}</code>"
            yield f"<p>Answer: {what}.</p>"
        yield "</details>"

    @staticmethod
    def _content(part: Schema) -> Schema | None:
        found: Schema | None = part.get("content", {}).get(_JSON, {}).get("schema")
        return found

    def _curl(self, method: str, path: str, operation: Schema, body: Schema | None) -> str:
        query = urlencode(
            {
                each["name"]: example(each["schema"], self._schemas)
                for each in operation["parameters"]
                if each["in"] == "query" and each["required"]
            },
            safe=":",
        )
        for_shell = re.sub(r"\{(?:(org)_id|(\w+))\}", lambda name: f"${(name[1] or name[2]).upper()}", path)
        url = f'"$TOLLGATE_SERVER{for_shell}{"?" if query else ""}{query}"'
        parts = ["curl", *(() if method in {"GET", "POST"} else ("-X", method)), url]
        if "security" in operation:
            parts += ["-H", '"Authorization: Bearer $TOKEN"']
        parts += [
            part
            for each in operation["parameters"]
            if each["in"] == "header" and each["required"]
            for part in ("-H", f"'{each['name']}: *'")
        ]
        if body is not None:
            text = json.dumps(example(body, self._schemas), ensure_ascii=False)
            parts += ["-H", "'Content-Type: application/json'", "-d", shlex.quote(text)]
        elif method == "POST":
            parts[1:1] = ["-X", method]
        return " ".join(parts)

    def _fields(self, title: str, schema: Schema | None) -> Iterator[str]:
        if schema is None:
            return
        resolved = self._resolved(schema)
        required = resolved.get("required", ())
        rows = [(name, field, name in required) for name, field in resolved["properties"].items()]
        yield from self._table(title, rows)

    def _shape(self, schema: Schema) -> Iterator[str]:
        if "description" in schema:
            yield f"<p>{escape(schema['description'])}</p>"
        if "properties" in schema:
            yield from self._fields("Field", schema)
        else:
            yield f"<p>{self._type(schema)}</p>"

    def _table(self, title: str, rows: Sequence[tuple[str, Schema, bool]]) -> Iterator[str]:
        if not rows:
            return
        yield f"<table><tr><th>{title}<th>what it is<th>required<th>meaning"
        for name, field, is_required in rows:
            # A parameter has its type in a schema of its own, a property is one.
            schema = field.get("schema", field)
            meaning = escape(field.get("description", schema.get("description", "")))
            if schema.get("examples"):
                meaning += f" Such as <code>{escape(json.dumps(schema['examples'][0], ensure_ascii=False))}</code>."
            if schema.get("default") not in (None, [], {}, ""):
                meaning += f" Default: <code>{escape(json.dumps(schema['default'], ensure_ascii=False))}</code>."
            yield f"<tr><td><code>{escape(name)}</code><td>{self._type(schema)}<td>{'yes' if is_required else ''}<td>{meaning}"
        yield "</table>"

    def _resolved(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = self._schemas[_name(schema)]
        return schema

    def _type(self, schema: Schema) -> str:
        """What a value is, in a few words of HTML; components are links."""
        match schema:
            case {"$ref": _}:
                name = _name(schema)
                return f"<a href=#{_anchor(name)}>{escape(name)}</a>"
            case {"anyOf": [*options]} | {"oneOf": [*options]}:
                return " or ".join(dict.fromkeys(map(self._type, options)))
            case {"enum": [*values]}:
                return "one of " + ", ".join(f"<code>{escape(str(value))}</code>" for value in values)
            case {"const": value}:
                return f"<code>{escape(json.dumps(value))}</code>"
            case {"type": "array", "items": items}:
                return f"list of {self._type(items)}"
            case {"type": "object", "additionalProperties": {} as values} if values is not True and values:
                return f"object, by name: {self._type(values)}"
            case {"type": "string", "format": "date-time"}:
                return "time, as <code>2027-01-31T18:00:00Z</code>"
            case {"type": "string"}:
                return "text"
            case {"type": "integer" | "number"}:
                return _bounded(schema)
            case {"type": "boolean"}:
                return "true or false"
            case {"type": kind}:
                return escape(str(kind))
            case _:
                return "any JSON"


def _roles() -> Iterator[str]:
    yield (
        "<h2 id=roles>Roles</h2><p>What a member may in their organisation. A machine token of an organisation may what its scopes "
        "say, and these are their names; nobody gives a role or a scope beyond their own. Operators may everything, and what begins "
        f"with <code>platform:</code> only they and tokens of the platform may.</p><table><tr><th>{''.join(f'<th>{role}' for role in Role)}"
    )
    for permission in Permission:
        if permission not in PLATFORM:
            held = ("yes" if permission in PERMISSIONS_BY_ROLE[role] else "" for role in Role)
            yield f"<tr><td><code>{permission}</code>{''.join(f'<td>{each}' for each in held)}"
    yield "</table>"


def _bounded(schema: Schema) -> str:
    kind = "whole number" if schema["type"] == "integer" else "number"
    match schema.get("minimum"), schema.get("maximum"):
        case None, None:
            return kind
        case low, None:
            return f"{kind}, at least {low}"
        case None, high:
            return f"{kind}, at most {high}"
        case low, high:
            return f"{kind}, {low} to {high}"


def _name(schema: Schema) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _anchor(name: str) -> str:
    return f"shape-{escape(name)}"
