"""`/sign-in`: where a browser ends up whose log-in was begun by a program. It shows what to paste there."""

from typing import Final

from control_plane.api.static_page import StaticPage

PAGE: Final = StaticPage(
    "/sign-in",
    "log in",
    "<div id=done hidden><h1>Almost done</h1><p>Paste this into the program in which <em>you</em> began to log in. Give it "
    "to nobody else: it is good for ten minutes and for one use.<pre id=answer></pre></div>"
    "<div id=refused hidden><h1>Not logged in</h1><p>The issuer says: <code id=error></code>. Begin again.</div>"
    "<div id=nothing hidden><h1>Nothing to see</h1><p>A log-in that was begun in a program ends here.</div>",
    """
if (found.has("code")) { at("answer").textContent = found.toString(); show("done"); }
else if (found.has("error")) { at("error").textContent = found.get("error"); show("refused"); }
else show("nothing");
""",
)
