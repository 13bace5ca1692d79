"""The copy of the OpenAPI document from which the command line is made is the document of the API.

`make openapi` writes it anew after an operation has changed.
"""

import json
from typing import Any

import pytest

import control_plane.api.app  # noqa: F401 - imports every operation
from control_plane.api.openapi import document
from control_plane.api.operation import OPERATIONS
from tollgate.api.document import FILE, METHODS


def as_text() -> str:
    """The document in an order that does not depend on what was imported first."""
    described: Any = document(OPERATIONS)
    paths = described["paths"]
    described["paths"] = {
        path: {method: paths[path][method] for method in METHODS if method in paths[path]} for path in sorted(paths)
    }
    schemas = described["components"]["schemas"]
    described["components"]["schemas"] = {name: schemas[name] for name in sorted(schemas)}
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def test_the_command_line_is_made_from_the_document_of_this_api(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden"):
        FILE.write_text(as_text(), encoding="utf-8")
    assert FILE.read_text(encoding="utf-8") == as_text(), "make openapi writes it anew"
