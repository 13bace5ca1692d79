"""The story of a team that wants its costs told apart: by tags of a request, from the client to the analytics."""

import json
from typing import Any

import aiohttp

from tests.support.stack import Stack, eventually

TEAM = "cost-tags-of-one-test"


async def ask(stack: Stack, body: dict[str, Any], headers: dict[str, str] | None = None) -> str:
    """The id of a request that was answered."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{stack.endpoints['openai_base_url']}/chat/completions",
            json={"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello."}], **body},
            headers={"Authorization": f"Bearer {stack.endpoints['api_key']}", **(headers or {})},
        ) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return answer.headers["x-request-id"]


async def breakdown(stack: Stack, tag: str) -> dict[str, int]:
    """How many requests of the demo's organisation there were by each value of a tag."""
    url = f"{stack.endpoints['control_plane_url']}/api/v1/analytics/breakdown"
    query = {"since": "2026-01-01T00:00:00Z", "until": "2030-01-01T00:00:00Z", "by": f"tag:{tag}"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            url, params=query, headers={"Authorization": f"Bearer {stack.endpoints['operator_token']}"}
        ) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return {row["group"][f"tag:{tag}"]: row["requests"] for row in (await answer.json())["data"]}


async def test_tags_go_from_the_request_to_the_analytics_and_the_header_to_no_provider(stack: Stack) -> None:
    await stack.forget_provider_requests()
    by_metadata = await ask(stack, {"metadata": {TEAM: "büro", "n": "1"}, "user": "ada"})
    by_header = await ask(stack, {"metadata": {TEAM: "unused"}}, {"x-tollgate-tags": f"{TEAM}=header,stage=test"})
    without = await ask(stack, {})
    tags = {
        request_id: json.loads((await stack.request_row(request_id))["tags"] or "{}")
        for request_id in (by_metadata, by_header, without)
    }
    assert tags == {
        by_metadata: {TEAM: "büro", "n": "1", "user": "ada"},
        by_header: {TEAM: "header", "stage": "test"},
        without: {},
    }
    copied = await stack.clickhouse_row(by_metadata)
    assert copied["tags"] == tags[by_metadata]
    # The gateway's own part is a part of the whole.
    assert 0 < copied["overhead_us"] < (copied["duration_ms"] + 1) * 1000
    received = await stack.provider_requests()
    assert len(received) == 3
    assert not [name for each in received for name in each["headers"] if name.startswith("x-tollgate-")]
    await stack.clickhouse_row(without)

    async def counted() -> dict[str, int] | None:
        found = await breakdown(stack, TEAM)
        return found if found.keys() >= {"büro", "header"} else None

    found = await eventually(counted)
    assert (found["büro"], found["header"]) == (1, 1)
