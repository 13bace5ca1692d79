"""Pages that links lead to: one file each, nothing from elsewhere, and a policy that admits their own script alone. Pure.

What a link carries stands in its fragment, which no server and no log gets to see; so a script has to read it. It takes it
out of the address and writes it as text.
"""

from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#8882;padding:1em;user-select:all}"
    "input,button{font:inherit;padding:.4em .8em;margin:.2em 0}:root{color-scheme:light dark}"
)
_BEGIN: Final = """
const found = new URLSearchParams(location.hash.slice(1));
history.replaceState(null, "", location.pathname);
const at = (id) => document.getElementById(id);
const show = (id) => { for (const part of document.querySelectorAll("body > div")) part.hidden = part.id !== id; };
"""


def _source(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


@dataclass(frozen=True, slots=True)
class StaticPage:
    """One page.

    Attributes:
        body: `div`s with an id, all hidden; the script shows one with `show`.
        script: runs once, with `found`, `at` and `show` at hand.
    """

    path: str
    title: str
    body: str
    script: str

    @property
    def html(self) -> str:
        """The whole page."""
        return (
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
            f"<title>Tollgate: {self.title}</title><style>{_STYLE}</style>{self.body}"
            f"<noscript>This page needs JavaScript.</noscript><script>{_BEGIN}{self.script}</script>"
        )

    @property
    def headers(self) -> dict[str, str]:
        """What it is served with."""
        return {
            "Content-Security-Policy": f"default-src 'none'; script-src {_source(_BEGIN + self.script)}; "
            f"style-src {_source(_STYLE)}; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
