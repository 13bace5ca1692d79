"""The OpenAPI 3.1 document, made from the declared operations."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from control_plane.accounts.permissions import Open
from control_plane.api.download import Download
from control_plane.api.operation import DRY_RUN_HEADER, PREFIX, Operation, Redirect
from control_plane.api.problems import CONTENT_TYPE, FAULTS_MAX
from control_plane.resource import Revised

_REFERENCE: Final = "#/components/schemas/{model}"

Document = dict[str, object]
_References = Mapping[tuple[object, str], Mapping[str, object]]

_PROBLEM: Final[Document] = {
    "type": "object",
    "description": "Why a call was refused (RFC 9457).",
    "required": ["type", "title", "status", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Stable; for programs."},
        "detail": {"type": "string", "description": "For people."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "description": f"Every offending field, or the first {FAULTS_MAX} of them.",
            "maxItems": FAULTS_MAX,
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON pointer into the body, or ?name of the query."},
                    "detail": {"type": "string"},
                },
            },
        },
        "errors_left_out": {"type": "integer", "description": "How many more fields are offending, if they are more."},
    },
}

_REFUSALS: Final = {
    400: "The body or the request cannot be read.",
    401: "No credential, or none that is valid.",
    403: "The caller may not do this.",
    404: "Nothing here, or nothing the caller may see.",
    408: "The body did not come in time.",
    409: "It contradicts what is there.",
    412: "It has changed since it was read.",
    413: "The body is larger than {body_max}.",
    415: "The body is not declared as JSON.",
    422: "Some fields are not valid; each is named.",
    428: "If-Match is required.",
    429: "Too many attempts; see Retry-After.",
    503: "The database, or the issuer of a log-in, cannot be reached. Try again; see Retry-After.",
}


_NEEDS: Final[Mapping[Open, str]] = {
    Open.ANYONE: "For anyone, without a credential.",
    Open.KNOWN: "For any user and any machine token; each sees what is theirs.",
    Open.SIGNED_IN: "For any user, in their own name; not for machine tokens.",
}


def document(operations: Sequence[Operation]) -> Document:
    """The whole document."""
    references, components = _schemas(operations)
    paths: dict[str, Document] = {}
    for operation in operations:
        paths.setdefault(PREFIX + operation.path, {})[operation.method.lower()] = _operation(operation, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tollgate",
            "version": "1",
            "description": "Accounts, keys and the operators' API. Refusals are application/problem+json; lists come in "
            "pages; what can change has an ETag; a POST with an Idempotency-Key is done once.",
        },
        "paths": paths,
        "components": {
            "schemas": {**components, "Problem": _PROBLEM},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _schemas(operations: Iterable[Operation]) -> tuple[_References, Document]:
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {}
    for operation in operations:
        if operation.body is not None:
            wanted[operation.body, "validation"] = None
        if operation.answer is not None and not issubclass(operation.answer, Download):
            wanted[operation.answer, "serialization"] = None
    schemas, definitions = models_json_schema(list(wanted), ref_template=_REFERENCE)
    references: _References = {(wanted_model, mode): schema for (wanted_model, mode), schema in schemas.items()}
    components: dict[str, Any] = definitions.get("$defs", {})  # JSON, as pydantic makes it
    for operation in operations:
        if operation.query is not None:
            named = operation.query.model_json_schema(ref_template=_REFERENCE).get("$defs", {})
            components |= {name: schema for name, schema in named.items() if name not in components}
        if operation.method == "PATCH" and operation.body is not None:
            # What is left out stays as it is, so the value that the model has for it then is no default.
            name = str(references[operation.body, "validation"]["$ref"]).rpartition("/")[2]
            for field in components[name]["properties"].values():
                field.pop("default", None)
    return references, dict(components)


def _operation(operation: Operation, references: _References) -> Document:
    success: Document = {"description": "Done."}
    if operation.answer is not None and issubclass(operation.answer, Download):
        file: Document = {"schema": {"type": "string", "format": "binary"}}
        success["content"] = {operation.answer.media_type: file}
    elif operation.answer is not None:
        success["content"] = {"application/json": {"schema": references[operation.answer, "serialization"]}}
        if issubclass(operation.answer, Revised):
            success["headers"] = {"ETag": {"schema": {"type": "string"}, "description": "The revision, in quotes."}}
        if issubclass(operation.answer, Redirect):
            success["headers"] = {"Location": {"schema": {"type": "string"}, "description": "Where to go on."}}
    problem = {CONTENT_TYPE: {"schema": {"$ref": _REFERENCE.format(model="Problem")}}}
    described: Document = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "description": _NEEDS[operation.access]
        if isinstance(operation.access, Open)
        else f"Needs: {operation.access}.",
        "parameters": [*_path_parameters(operation), *_query_parameters(operation), *_headers(operation)],
        "responses": {
            str(operation.status): success,
            **{
                str(status): {
                    "description": text.format(body_max=_size(operation.body_bytes_max)),
                    "content": problem,
                }
                for status, text in _REFUSALS.items()
                if _can_happen(operation, status)
            },
        },
    }
    if operation.access is not Open.ANYONE:
        described["security"] = [{"bearer": []}]
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": references[operation.body, "validation"]}},
        }
    return described


def _size(number: int) -> str:
    return f"{number // 2**20} MiB" if number >= 2**20 else f"{number // 2**10} KiB"


def _can_happen(operation: Operation, status: int) -> bool:
    match status:
        case 401:
            return operation.access is not Open.ANYONE or operation.tag == "auth"
        case 403:
            return operation.access is not Open.ANYONE or operation.tag == "auth"
        case 404:
            return "{" in operation.path or operation.access is Open.SIGNED_IN
        case 408 | 413 | 415:
            return operation.body is not None
        case 409 | 429:
            return not operation.is_read
        case 412 | 428:
            return operation.needs_revision
        case _:
            return True


def _path_parameters(operation: Operation) -> list[Document]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "maxLength": 200}}
        for name in re.findall(r"\{(\w+)\}", operation.path)
    ]


def _query_parameters(operation: Operation) -> list[Document]:
    parameters: list[Document] = []
    if operation.query is not None:
        schema = operation.query.model_json_schema(ref_template=_REFERENCE)
        for name, field in schema["properties"].items():
            parameters.append(
                {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": field}
            )
    if operation.in_transaction:
        parameters.append(
            {
                "name": "dry_run",
                "in": "query",
                "required": False,
                "schema": {"type": "boolean", "default": False},
                "description": "Check and answer as if it were done, and keep nothing: what the answer names is not there. Such an "
                f"answer has the header {DRY_RUN_HEADER}.",
            }
        )
    return parameters


def _headers(operation: Operation) -> list[Document]:
    headers: list[Document] = []
    if operation.needs_revision:
        headers.append(
            {
                "name": "If-Match",
                "in": "header",
                "required": operation.method != "PUT",
                "schema": {"type": "string"},
                "description": "The ETag of what was read, or * for whatever is there."
                + (" Left out, there must be nothing yet." if operation.method == "PUT" else ""),
            }
        )
    if operation.method == "POST" and operation.in_transaction:
        headers.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
                "description": "Kept for 24 hours: the same call again gets the same answer.",
            }
        )
    return headers
