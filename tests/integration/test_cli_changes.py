"""Commands whose change goes on after the answer, against a small HTTP server that plays such an API."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway_core.health import serving
from tests.support.openapi import catalogue
from tollgate.api.document import Document
from tollgate.errors import CommandError, ExitCode
from tollgate.root import root


@dataclass
class Gateway:
    """An API whose operations go through the states they are told to; `lost` counts connections it will drop."""

    states: list[str] = field(default_factory=list)
    error: str | None = None
    etag: str | None = None
    lost: int = 0
    requests: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    url: str = ""

    def operation(self) -> dict[str, object]:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {"id": "op_1", "state": state, "error": self.error if state not in {"pending", "applied"} else None}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        self.requests.append(
            (request.method, request.path_qs, dict(request.headers), json.loads(text) if text else None)
        )
        if self.lost:
            self.lost -= 1
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if request.method == "GET" and "/providers/" in request.path:
            if self.etag is None:
                return web.json_response({"title": "Not found"}, status=404)
            return web.json_response({"name": "openai"}, headers={"ETag": self.etag})
        return web.json_response(self.operation(), status=200 if request.method == "GET" else 202)

    def sent(self, method: str) -> list[tuple[str, dict[str, str], Any]]:
        return [(path, headers, body) for each, path, headers, body in self.requests if each == method]


@pytest.fixture
async def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    gateway = Gateway()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", gateway.handle)
    async with serving(app, "127.0.0.1", 0) as (host, port):
        gateway.url = f"http://{host}:{port}"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        monkeypatch.setenv("TOLLGATE_SERVER", gateway.url)
        monkeypatch.setenv("TOLLGATE_TOKEN", "sk-tg-op-x")
        (tmp_path / "key").write_text("sk-provider\n")
        yield gateway


async def tollgate(*arguments: str) -> ExitCode | None:
    """One command in this process, from the small document; the exit code of its error."""
    run = root(Document(catalogue())).main
    try:
        await asyncio.to_thread(run, list(arguments), "tollgate", standalone_mode=False)
    except CommandError as error:
        print(f"Error: {error}")
        return error.exit_code
    return None


PUT = ("providers", "put", "openai", "--kind", "openai", "--base-url", "https://x.test", "--api-key-file", "key")


async def test_a_change_is_waited_for_until_it_is_applied(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.states = ["pending", "pending", "applied"]
    assert await tollgate(*PUT, "--json") is None
    assert json.loads(capsys.readouterr().out) == {"id": "op_1", "state": "applied", "error": None}
    [(path, headers, body)] = gateway.sent("PUT")
    assert path == "/api/v1/providers/openai"
    assert headers["Authorization"] == "Bearer sk-tg-op-x"
    assert body == {"kind": "openai", "base_url": "https://x.test", "api_key": "sk-provider"}
    waits = [path for path, _, _ in gateway.sent("GET") if "operations" in path]
    assert waits == ["/api/v1/operations/op_1?wait_ms=20000"] * 2


@pytest.mark.parametrize("state", ["rejected", "rolled_back"])
async def test_a_change_that_envoy_refuses_fails_with_its_message(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], state: str
) -> None:
    gateway.states, gateway.error = ["pending", state], "no such cluster"
    assert await tollgate(*PUT) is ExitCode.NOT_APPLIED
    assert f"Error: the change was {state.replace('_', ' ')}: no such cluster" in capsys.readouterr().out


async def test_a_change_is_not_waited_for_if_nobody_wants_to(gateway: Gateway) -> None:
    gateway.states = ["pending"]
    assert await tollgate(*PUT, "--no-wait") is None
    assert not [path for path, _, _ in gateway.sent("GET") if "operations" in path]


async def test_looking_at_an_operation_that_failed_is_no_failure(gateway: Gateway) -> None:
    gateway.states = ["rejected"]
    assert await tollgate("operations", "get", "op_1") is None


async def test_a_put_replaces_what_was_read_and_creates_what_was_not_there(gateway: Gateway) -> None:
    gateway.states = ["applied"]
    assert await tollgate(*PUT) is None
    gateway.etag = '"7"'
    assert await tollgate(*PUT) is None
    assert await tollgate(*PUT, "--if-match", "*") is None
    assert [headers.get("If-Match") for _, headers, _ in gateway.sent("PUT")] == [None, '"7"', "*"]


async def test_a_post_is_sent_again_with_the_same_key_when_the_connection_is_lost(gateway: Gateway) -> None:
    gateway.states, gateway.lost = ["applied"], 2
    assert await tollgate("imports", "create") is None
    keys = [headers["Idempotency-Key"] for _, headers, _ in gateway.sent("POST")]
    assert len(keys) == 3
    assert len(set(keys)) == 1


async def test_what_has_no_idempotency_key_is_sent_once(gateway: Gateway) -> None:
    gateway.states, gateway.lost = ["applied"], 1
    gateway.etag = '"1"'
    assert await tollgate(*PUT, "--if-match", "*") is ExitCode.NOT_RUNNING
    assert len(gateway.sent("PUT")) == 1


async def test_fields_of_every_kind_become_json(gateway: Gateway) -> None:
    gateway.states = ["applied"]
    fields = ("--weight", "0.5", "--timeout-ms", "200", "--headers", '{"x-a": "b"}', "--is-free", "--field-json", "j")
    lists = ("--regions", "openai", "--regions", "anthropic", "--rules", '[{"a": 1}]')
    assert await tollgate(*PUT, *fields, *lists) is None
    [(_, _, body)] = gateway.sent("PUT")
    assert body == {
        "kind": "openai",
        "base_url": "https://x.test",
        "api_key": "sk-provider",
        "weight": 0.5,
        "timeout_ms": 200,
        "headers": {"x-a": "b"},
        "is_free": True,
        "json": "j",
        "regions": ["openai", "anthropic"],
        "rules": [{"a": 1}],
    }
    assert await tollgate(*PUT, "--no-weight") is None
    assert gateway.sent("PUT")[-1][2]["weight"] is None
