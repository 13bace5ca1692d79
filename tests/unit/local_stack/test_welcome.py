import ast
import json
import shlex
from dataclasses import replace
from pathlib import Path

from local_stack.endpoints import Endpoints
from local_stack.stack import Provider
from tollgate.invocation import Invocation
from tollgate.welcome import LATEST_CHARGE, LATEST_REQUEST, curl_line, python_snippet, welcome

ENDPOINTS = Endpoints(
    openai_base_url="http://127.0.0.1:8080/v1",
    anthropic_base_url="http://127.0.0.1:8080",
    api_key="sk-tg-live-key",
    control_plane_url="http://127.0.0.1:8081",
    control_plane_urls=["http://127.0.0.1:8081"],
    operator_token="tg-op-token",
    postgres_dsn="postgresql://tollgate:hidden@127.0.0.1:1/tollgate",
    redis_url="redis://:hidden@127.0.0.1:2/0",
    clickhouse_url="http://tollgate:hidden@127.0.0.1:3/tollgate",
    envoy_admin_url="http://127.0.0.1:9901",
    simulator_url="http://127.0.0.1:9902/v1",
    stripe_url="http://127.0.0.1:9902/stripe",
    spool_dir="/data/spool",
)
PROVIDERS = [Provider("openai", is_real=True), Provider("gemini", is_real=False)]
INVOCATION = Invocation((".venv/bin/tollgate",), ".venv/bin/python", has_sdk=True, data_dir=Path("/a b/'c'"))
TEXT = welcome(ENDPOINTS, PROVIDERS, INVOCATION)


def test_everything_a_user_needs_is_there_and_no_password_is() -> None:
    for needed in (ENDPOINTS.openai_base_url, ENDPOINTS.api_key, ENDPOINTS.control_plane_url, ENDPOINTS.operator_token):
        assert needed in TEXT
    assert "openai (real), gemini (simulated)" in TEXT
    assert "hidden" not in TEXT


def test_what_is_to_be_pasted_stands_flush_left_and_whole() -> None:
    lines = TEXT.splitlines()
    assert curl_line(ENDPOINTS) in lines
    assert set(python_snippet(ENDPOINTS).splitlines()) <= set(lines)


def test_the_curl_line_is_one_command_with_a_json_body() -> None:
    words = shlex.split(curl_line(ENDPOINTS))
    assert words[:3] == ["curl", "-sS", "http://127.0.0.1:8080/v1/chat/completions"]
    assert json.loads(words[-1])["messages"]


def test_the_snippet_needs_no_block_so_that_a_prompt_takes_it_line_by_line() -> None:
    assert all(
        isinstance(node, ast.ImportFrom | ast.Assign | ast.Expr) for node in ast.parse(python_snippet(ENDPOINTS)).body
    )


def test_the_snippet_ends_with_an_empty_line() -> None:
    lines = TEXT.splitlines()
    start = lines.index("from openai import OpenAI")
    assert "\n".join(lines[start : lines.index("", start)]) == python_snippet(ENDPOINTS)


def test_the_python_that_has_the_sdk_is_named() -> None:
    assert "(.venv/bin/python, which has it)" in TEXT
    assert "(pip install openai)" in welcome(ENDPOINTS, PROVIDERS, replace(INVOCATION, has_sdk=False))


def test_the_stores_are_asked_on_one_line_each_in_the_same_directory() -> None:
    lines = [shlex.split(line) for line in TEXT.splitlines() if line.startswith(".venv/bin/tollgate ")]
    assert lines == [
        [".venv/bin/tollgate", "psql", "--data-dir", "/a b/'c'", "-x", "-c", LATEST_CHARGE],
        [".venv/bin/tollgate", "clickhouse", "--data-dir", "/a b/'c'", LATEST_REQUEST],
    ]
