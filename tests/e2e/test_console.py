"""A newcomer's first minutes at the console of a running stack: a chat in the playground, and its price in the charts."""

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from control_plane.console.pages.playground import ANSWERS_PER_VISITOR_MAX
from tests.support.console import Browser, Page, browsing
from tests.support.stack import Stack, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def ask(browser: Browser, org_id: str, message: str, **fields: object) -> tuple[str, str]:
    """What the playground shows of an answer, and the answer's id."""
    question = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": message}], **fields}
    asking = browser.session.post(
        f"{browser.url}/console/orgs/{org_id}/playground", json=question, headers={"Origin": browser.url}
    )
    async with asking as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "text/event-stream"
        lines = [line async for line in answer.content]
        request_id = answer.headers["x-request-id"]
    events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
    said = [event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"]]
    return "".join(said), request_id


async def test_a_chat_of_the_playground_is_priced_in_the_charts(stack: Stack) -> None:
    async with browsing(stack.endpoints["control_plane_url"]) as browser:
        await browser.sign_in_with(stack.endpoints["operator_token"])
        # An organisation of its own: its charts show nothing of other tests.
        org_id = "org_console"
        await stack.make_key("console", balance="5.00")
        before = await browser.get(f"/orgs/{org_id}/figures")
        assert '<rect class="series-0" x=' not in before.text

        said, request_id = await ask(browser, org_id, "Hello")
        assert said

        async def charted() -> Page | None:
            figures = await browser.get(f"/orgs/{org_id}/figures")
            return figures if "gpt-4o-mini: $0.0" in figures.text else None

        figures = await eventually(charted, deadline_s=60)
        assert request_id in figures.text
        row = await stack.request_row(request_id)
        assert row["outcome"] == "settled"
        priced = await browser.get(f"/orgs/{org_id}/playground/{request_id}")
        assert "priced" in priced.text
        request = await browser.get(f"/orgs/{org_id}/requests/{request_id}")
        assert "<td>openai" in request.text


async def test_the_key_of_the_playground_is_in_no_page_and_one_for_all_questions(stack: Stack) -> None:
    async with browsing(stack.endpoints["control_plane_url"]) as browser:
        await browser.sign_in_with(stack.endpoints["operator_token"])
        org_id = "org_console_key"
        await stack.make_key("console_key", balance="5.00")
        ids = [(await ask(browser, org_id, "Hello"))[1] for _ in range(2)]
        rows = [await stack.request_row(request_id) for request_id in ids]
        assert rows[0]["key_id"] == rows[1]["key_id"]
        pages = [
            await browser.get(f"/orgs/{org_id}/{name}")
            for name in ("", "playground", "keys", f"keys/{rows[0]['key_id']}")
        ]
        assert "Playground" in pages[2].text
        for page in pages:
            assert page.status == 200
            assert not [word for word in page.text.split() if word.startswith("sk-tg-live-") and len(word) > 30]


async def test_a_refusal_of_the_gateway_reaches_the_page_as_it_is(stack: Stack) -> None:
    async with browsing(stack.endpoints["control_plane_url"]) as browser:
        await browser.sign_in_with(stack.endpoints["operator_token"])
        await stack.make_key("console_poor", balance="0.000001")
        question = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
        asking = browser.session.post(
            f"{browser.url}/console/orgs/org_console_poor/playground", json=question, headers={"Origin": browser.url}
        )
        async with asking as answer:
            assert answer.status == 402
            assert (await answer.json())["error"]["code"] == "insufficient_quota"


async def test_who_leaves_in_the_middle_hangs_up_on_the_gateway(stack: Stack) -> None:
    async with browsing(stack.endpoints["control_plane_url"]) as browser:
        await browser.sign_in_with(stack.endpoints["operator_token"])
        await stack.make_key("console_leaving", balance="5.00")
        question = {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": "[[sim output_tokens=2000 token_delay_ms=50]]"}],
        }
        asking = browser.session.post(
            f"{browser.url}/console/orgs/org_console_leaving/playground", json=question, headers={"Origin": browser.url}
        )
        async with asking as answer:
            request_id = answer.headers["x-request-id"]
            await answer.content.readline()
            answer.close()
        # A hundred seconds of answer are left; its line is there as soon as nobody listens any more.
        async with asyncio.timeout(40):
            row = await stack.request_row(request_id)
        assert row["org_id"] == "org_console_leaving"


async def test_a_visitor_has_four_answers_at_once_and_a_fifth_is_refused(stack: Stack) -> None:
    async with browsing(stack.endpoints["control_plane_url"]) as browser, AsyncExitStack() as answers:
        await browser.sign_in_with(stack.endpoints["operator_token"])
        await stack.make_key("console_busy", balance="5.00")
        question = {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": "[[sim output_tokens=2000 token_delay_ms=50]]"}],
        }
        url = f"{browser.url}/console/orgs/org_console_busy/playground"
        coming = []
        for _ in range(ANSWERS_PER_VISITOR_MAX):
            asking = browser.session.post(url, json=question, headers={"Origin": browser.url})
            coming.append(await answers.enter_async_context(asking))
        assert [answer.status for answer in coming] == [200] * ANSWERS_PER_VISITOR_MAX
        async with browser.session.post(url, json=question, headers={"Origin": browser.url}) as refused:
            assert refused.status == 429
        coming[0].close()

        async def takes_another() -> bool:
            async with browser.session.post(url, json=question, headers={"Origin": browser.url}) as again:
                again.close()
                return again.status == 200

        await eventually(takes_another, deadline_s=20)
