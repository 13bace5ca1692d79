"""A real Chromium, and where its pictures go."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-pictures` takes those in docs/console anew."""
    parser.addoption("--update-pictures", action="store_true", help="take the pictures in docs/console anew")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """Debian's, or whichever is there."""
    found = next((path for name in NAMES if (path := shutil.which(name)) is not None), None)
    assert found is not None, "There is no Chromium; on Debian: apt-get install chromium"
    async with async_playwright() as playwright:
        # Its sandbox needs namespaces that containers and root have not; it opens pages of this machine only.
        browser = await playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
def pictures(request: pytest.FixtureRequest) -> Path | None:
    """Where they go; None if they stay as they are."""
    wanted = request.config.getoption("--update-pictures")
    return Path(__file__).parents[2] / "docs" / "console" if wanted else None
