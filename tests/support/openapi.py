"""A small OpenAPI document with what an API may have: used where the real one has too little or too much."""

from typing import Any

REFERENCE = "#/components/schemas/"


def catalogue() -> dict[str, Any]:
    """Providers that are put, a change that goes on after its answer, and where one asks for it."""
    provider = {"name": "provider", "in": "path", "required": True, "schema": {"type": "string"}}
    accepted = {"202": {"content": {"application/json": {"schema": {"$ref": REFERENCE + "Operation"}}}}}
    return {
        "security": [{"bearer": []}],
        "paths": {
            "/api/v1/providers/{provider}": {
                "get": {
                    "operationId": "get_provider",
                    "summary": "One provider.",
                    "parameters": [provider],
                    "responses": {
                        "200": {"content": {"application/json": {"schema": {"$ref": REFERENCE + "Provider"}}}}
                    },
                },
                "put": {
                    "operationId": "put_provider",
                    "summary": "Create or replace a provider.",
                    "parameters": [
                        provider,
                        {"name": "dry_run", "in": "query", "schema": {"type": "boolean", "default": False}},
                        {"name": "If-Match", "in": "header", "schema": {"type": "string"}},
                    ],
                    "requestBody": {"content": {"application/json": {"schema": {"$ref": REFERENCE + "NewProvider"}}}},
                    "responses": accepted,
                },
            },
            "/api/v1/imports": {
                "post": {
                    "operationId": "create_import",
                    "parameters": [{"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}}],
                    "responses": accepted,
                }
            },
            "/api/v1/operations/{operation_id}": {
                "get": {
                    "operationId": "get_operation",
                    "summary": "One operation.",
                    "parameters": [
                        {"name": "operation_id", "in": "path", "required": True, "schema": {"type": "string"}},
                        {"name": "wait_ms", "in": "query", "schema": {"type": "integer", "maximum": 30000}},
                    ],
                    "responses": {
                        "200": {"content": {"application/json": {"schema": {"$ref": REFERENCE + "Operation"}}}}
                    },
                }
            },
        },
        "components": {
            "schemas": {
                "Kind": {"type": "string", "enum": ["openai", "anthropic"]},
                "Provider": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "base_url": {"type": "string", "description": "Where it is."},
                    },
                },
                "NewProvider": {
                    "type": "object",
                    "required": ["kind", "base_url", "api_key"],
                    "properties": {
                        "kind": {"$ref": REFERENCE + "Kind"},
                        "base_url": {"type": "string"},
                        "api_key": {"type": "string", "format": "password", "writeOnly": True},
                        "weight": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": 1},
                        "timeout_ms": {"type": "integer", "minimum": 1, "maximum": 600000, "default": 1000},
                        "headers": {"type": "object", "additionalProperties": {"type": "string"}, "default": {}},
                        "regions": {"type": "array", "items": {"$ref": REFERENCE + "Kind"}},
                        "rules": {"type": "array", "items": {"type": "object"}},
                        "is_free": {"type": "boolean", "default": False},
                        "json": {"type": "string"},
                    },
                },
                "Operation": {
                    "type": "object",
                    "properties": {
                        "id": {"type": "string"},
                        "state": {"type": "string", "enum": ["pending", "applied", "rejected", "rolled_back"]},
                        "error": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    },
                },
            }
        },
    }
