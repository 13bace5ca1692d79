"""The console in a real Chromium, against the whole stack: what only a browser does, and what people see.

Every page is watched: an error of a script, a file that is refused by the policy, or a request to anywhere else fails the test.
"""

import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, expect

from tests.support.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHARTED_S: Final = 5.0
"""How long it may take from the end of an answer until the charts have it."""
ASKED: Final = 3
"""So many answers are waited for; a busy machine holds up one of them, not all."""
PHONE: Final = {"width": 390, "height": 844}
SCREEN: Final = {"width": 1180, "height": 760}
PATIENCE_MS: Final = 30_000
SETTLED: Final = "[[sim output_tokens=60 token_delay_ms=10]]"
OPERATORS_PAGES: Final = (
    "providers",
    "providers/openai",
    "routes",
    "routes/gpt-4o-mini",
    "models",
    "models/gpt-4o-mini",
    "operations",
    "orgs",
    "requests",
    "books",
)
TENANTS_PAGES: Final = ("", "playground", "keys", "requests", "usage", "money")


@dataclass(frozen=True)
class Visit:
    """Somebody at the console."""

    page: Page
    url: str

    async def to(self, path: str) -> None:
        """Open a page; `path` is behind /console/."""
        answer = await self.page.goto(f"{self.url}/console/{path}")
        assert answer is not None
        assert answer.ok, path


@asynccontextmanager
async def visiting(chromium: Browser, stack: Stack, *, signed_in: bool = True, **options: Any) -> AsyncIterator[Visit]:
    """A browser of its own, watched until the block ends."""
    url = stack.endpoints["control_plane_url"]
    context = await chromium.new_context(**{"viewport": SCREEN, **options})
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    wrong: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        # That a page was refused is written there too, and is no fault of a script.
        if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
            wrong.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((url, "data:")) else wrong.append(request.url))
    visit = Visit(page, url)
    if signed_in:
        await visit.to(f"sign-in#token={stack.endpoints['operator_token']}")
        await page.get_by_role("button", name="Sign in with the token").click()
        await page.wait_for_url("**/console/")
    yield visit
    await context.close()
    assert wrong == []


async def ask(visit: Visit, message: str) -> None:
    """Write a message into the playground and wait until its answer has a price."""
    answers = await visit.page.locator("#conversation .priced").count()
    await visit.page.get_by_label("Your message").fill(message)
    await visit.page.get_by_role("button", name="Send").click()
    await expect(visit.page.locator("#conversation .priced")).to_have_count(answers + 1, timeout=PATIENCE_MS)


async def test_a_token_in_the_address_leaves_it_and_signs_in_with_one_key(chromium: Browser, stack: Stack) -> None:
    token = stack.endpoints["operator_token"]
    async with visiting(chromium, stack, signed_in=False) as visit:
        await visit.to(f"sign-in#token={token}")
        assert token not in visit.page.url
        await visit.page.keyboard.press("Enter")
        await visit.page.wait_for_url("**/console/")
        assert token not in await visit.page.content()
        cookies = await visit.page.context.cookies()
        assert [(cookie["httpOnly"], cookie["sameSite"]) for cookie in cookies] == [(True, "Lax")]


async def test_a_newcomer_sees_an_answer_stream_and_its_price_in_the_charts(
    chromium: Browser, stack: Stack, pictures: Path | None
) -> None:
    name = f"chart{secrets.token_hex(4)}"
    await stack.make_key(name, balance="5.00")
    async with visiting(chromium, stack) as asking, visiting(chromium, stack) as watching:
        await watching.to(f"orgs/org_{name}/")
        requests = watching.page.locator("#figures tbody tr td:first-child a")
        bars = watching.page.locator("#figures .chart rect title")
        await expect(bars).to_have_count(0)
        await asking.to(f"orgs/org_{name}/playground")
        await asking.page.get_by_label("Model", exact=True).select_option("gpt-4o-mini")
        took = []
        for number in range(ASKED):
            await ask(asking, f"Say something. {SETTLED}")
            began = time.monotonic()
            # Nobody touches this page.
            await expect(requests).to_have_count(number + 1, timeout=PATIENCE_MS)
            await expect(bars).to_have_count(1)
            took.append(time.monotonic() - began)
        print(f"from priced in the playground to the charts: {', '.join(f'{each:.1f} s' for each in took)}")
        assert min(took) < CHARTED_S
        said = await asking.page.locator("#conversation .said").last.inner_text()
        assert len(said.split()) > 20
        if pictures is not None:
            await asking.page.screenshot(path=pictures / "playground.png")


async def test_an_answer_is_seen_while_it_comes_and_can_be_stopped(chromium: Browser, stack: Stack) -> None:
    name = f"stop{secrets.token_hex(4)}"
    await stack.make_key(name, balance="5.00")
    async with visiting(chromium, stack) as visit:
        await visit.to(f"orgs/org_{name}/playground")
        await visit.page.get_by_label("Model", exact=True).select_option("gpt-4o-mini")
        await visit.page.get_by_label("Your message").fill("[[sim output_tokens=2000 token_delay_ms=50]]")
        await visit.page.get_by_role("button", name="Send").click()
        said = visit.page.locator("#conversation .said").last
        # A hundred seconds of it are to come.
        await expect(said).to_have_text(re.compile(r"\w+ \w+ \w+"), timeout=PATIENCE_MS)
        await visit.page.get_by_role("button", name="Stop").click()
        await expect(said).to_have_text(re.compile(r"\(stopped\)$"))
        await expect(visit.page.get_by_role("button", name="Send")).to_be_enabled()


async def test_a_refusal_is_said_in_the_conversation(chromium: Browser, stack: Stack) -> None:
    name = f"poor{secrets.token_hex(4)}"
    await stack.make_key(name, balance="0.000001")
    async with visiting(chromium, stack) as visit:
        await visit.to(f"orgs/org_{name}/playground")
        await visit.page.get_by_label("Model", exact=True).select_option("gpt-4o-mini")
        await visit.page.get_by_label("Your message").fill("<b>Hello</b>")
        await visit.page.get_by_role("button", name="Send").click()
        await expect(visit.page.locator("#conversation .refused .said")).to_contain_text("balance", ignore_case=True)
        # What was written is shown as it was written.
        await expect(visit.page.locator("#conversation .said").first).to_have_text("<b>Hello</b>")


async def test_a_key_is_made_copied_and_revoked_with_the_keyboard_alone(chromium: Browser, stack: Stack) -> None:
    name = f"keys{secrets.token_hex(4)}"
    await stack.make_key(name, balance="5.00")
    async with visiting(chromium, stack, permissions=["clipboard-read", "clipboard-write"]) as visit:
        page = visit.page
        await visit.to(f"orgs/org_{name}/keys")
        await page.get_by_label("Name", exact=True).focus()
        await page.keyboard.type("by hand")
        await page.keyboard.press("Enter")
        shown = await page.locator("#made").inner_text()
        assert shown.startswith("sk-tg-live-")
        await page.get_by_role("button", name="Copy").focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert await page.evaluate("navigator.clipboard.readText()") == shown
        await page.get_by_role("link", name="Done").focus()
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/keys/key_*")
        await page.get_by_text("Revoke", exact=True).focus()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/keys")
        await expect(page.get_by_role("link", name="by hand")).to_have_count(0)


async def test_a_route_is_compared_published_and_watched_until_every_envoy_has_it(
    chromium: Browser, stack: Stack, pictures: Path | None
) -> None:
    async with visiting(chromium, stack) as visit:
        page = visit.page
        await visit.to("routes/gpt-4o")
        weight = page.get_by_label("Weight of row 1")
        other = str(int(await weight.input_value()) + 1)
        await weight.fill(other)
        await page.get_by_role("button", name="Show what changes").click()
        await expect(page.locator(".difference .after")).to_have_text(re.compile(rf'"weight": {other}'))
        if pictures is not None:
            await page.screenshot(path=pictures / "difference.png")
        await page.get_by_role("button", name="Publish").click()
        await page.wait_for_url("**/operations/op_*")
        await expect(page.locator("#progress .state").first).to_have_text("applied", timeout=PATIENCE_MS)
        await expect(page.locator("#progress")).to_contain_text("1 Envoys")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_fits_a_phone_and_can_be_read_in_either_light(
    chromium: Browser, stack: Stack, scheme: str
) -> None:
    async with visiting(chromium, stack, viewport=PHONE, color_scheme=scheme) as visit:
        for path in (*OPERATORS_PAGES, *(f"orgs/org_demo/{name}" for name in TENANTS_PAGES)):
            await visit.to(path)
            width = await visit.page.evaluate("document.documentElement.scrollWidth")
            assert width <= PHONE["width"], path
            poor = await visit.page.evaluate(POOR_CONTRAST)
            assert poor == [], path


async def test_every_page_has_a_name_headings_labels_and_a_way_past_the_menu(chromium: Browser, stack: Stack) -> None:
    async with visiting(chromium, stack) as visit:
        for path in (*OPERATORS_PAGES, *(f"orgs/org_demo/{name}" for name in TENANTS_PAGES)):
            await visit.to(path)
            assert (await visit.page.title()).endswith("Tollgate")
            assert await visit.page.locator("h1").count() == 1, path
            assert await visit.page.evaluate(UNLABELLED) == [], path
            assert await visit.page.evaluate(TWICE) == [], path
            await visit.page.keyboard.press("Tab")
            await visit.page.keyboard.press("Enter")
            assert await visit.page.evaluate("document.activeElement.id") == "main", path


async def test_pages_work_without_scripts(chromium: Browser, stack: Stack) -> None:
    name = f"plain{secrets.token_hex(4)}"
    await stack.make_key(name, balance="5.00")
    async with visiting(chromium, stack, signed_in=False, java_script_enabled=False) as visit:
        page = visit.page
        await visit.to("sign-in")
        await page.get_by_text("With a token").click()
        await page.get_by_label("Operator or machine token").fill(stack.endpoints["operator_token"])
        await page.get_by_role("button", name="Sign in with the token").click()
        await page.wait_for_url("**/console/")
        await visit.to(f"orgs/org_{name}/keys")
        await page.get_by_label("Name", exact=True).fill("plain")
        await page.get_by_role("button", name="Create the key").click()
        await expect(page.locator("#made")).to_contain_text("sk-tg-live-")


async def test_pictures_for_the_documents(chromium: Browser, stack: Stack, pictures: Path | None) -> None:
    async with visiting(chromium, stack) as visit:
        await visit.to("orgs/org_demo/playground")
        for model, message in (("gpt-4o-mini", "Hello"), ("gpt-4o", "Hello"), ("claude-sonnet-4-6", "Hello")):
            await visit.page.get_by_label("Model", exact=True).select_option(model)
            await ask(visit, f"{message} {SETTLED}")
        for name, path in (("overview", "orgs/org_demo/"), ("providers", "providers"), ("route", "routes/gpt-4o-mini")):
            await visit.to(path)
            await expect(visit.page.locator("h1")).to_be_visible()
            if pictures is not None:
                await visit.page.screenshot(path=pictures / f"{name}.png")
    async with visiting(chromium, stack, viewport=PHONE, color_scheme="dark") as visit:
        await visit.to("orgs/org_demo/")
        await expect(visit.page.locator(".chart rect").first).to_be_visible()
        if pictures is not None:
            await visit.page.screenshot(path=pictures / "phone.png")


UNLABELLED: Final = """
[...document.querySelectorAll("input:not([type=hidden]), select, textarea")].filter((each) => !each.labels.length && !each.ariaLabel).map((each) => each.name)
"""
TWICE: Final = """
[...document.querySelectorAll("[id]")].map((each) => each.id).filter((id, place, all) => all.indexOf(id) !== place)
"""
POOR_CONTRAST: Final = """
(() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((each) => each / 255)
    .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = channels(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const has_text = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    if (!has_text || element instanceof SVGElement || !element.checkVisibility()) continue;
    const [light, dark] = [luminance(channels(getComputedStyle(element).color)), luminance(ground(element))].sort((a, b) => b - a);
    if ((light + 0.05) / (dark + 0.05) < 4.5) poor.push(element.textContent.trim().slice(0, 40));
  }
  return poor;
})()
"""
"""Text that is not 4.5 times as bright as what is behind it, or the other way round (WCAG 2.2, 1.4.3)."""
