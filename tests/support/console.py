"""The console without a browser: a client that keeps its cookies, follows redirects and says where its forms come from, as browsers do."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape

import aiohttp


@dataclass(frozen=True)
class Page:
    """An answer, read."""

    status: int
    path: str
    headers: Mapping[str, str]
    text: str

    @property
    def heading(self) -> str:
        """The first one, without what marks it up."""
        found = re.search(r"<h1>(.*?)</h1>", self.text, re.DOTALL)
        assert found, self.text
        return unescape(re.sub(r"<[^>]+>", "", found[1])).strip()

    @property
    def refusal(self) -> str:
        """What an alert says."""
        found = re.search(r'role="alert">(.*?)</div>', self.text, re.DOTALL)
        assert found, self.text
        return " ".join(unescape(re.sub(r"<[^>]+>", "", found[1])).split())

    def written(self, name: str) -> str:
        """What stands in a field."""
        found = re.search(rf'name="{name}"[^>]*? value="([^"]*)"', self.text)
        assert found, self.text
        return unescape(found[1])

    def links(self) -> set[str]:
        """Where links lead."""
        return {unescape(link) for link in re.findall(r'<a [^>]*?href="([^"]*)"', self.text)}


@dataclass(frozen=True)
class Browser:
    """Somebody at the console."""

    url: str
    session: aiohttp.ClientSession

    async def get(self, path: str, **headers: str) -> Page:
        """Open a page; `path` is behind /console."""
        return await self._page("GET", path, headers, None)

    async def post(self, path: str, form: Mapping[str, str], **headers: str) -> Page:
        """Send a form of a page of the console."""
        return await self._page("POST", path, {"Origin": self.url, **headers}, form)

    async def sign_in(self, email: str, password: str) -> Page:
        """With a password."""
        return await self.post("/sign-in", {"email": email, "password": password})

    async def sign_in_with(self, token: str) -> Page:
        """With a machine token."""
        return await self.post("/sign-in", {"token": token})

    async def _page(self, method: str, path: str, headers: Mapping[str, str], form: Mapping[str, str] | None) -> Page:
        asking = self.session.request(method, f"{self.url}/console{path}", data=form, headers=headers)
        async with asking as response:
            return Page(response.status, response.url.raw_path_qs, response.headers.copy(), await response.text())


@asynccontextmanager
async def browsing(url: str) -> AsyncIterator[Browser]:
    """A browser with no cookies yet."""
    jar = aiohttp.CookieJar(unsafe=True)  # it also keeps those of addresses without a name
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        yield Browser(url, session)
