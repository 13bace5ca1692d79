"""`/sign-in`: where a browser ends up whose log-in was begun by a program. It shows what to paste there.

What came back from the issuer is in the fragment, which no server and no log gets to see; so a script has to read it. It is
written as text and taken out of the address. The policy admits this script and nothing else. Pure.
"""

from base64 import b64encode
from hashlib import sha256
from typing import Final

PATH: Final = "/sign-in"

_SCRIPT: Final = """
const answer = new URLSearchParams(location.hash.slice(1));
history.replaceState(null, "", location.pathname);
const show = (id) => { document.getElementById(id).hidden = false; };
if (answer.has("code")) { document.getElementById("answer").textContent = answer.toString(); show("done"); }
else if (answer.has("error")) { document.getElementById("error").textContent = answer.get("error"); show("refused"); }
else show("nothing");
"""
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#8882;padding:1em;user-select:all}"
    ":root{color-scheme:light dark}"
)


def _source(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


PAGE: Final = (
    "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    f"<title>Tollgate: log in</title><style>{_STYLE}</style>"
    "<div id=done hidden><h1>Almost done</h1><p>Paste this into the program in which <em>you</em> began to log in. Give it "
    "to nobody else: it is good for ten minutes and for one use.<pre id=answer></pre></div>"
    "<div id=refused hidden><h1>Not logged in</h1><p>The issuer says: <code id=error></code>. Begin again.</div>"
    "<div id=nothing hidden><h1>Nothing to see</h1><p>A log-in that was begun in a program ends here.</div>"
    f"<noscript>Without JavaScript this page cannot show its answer.</noscript><script>{_SCRIPT}</script>"
)

HEADERS: Final = {
    "Content-Security-Policy": f"default-src 'none'; script-src {_source(_SCRIPT)}; style-src {_source(_STYLE)}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
